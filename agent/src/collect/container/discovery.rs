//! Which containers there are, by Docker's API.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bollard::Docker;
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::task::JoinSet;

/// What the API answers within, in seconds.
const API_LIMIT_S: u64 = 2;

/// A container that is ours to watch.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) name: String,
    /// The tenant's label, if it has one.
    pub(super) label: Option<String>,
}

/// A connection to the API and the events that come over it.
pub(super) struct Discovery {
    socket: PathBuf,
    label: String,
    shared: BTreeSet<String>,
    api: Option<Docker>,
    /// Set by every event, and by the end of their stream.
    changed: Arc<AtomicBool>,
    events: JoinSet<()>,
}

impl Discovery {
    pub(super) fn new(socket: PathBuf, label: String, shared: BTreeSet<String>) -> Self {
        Self {
            socket,
            label,
            shared,
            api: None,
            changed: Arc::new(AtomicBool::new(true)),
            events: JoinSet::new(),
        }
    }

    pub(super) fn socket_exists(&self) -> bool {
        self.socket.exists()
    }

    /// Whether a listing is due.
    pub(super) fn changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    pub(super) fn look_again(&self) {
        self.changed.store(true, Ordering::Release);
    }

    pub(super) fn disconnect(&mut self) {
        self.api = None;
        self.events.abort_all();
        self.look_again();
    }

    /// Lists the tenants' and the shared containers that run.
    pub(super) async fn list(&mut self) -> Result<Vec<Found>, String> {
        let listed = self.try_list().await;
        if listed.is_err() {
            self.disconnect();
        }
        listed.map_err(|why| format!("{}: {why}", self.socket.display()))
    }

    async fn try_list(&mut self) -> Result<Vec<Found>, String> {
        // Reaps the task of a stream that ended, after which the API has to
        // be connected anew: without events nothing would be noticed.
        while self.events.try_join_next().is_some() {}
        if self.events.is_empty() {
            self.api = None;
        }
        let api = match &self.api {
            Some(api) => api.clone(),
            None => self.connect().await?,
        };
        // Before the listing: what changes during it is looked at again.
        self.changed.store(false, Ordering::Release);
        let mut filters = HashMap::new();
        if self.shared.is_empty() {
            // Docker leaves out the rest, so that a server of a thousand other
            // containers costs nothing.
            filters.insert("label".to_owned(), vec![self.label.clone()]);
        }
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let list = api.list_containers(Some(options)).await.map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for container in list {
            let Some(id) = container.id else { continue };
            let label = container.labels.unwrap_or_default().remove(&self.label);
            let names = container.names.unwrap_or_default();
            let name = names.first().map_or(id.as_str(), |name| name.trim_start_matches('/'));
            if label.is_some() || self.shared.contains(name) {
                found.push(Found { name: name.to_owned(), id, label });
            }
        }
        self.api = Some(api);
        Ok(found)
    }

    async fn connect(&mut self) -> Result<Docker, String> {
        if !self.socket.exists() {
            return Err("there is no such socket, so no containers are looked for".into());
        }
        let path = self.socket.to_str().ok_or("the socket's path is not UTF-8")?;
        let api = Docker::connect_with_unix(path, API_LIMIT_S, bollard::API_DEFAULT_VERSION)
            .map_err(|error| error.to_string())?;
        // An older daemon refuses a newer client's version.
        let api = api.negotiate_version().await.map_err(|error| error.to_string())?;
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), ["start", "die", "destroy", "rename"].map(str::to_owned).to_vec()),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut stream = api.events(Some(options));
        let changed = Arc::clone(&self.changed);
        self.events.spawn(async move {
            while let Some(Ok(_event)) = stream.next().await {
                changed.store(true, Ordering::Release);
            }
            changed.store(true, Ordering::Release);
        });
        Ok(api)
    }

    /// The first process of a container.
    pub(super) async fn pid(&self, id: &str) -> Result<i64, String> {
        let api = self.api.as_ref().ok_or("no connection to the container engine")?;
        let state = api
            .inspect_container(id, None::<InspectContainerOptions>)
            .await
            .map_err(|error| error.to_string())?
            .state;
        state
            .and_then(|state| state.pid)
            .filter(|&pid| pid > 0)
            .ok_or_else(|| "it does not run".into())
    }
}
