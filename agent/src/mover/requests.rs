//! What a mover asks of whoever carries the tenant's requests, around the
//! moment of the switch. The fence holds without it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use super::leg::Leg;
use super::spec::Serving;
use super::{error::Side, run::Run};

/// How long a mover waits for the requests: more than the agent takes, and
/// with the fence's own bound less than a request may wait.
const PATIENCE: Duration = Duration::from_millis(600);

/// Whoever carries the tenant's requests.
#[tonic::async_trait]
pub trait Requests: Send + Sync + 'static {
    /// New requests wait from now on; returns when those in flight have ended,
    /// or after a bounded time.
    async fn park(&self);

    /// Requests go on, to the side that serves the tenant.
    fn release(&self, serving: Serving);

    /// The tenant's writers wait from now on, until [`Requests::off_fence`].
    /// Whoever watches over this mover gives it a bounded time.
    fn at_fence(&self) {}

    /// They don't wait for this mover any more.
    fn off_fence(&self) {}
}

/// Nobody does.
pub struct Nobody;

#[tonic::async_trait]
impl Requests for Nobody {
    async fn park(&self) {}
    fn release(&self, _serving: Serving) {}
}

/// What a child tells or asks its agent, one a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Answered by [`PARKED`] on the child's input.
    Park,
    Release(Serving),
    /// It neither stands still nor hangs.
    Alive,
    /// Writers wait for it now, and not any more.
    AtFence,
    OffFence,
}

/// How often a child says [`Word::Alive`] while a step runs.
pub(super) const ALIVE_EVERY: Duration = Duration::from_millis(500);

/// The line that answers [`Word::Park`].
pub const PARKED: &str = "\"parked\"";

/// The agent that this process is a child of.
pub(super) struct Agent {
    words: mpsc::Sender<Word>,
    parked: Notify,
}

impl Agent {
    /// With the words that are to be said.
    pub(super) fn new() -> (Self, mpsc::Receiver<Word>) {
        // A word that finds no room is not said: an older one was not heard,
        // and the agent's own times end a park.
        let (words, heard) = mpsc::channel(16);
        (Self { words, parked: Notify::new() }, heard)
    }

    /// The agent said [`PARKED`].
    pub(super) fn answered(&self) {
        self.parked.notify_one();
    }

    fn say(&self, word: Word) {
        if let Err(error) = self.words.try_send(word) {
            tracing::warn!(?word, %error, "the agent was not told");
        }
    }
}

#[tonic::async_trait]
impl Requests for Agent {
    async fn park(&self) {
        // An answer that came late belongs to an earlier question.
        let _late = tokio::time::timeout(Duration::ZERO, self.parked.notified()).await;
        self.say(Word::Park);
        if tokio::time::timeout(PATIENCE, self.parked.notified()).await.is_err() {
            tracing::warn!("the requests were not parked in time: the fence meets them");
        }
    }

    fn release(&self, serving: Serving) {
        self.say(Word::Release(serving));
    }

    fn at_fence(&self) {
        self.say(Word::AtFence);
    }

    fn off_fence(&self) {
        self.say(Word::OffFence);
    }
}

impl Run {
    /// Parks the tenant's requests before the fence of a leg closes.
    pub(super) async fn park(&self) {
        self.requests.park().await;
    }

    /// Lets the requests go on where the leg came to, or stayed.
    pub(super) fn release(&self, leg: Leg, switched: bool) {
        let side = if switched { leg.to_side() } else { leg.from_side() };
        self.requests.release(match side {
            Side::Source => Serving::Source,
            Side::Target => Serving::Target,
        });
    }
}
