//! Which containers there are, by Docker's API.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bollard::Docker;
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::task::JoinSet;

use super::lives::Happened;

/// Containers that events are kept of until they are asked for; of more
/// nothing but that something changed.
const MAX_EVENTS: usize = 4_096;

/// What the API answers within, in seconds.
const API_LIMIT_S: u64 = 2;

/// A container that is ours to watch.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) name: String,
    /// The tenant's label, if it has one.
    pub(super) label: Option<String>,
    /// Whether nobody else has its network.
    pub(super) own_network: bool,
    /// What its health check says; without one, nothing.
    pub(super) healthy: Option<bool>,
}

/// Whether the network of this mode is the container's alone; of an unknown
/// mode nobody can say.
fn own_network(mode: Option<&str>) -> bool {
    mode.is_some_and(|mode| {
        let others = ["host", "container:", "ns:", "pod"];
        !mode.is_empty() && !others.iter().any(|other| mode.starts_with(other))
    })
}

/// The health at the end of a list's status: "Up 5 minutes (unhealthy)". One
/// that begins is not unhealthy yet.
fn healthy(status: &str) -> Option<bool> {
    let word = status.rsplit_once('(')?.1.strip_suffix(')')?;
    match word {
        "healthy" => Some(true),
        "unhealthy" => Some(false),
        _ => word.starts_with("health: ").then_some(true),
    }
}

/// A connection to the API and the events that come over it.
pub(super) struct Discovery {
    socket: PathBuf,
    label: String,
    shared: BTreeSet<String>,
    api: Option<Docker>,
    /// Set by every event, and by the end of their stream.
    changed: Arc<AtomicBool>,
    /// What they said, by the container's id.
    happened: Arc<Mutex<BTreeMap<String, Happened>>>,
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
            happened: Arc::default(),
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

    /// What the events said since the last call, of containers of anybody.
    pub(super) fn happened(&self) -> BTreeMap<String, Happened> {
        std::mem::take(&mut *self.happened.lock().unwrap_or_else(PoisonError::into_inner))
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
                let mode = container.host_config.and_then(|config| config.network_mode);
                found.push(Found {
                    name: name.to_owned(),
                    label,
                    own_network: own_network(mode.as_deref()),
                    healthy: healthy(container.status.as_deref().unwrap_or("")),
                    id,
                });
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
            (
                "event".to_owned(),
                ["start", "die", "destroy", "rename", "oom", "health_status"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut stream = api.events(Some(options));
        let changed = Arc::clone(&self.changed);
        let happened = Arc::clone(&self.happened);
        self.events.spawn(async move {
            while let Some(Ok(event)) = stream.next().await {
                let id = event.actor.and_then(|actor| actor.id);
                if let (Some(id), Some(action)) = (id, event.action) {
                    note(&mut happened.lock().unwrap_or_else(PoisonError::into_inner), id, &action);
                }
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

fn note(happened: &mut BTreeMap<String, Happened>, id: String, action: &str) {
    if happened.len() >= MAX_EVENTS && !happened.contains_key(&id) {
        return;
    }
    match action {
        "start" => happened.entry(id).or_default().starts += 1,
        "oom" => happened.entry(id).or_default().ooms += 1,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_list_by_table() {
        for (status, expected) in [
            ("Up 5 minutes (healthy)", Some(true)),
            ("Up 2 seconds (health: starting)", Some(true)),
            ("Up About an hour (unhealthy)", Some(false)),
            ("Up 5 minutes", None),
            ("Up 5 minutes (Paused)", None),
            ("", None),
        ] {
            assert_eq!(healthy(status), expected, "{status:?}");
        }
        for (mode, expected) in [
            (Some("default"), true),
            (Some("bridge"), true),
            (Some("webhost_net"), true),
            (Some("host"), false),
            (Some("container:c0ffee"), false),
            (Some("ns:/run/netns/a"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(own_network(mode), expected, "{mode:?}");
        }
    }

    #[test]
    fn events_are_counted_and_bounded() {
        let mut happened = BTreeMap::new();
        for action in ["start", "oom", "die", "start", "health_status: unhealthy"] {
            note(&mut happened, "aa".into(), action);
        }
        assert_eq!(happened["aa"], Happened { starts: 2, ooms: 1 });
        for number in 0..2 * MAX_EVENTS {
            note(&mut happened, format!("{number:x}"), "start");
        }
        note(&mut happened, "aa".into(), "oom");
        assert_eq!((happened.len(), happened["aa"].ooms), (MAX_EVENTS, 2));
    }
}
