//! One tenant at the hold point: its phase, and its requests in flight.
//!
//! **Invariant:** a request is counted in the same critical section in which
//! it is admitted: after a park, whoever is not counted has to wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::phase::{Admission, PATIENCE, Phase, Way};
use super::upstream::Upstream;

/// A request that has run for longer than this when its tenant is parked is a
/// download, a report or a poll: it would not end within the second, and is
/// not waited for. The fence refuses it, should it still write.
pub const YOUNG: Duration = Duration::from_secs(2);

/// A request whose answer has begun has done its work, nearly always: what
/// still streams is a download. Those that wait are spared the rest of it.
pub const ANSWERING: Duration = Duration::from_millis(50);

/// One tenant; shared by its requests.
pub struct Tenant {
    host: String,
    inner: Mutex<Inner>,
    /// Moves with every change of phase and every request that ends.
    changes: watch::Sender<u64>,
}

struct Inner {
    phase: Phase,
    /// The new place; none where its node takes no requests.
    there: Option<Arc<Upstream>>,
    busy: BTreeMap<u64, InFlight>,
    /// The number of the next request.
    next: u64,
    /// Requests that were ever in flight together.
    most: usize,
    /// Requests that have waited since the park, how long the longest did, and
    /// when the first came of those that wait still.
    waited: u64,
    longest: Duration,
    first: Option<Instant>,
    upgraded: usize,
}

/// A request that was admitted and has not ended.
#[derive(Clone, Copy)]
struct InFlight {
    admitted: Instant,
    /// The head of its answer has come.
    answering: bool,
}

/// How a tenant's requests are, for status and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    pub host: String,
    /// "pass", "parked" or "forward".
    pub phase: String,
    pub in_flight: usize,
    /// Upgraded connections.
    pub upgraded: usize,
    /// Requests that the last park kept waiting, and the longest of them.
    pub waited: u64,
    pub longest_wait_us: u64,
}

/// A request in flight; it ends when this is dropped.
pub(super) struct Busy {
    tenant: Arc<Tenant>,
    number: u64,
}

/// A request that may go now.
pub(super) struct Entered {
    pub(super) busy: Busy,
    pub(super) to: To,
}

/// Where an admitted request goes.
pub(super) enum To {
    /// To the application of this node.
    Here,
    There(Arc<Upstream>),
    /// To a place whose node takes no requests from others.
    OutOfReach,
}

impl Tenant {
    pub(super) fn new(host: String, phase: Phase, there: Option<Arc<Upstream>>) -> Arc<Self> {
        let inner = Inner {
            phase,
            there,
            busy: BTreeMap::new(),
            next: 0,
            most: 0,
            waited: 0,
            longest: Duration::ZERO,
            first: None,
            upgraded: 0,
        };
        Arc::new(Self { host, inner: Mutex::new(inner), changes: watch::Sender::new(0) })
    }

