//! The way of one request: to the place that is believed, elsewhere when that
//! place says so, again when it says "not now".

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ledger::Shared;
use crate::app::http::SESSION_HEADER;
use crate::app::wire::Problem;
use crate::harness::api::{Api, http_client};

/// The first pause before a retry; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What all clients share: where things are, and the ledger.
pub struct World {
    http: reqwest::Client,
    api: Api,
    /// The application's address by node name: the DNS of this small world.
    places: BTreeMap<String, String>,
    homes: Mutex<HashMap<Uuid, String>>,
    /// What was written.
    pub ledger: Shared,
    started: Instant,
}

/// How a request ended.
pub enum Ended {
    /// With success, by this node, after so many attempts.
    Served { node: String, attempts: u32, body: String },
    /// Refused for good.
    Refused(String),
    /// The load ended before an answer came.
    Abandoned,
}

/// One request, to be sent as often as needed.
pub struct Request<'a> {
    pub method: reqwest::Method,
    pub path: &'a str,
    pub session: Option<&'a str>,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl World {
    /// Places by node name; `api` answers where tenants live.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(api: Api, places: BTreeMap<String, String>) -> anyhow::Result<Self> {
        Ok(Self {
            http: http_client()?,
            api,
            places,
            homes: Mutex::default(),
            ledger: Shared::default(),
            started: Instant::now(),
        })
    }

    /// Since the load's start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sets where a tenant is believed to live.
    pub fn set_home(&self, tenant: Uuid, node: &str) {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        homes.insert(tenant, node.to_owned());
    }

    fn believed(&self, tenant: Uuid) -> Option<String> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    /// Where the tenant is believed to live; asks the coordinator when
    /// nothing is known.
    async fn home(&self, tenant: Uuid) -> Result<String, String> {
        if let Some(node) = self.believed(tenant) {
            return Ok(node);
        }
        let answer = self
            .api
            .get(&format!("/api/tenants/{tenant}/place"))
            .await
            .map_err(|error| format!("{error:#}"))?;
        let node = answer["node"].as_str().map(str::to_owned);
        let node = node.or_else(|| answer["node"]["name"].as_str().map(str::to_owned));
        let node = node.ok_or_else(|| format!("no node in the place {answer}"))?;
        self.set_home(tenant, &node);
        Ok(node)
    }

    fn forget_home(&self, tenant: Uuid) {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
    }

    /// Sends `request` until it is served or refused for good, or `give_up`
    /// is cancelled.
    pub async fn send(
        &self,
        tenant: Uuid,
        request: &Request<'_>,
        give_up: &CancellationToken,
    ) -> Ended {
        let mut attempts = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            attempts += 1;
            match self.attempt(tenant, request).await {
                Attempt::Served { node, body } => return Ended::Served { node, attempts, body },
                Attempt::Refused(why) => return Ended::Refused(why),
                Attempt::Elsewhere => {}
                Attempt::NotNow => {}
            }
            tokio::select! {
                () = give_up.cancelled() => return Ended::Abandoned,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, tenant: Uuid, request: &Request<'_>) -> Attempt {
        let Ok(node) = self.home(tenant).await else { return Attempt::NotNow };
        let Some(base) = self.places.get(&node) else {
            self.forget_home(tenant);
            return Attempt::NotNow;
        };
        let mut sent = self
            .http
            .request(request.method.clone(), format!("{base}{}", request.path))
            .header("content-type", request.content_type)
            .body(request.body.clone());
        if let Some(session) = request.session {
            sent = sent.header(SESSION_HEADER, session);
        }
        let Ok(response) = sent.send().await else { return Attempt::NotNow };
        let status = response.status();
        let Ok(body) = response.text().await else { return Attempt::NotNow };
        if status.is_success() {
            return Attempt::Served { node, body };
        }
        let problem: Option<Problem> = serde_json::from_str(&body).ok();
        match (status, problem) {
            (StatusCode::SERVICE_UNAVAILABLE, Some(Problem { place: Some(place), .. }))
                if self.places.contains_key(&place) && place != node =>
            {
                self.set_home(tenant, &place);
                Attempt::Elsewhere
            }
            (StatusCode::NOT_FOUND, Some(_)) => {
                // This node doesn't have the tenant: the coordinator knows.
                self.forget_home(tenant);
                Attempt::NotNow
            }
            (StatusCode::SERVICE_UNAVAILABLE, _) => Attempt::NotNow,
            _ => Attempt::Refused(format!("{} {}: {status} {body}", node, request.path)),
        }
    }
}

enum Attempt {
    Served { node: String, body: String },
    Refused(String),
    Elsewhere,
    NotNow,
}
