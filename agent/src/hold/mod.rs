//! The hold point: an HTTP proxy on loopback between nginx and the
//! application, so that an application that knows nothing of moves is moved
//! without an error.
//!
//! # Background
//!
//! An application whose pool neither retries nor follows SQLSTATE `MG001`
//! answers 500 when a write meets the fence. So the fence is the safety net,
//! and this is the way: from the guards on, requests for the tenant's host
//! name come through here ([`crate::nginx`] tells nginx to send them). At the
//! cut-over new requests are parked, those in flight end, the fence closes
//! over no writer, and the parked requests go to the new place, through the
//! tunnel of the move: no port is opened for it, and nothing crosses between
//! two machines in clear text.
//!
//! # Theory of operation
//!
//! [`phase`] says what a new request does; [`tenant`] counts those in flight
//! and wakes those that wait; [`proxy`] serves, and passes each request on
//! over a pool of connections ([`upstream`]) to the application or to the new
//! place; [`upgrade`] carries WebSockets. [`moves`] is what a move asks of
//! all this, and [`record`] what survives a restart.
//!
//! The proxy runs on a thread of its own: the agent's rounds of collection
//! read hundreds of files, and no request shall wait for that.
//!
//! A host name that belongs to no move passes through untouched: method, path,
//! body, trailers and fields, hop-by-hop ones taken out as RFC 9110 demands,
//! `X-Forwarded-*` as nginx set them. Bodies stream both ways with
//! back-pressure; a field section is at most 64 KiB.
//!
//! **Invariant:** no request waits longer than a second ([`phase::PATIENCE`]).
//! **Invariant:** the fence closes only after every request that was admitted
//! before the park, and is younger than [`tenant::YOUNG`], has ended or had its
//! time to (less of it where its answer streams already). Whatever slips through meets the fence, which loses nothing.
//! **Invariant:** where a restarted agent sends a moved tenant's requests is
//! what the fence rows say; until they were read, requests wait.
//!
//! # What it can't do
//!
//! It sees HTTP requests that name their tenant by host. Devices on a raw TCP
//! port, and one ingest host for all tenants, are not held: their application
//! must retry `MG001` itself, or look into the tenant directory. Requests that
//! have run for longer than two seconds when the park begins are not waited
//! for. A connection of HTTP/2 is shared by all tenants whose names it carries.
//! Requests that came straight to the new node's application are out of reach
//! of a roll back: until name servers answer with the old place again, they
//! meet the fence there.

pub mod phase;

pub mod tenant;

mod headers;

pub mod upstream;

mod frames;
mod upgrade;

mod proxy;

mod record;
mod there;

pub mod moves;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::moves::{HoldPoint, Moves};
use self::phase::{Phase, Way};
use self::tenant::{Figures, Tenant};
use self::upstream::{Application, Upstream};

/// How the proxy runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The application of this node.
    pub application: SocketAddr,
    /// Connections at a time; more wait in the kernel's queue.
    pub max_connections: usize,
}

/// The hold point of this node. Cheap to clone.
#[derive(Clone)]
pub struct Hold {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    here: Arc<Upstream>,
    /// The pools' connections.
    tasks: TaskTracker,
    /// Where the proxy runs.
    runtime: Handle,
    /// By host name, in lower case.
    tenants: RwLock<HashMap<String, Arc<Tenant>>>,
}

impl Hold {
    /// A proxy that will run on `runtime`; [`Hold::serve`] makes it.
    pub fn new(settings: Settings, runtime: Handle) -> Self {
        let tasks = TaskTracker::new();
        let dial = Arc::new(Application(settings.application));
        let here = Upstream::new(dial, Duration::ZERO, &tasks);
        let tenants = RwLock::default();
        Self { inner: Arc::new(Inner { settings, here, tasks, runtime, tenants }) }
    }

    /// Serves until `shutdown`; requests that run then may end.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        proxy::serve(listener, self, shutdown).await;
    }

    /// Requests for `host` go `way`; `there` is the new place, where its node
    /// takes requests. A tenant that is known keeps its phase and requests.
    pub fn put(&self, host: &str, way: Way, there: Option<Arc<Upstream>>) -> Arc<Tenant> {
        let mut tenants = self.inner.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let tenant = tenants
            .entry(host.to_owned())
            .or_insert_with(|| Tenant::new(host.to_owned(), Phase::open(way), there));
        Arc::clone(tenant)
    }

    /// The host name belongs to no move any more: requests pass. Those that
    /// are parked are released.
    pub fn remove(&self, host: &str) {
        let removed =
            self.inner.tenants.write().unwrap_or_else(PoisonError::into_inner).remove(host);
        if let Some(tenant) = removed {
            tenant.release(Way::Here);
        }
    }

    /// The tenant of a host name; none where it belongs to no move.
    pub fn tenant(&self, host: &str) -> Option<Arc<Tenant>> {
        self.inner.tenants.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// How the tenants' requests are, by host name.
    pub fn figures(&self) -> Vec<Figures> {
        let tenants = self.inner.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Figures> = tenants.values().map(|tenant| tenant.figures()).collect();
        all.sort_by(|a, b| a.host.cmp(&b.host));
        all
    }

    /// Has connections to the new place ready, on the proxy's own runtime.
    ///
    /// # Errors
    /// In words, when the new place can't be reached.
    pub async fn warm(&self, tenant: &Arc<Tenant>) -> Result<(), String> {
        let (Some(there), most) = tenant.there() else { return Ok(()) };
        let dials = async move { there.warm(most + 2).await };
        match self.inner.tasks.spawn_on(dials, &self.inner.runtime).await {
            Ok(warmed) => warmed,
            Err(error) => Err(format!("the hold point has ended: {error}")),
        }
    }

    fn here(&self) -> &Upstream {
        &self.inner.here
    }

    fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }
}

#[cfg(test)]
mod tests;
