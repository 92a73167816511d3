//! Signups that come at once are written together. A batch is whoever waits
//! when the batch before ended, up to a bound: nobody waits for a batch to
//! fill, and what a batch shares (the lock of the node rows, the snapshot, the
//! commit) is paid once.
//!
//! No task runs while nobody signs up. Each caller puts its request in line and
//! waits for its answer or for its turn to lead, whichever comes first; who
//! leads takes the whole line along. The batch itself is a task of its own, so
//! that a caller who gives up takes nobody's answer with it.
//!
//! **Invariant:** a batch's answers are given after its commit, and a batch
//! that can't be written as a whole is written one by one: each signup is
//! refused for its own reasons only.
//! **Invariant:** requests with the same key are never in one batch.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::{Desk, SignupError, SignupRequest};
use crate::decide::ProfileOverrides;
use crate::store::StoreError;

/// The most signups that one transaction writes.
const MOST: usize = 64;

/// What a signup is answered: status and body.
pub(super) type Answer = Result<(u16, serde_json::Value), SignupError>;

/// A signup that was checked.
pub(super) struct Asked {
    pub request: SignupRequest,
    pub stated: ProfileOverrides,
    pub actor: String,
    /// Idempotency-Key with its bearer.
    pub key: Option<String>,
}

struct InLine {
    asked: Asked,
    done: oneshot::Sender<Answer>,
}

/// The line before the desk. Cheap to clone; clones are the same line.
#[derive(Clone, Default)]
pub struct Queue {
    line: Arc<Mutex<VecDeque<InLine>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    tasks: TaskTracker,
}

impl Queue {
    // A panic while it was held leaves a line that is valid.
    fn line(&self) -> std::sync::MutexGuard<'_, VecDeque<InLine>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, asked: Asked) -> oneshot::Receiver<Answer> {
        let (done, answer) = oneshot::channel();
        self.line().push_back(InLine { asked, done });
        answer
    }

    /// The next batch, in the order in which they came; nobody who gave up,
    /// and of those with the same key the first.
    fn batch(&self) -> Vec<InLine> {
        let mut line = self.line();
        let mut keys = HashSet::new();
        let (mut batch, mut later) = (Vec::new(), VecDeque::new());
        while let Some(next) = line.pop_front() {
            if next.done.is_closed() {
                continue;
            }
            let known = next.asked.key.as_ref().is_some_and(|key| !keys.insert(key.clone()));
            if known || batch.len() >= MOST {
                later.push_back(next);
            } else {
                batch.push(next);
            }
        }
        *line = later;
        batch
    }
}

impl Desk {
    /// Puts a signup in line and waits for its answer.
    pub(super) async fn answer(&self, asked: Asked) -> Answer {
        let mut answer = self.queue.join(asked);
        loop {
            let turn = tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or_else(|_| Err(abandoned())),
                turn = self.queue.turn.clone().lock_owned() => turn,
            };
            let desk = self.clone();
            let led = self.queue.tasks.spawn(async move {
                let batch = desk.queue.batch();
                desk.write_all(batch).await;
                drop(turn);
            });
            if let Err(error) = led.await {
                tracing::error!(%error, "a batch of signups ended early");
            }
        }
    }

    async fn write_all(&self, batch: Vec<InLine>) {
        let asked: Vec<&Asked> = batch.iter().map(|one| &one.asked).collect();
        let error = match self.write(&asked).await {
            Ok(answers) => {
                for (one, answer) in batch.into_iter().zip(answers) {
                    // Who gave up finds the answer under its key.
                    let _gave_up = one.done.send(answer);
                }
                return;
            }
            Err(error) => error,
        };
        let mut rest = batch.into_iter();
        if rest.len() == 1 || matches!(error, StoreError::Pool(_)) {
            refuse(&mut rest, error);
            return;
        }
        tracing::warn!(%error, signups = rest.len(), "a batch failed; one by one");
        while let Some(one) = rest.next() {
            let answer = match self.write(&[&one.asked]).await {
                Ok(mut answers) => answers.pop().unwrap_or_else(|| Err(abandoned())),
                Err(error @ StoreError::Pool(_)) => {
                    refuse(&mut std::iter::once(one).chain(rest.by_ref()), error);
                    return;
                }
                Err(error) => Err(error.into()),
            };
            let _gave_up = one.done.send(answer);
        }
    }
}

/// Tells all of `line` what went wrong.
fn refuse(line: &mut impl Iterator<Item = InLine>, error: StoreError) {
    let words = match &error {
        StoreError::Pool(error) => error.to_string(),
        other => other.to_string(),
    };
    if let Some(first) = line.next() {
        let _gave_up = first.done.send(Err(error.into()));
    }
    for other in line {
        let _gave_up = other.done.send(Err(StoreError::NoConnection(words.clone()).into()));
    }
}

fn abandoned() -> SignupError {
    let detail = "a batch of signups ended without this one's answer; ask again".to_owned();
    SignupError::Store(StoreError::Corrupt { what: "signup", detail })
}

#[cfg(test)]
mod tests;