    /// Admits a request, when it may go: at most [`PATIENCE`]
    /// after it came.
    pub(super) async fn enter(self: &Arc<Self>, arrived: Instant) -> Entered {
        let mut changes = self.changes.subscribe();
        let mut waited = false;
        loop {
            let due = {
                let mut inner = self.lock();
                let now = Instant::now();
                match inner.phase.admit(arrived, now) {
                    Admission::Go(way) => {
                        if waited {
                            inner.longest = inner.longest.max(now - arrived);
                        }
                        return self.count(&mut inner, way, now);
                    }
                    Admission::Wait(due) => {
                        if !std::mem::replace(&mut waited, true) {
                            inner.waited += 1;
                            inner.first = Some(inner.first.unwrap_or(arrived).min(arrived));
                        }
                        due
                    }
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    fn count(self: &Arc<Self>, inner: &mut Inner, way: Way, now: Instant) -> Entered {
        let number = inner.next;
        inner.next += 1;
        inner.busy.insert(number, InFlight { admitted: now, answering: false });
        inner.most = inner.most.max(inner.busy.len());
        let to = match (way, &inner.there) {
            (Way::Here, _) => To::Here,
            (Way::There, Some(there)) => To::There(Arc::clone(there)),
            (Way::There, None) => To::OutOfReach,
        };
        Entered { busy: Busy { tenant: Arc::clone(self), number }, to }
    }

    /// New requests wait from now on.
    pub fn park(&self) {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.phase.parked_until(now).is_none() {
            (inner.waited, inner.longest, inner.first) = (0, Duration::ZERO, None);
        }
        inner.phase = inner.phase.park(now);
        drop(inner);
        self.tell();
    }

    /// Waits until no young request is in flight, at most `limit`, and for
    /// those whose answer has begun at most [`ANSWERING`]. Answers how many of
    /// the others are.
    pub async fn drained(&self, limit: Duration) -> usize {
        let began = Instant::now();
        let (deadline, answered_by) = (began + limit, began + ANSWERING.min(limit));
        let since = began.checked_sub(YOUNG);
        // Young ones, and how many of them are not answered yet.
        let count = |inner: &Inner| {
            let young =
                inner.busy.values().filter(|it| since.is_none_or(|since| it.admitted >= since));
            let (all, open) =
                young.fold((0, 0), |(all, open), it| (all + 1, open + usize::from(!it.answering)));
            (all, open)
        };
        let mut changes = self.changes.subscribe();
        loop {
            let (all, open) = count(&self.lock());
            let now = Instant::now();
            if all == 0 || now >= deadline || (open == 0 && now >= answered_by) {
                return open;
            }
            let due = if now < answered_by { answered_by } else { deadline };
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Requests go on, there.
    pub fn release(&self, way: Way) {
        let now = Instant::now();
        let mut inner = self.lock();
        // Those that wait still are admitted a moment later.
        if let Some(first) = inner.first.take() {
            let longest = now.saturating_duration_since(first).min(PATIENCE);
            inner.longest = inner.longest.max(longest);
        }
        inner.phase = inner.phase.release(way);
        drop(inner);
        self.tell();
    }

    /// Where requests go when nothing is parked.
    pub fn way(&self) -> Way {
        self.lock().phase.way()
    }

    /// The new place, and how many connections to it the tenant's usual
    /// requests will want at once.
    pub(super) fn there(&self) -> (Option<Arc<Upstream>>, usize) {
        let inner = self.lock();
        (inner.there.clone(), inner.most)
    }

    /// Returns once requests go another way than `way`.
    pub(super) async fn leaves(&self, way: Way) {
        let mut changes = self.changes.subscribe();
        while self.way() == way {
            // The sender lives in `self`.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns at once unless parked; then when that ends.
    pub(super) async fn open(&self) {
        let mut changes = self.changes.subscribe();
        loop {
            let phase = self.lock().phase;
            let Some(until) = phase.parked_until(Instant::now()) else { return };
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// One upgraded connection more; less again when the answer is dropped.
    pub(super) fn upgraded(self: &Arc<Self>) -> Upgrades {
        self.lock().upgraded += 1;
        Upgrades(Arc::clone(self))
    }

    /// How its requests are.
    pub fn figures(&self) -> Figures {
        let inner = self.lock();
        let phase = match (inner.phase.parked_until(Instant::now()), inner.phase.way()) {
            (Some(_), _) => "parked",
            (None, Way::Here) => "pass",
            (None, Way::There) => "forward",
        };
        Figures {
            host: self.host.clone(),
            phase: phase.to_owned(),
            in_flight: inner.busy.len(),
            upgraded: inner.upgraded,
            waited: inner.waited,
            longest_wait_us: u64::try_from(inner.longest.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // No code panics while it holds the lock; a poisoned value is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    /// The head of its answer has come.
    pub(super) fn answering(&self) {
        if let Some(it) = self.tenant.lock().busy.get_mut(&self.number) {
            it.answering = true;
        }
        self.tenant.tell();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.tenant.lock().busy.remove(&self.number);
        self.tenant.tell();
    }
}

/// One upgraded connection, counted.
pub(super) struct Upgrades(Arc<Tenant>);

impl Drop for Upgrades {
    fn drop(&mut self) {
        self.0.lock().upgraded -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> Arc<Tenant> {
        Tenant::new("acme.example".into(), Phase::open(Way::Here), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_park_waits_for_those_in_flight_and_holds_the_rest() {
        let tenant = tenant();
        let first = tenant.enter(Instant::now()).await;
        tenant.park();
        let newcomer = Arc::clone(&tenant);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { matches!(newcomer.enter(Instant::now()).await.to, To::Here) });
        assert_eq!(tenant.drained(Duration::from_millis(100)).await, 1, "it is still running");
        drop(first);
        assert_eq!(tenant.drained(Duration::from_millis(100)).await, 0);
        assert_eq!(tenant.figures().in_flight, 0, "the newcomer waits");
        tenant.release(Way::Here);
        // Before anyone of them has run on.
        assert_eq!((tenant.figures().waited, tenant.figures().longest_wait_us), (1, 100_000));
        assert!(tasks.join_next().await.expect("one").expect("no panic"));
        let figures = tenant.figures();
        assert_eq!((figures.phase.as_str(), figures.waited), ("pass", 1));
        assert_eq!(figures.longest_wait_us, 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_releases_it_and_the_requests_go_on_all_the_same() {
        let tenant = tenant();
        tenant.park();
        let began = Instant::now();
        let entered = tenant.enter(began).await;
        assert_eq!(Instant::now() - began, PATIENCE);
        drop(entered);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_download_is_not_waited_for() {
        let tenant = tenant();
        let _download = tenant.enter(Instant::now()).await;
        tokio::time::advance(YOUNG + Duration::from_millis(1)).await;
        let _upload = tenant.enter(Instant::now()).await;
        tenant.park();
        assert_eq!(tenant.drained(Duration::from_millis(50)).await, 1, "the upload alone");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_begun_is_waited_for_a_moment() {
        let tenant = tenant();
        let download = tenant.enter(Instant::now()).await;
        download.busy.answering();
        tenant.park();
        let began = Instant::now();
        assert_eq!(tenant.drained(Duration::from_millis(400)).await, 0);
        assert_eq!(began.elapsed(), ANSWERING);
        // Beside one that has no answer yet it counts for nothing.
        let upload = tenant.enter(Instant::now()).await;
        tenant.park();
        let began = Instant::now();
        assert_eq!(tenant.drained(Duration::from_millis(400)).await, 1);
        assert_eq!(began.elapsed(), Duration::from_millis(400));
        drop((upload, download));
        assert_eq!(tenant.drained(Duration::from_millis(400)).await, 0);
    }
}
