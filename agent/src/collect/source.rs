//! What every source has in common: it is read on its own task, at every
//! round, within its own limit, and keeps its last good reading with its age.
//!
//! **Invariant:** nothing that one source does can delay another one: they
//! share no lock and no await. A round takes whatever has been published.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It was read in full.
    Ok,
    /// It could not be read, or only in part; the sentence says why.
    Degraded(String),
    /// It is not there or not wanted; the sentence says why.
    Off(String),
}

/// What one reading came to.
#[derive(Debug)]
pub enum Outcome<T> {
    /// Everything was read.
    Good(T),
    /// Something is missing or was refused; the rest is used.
    Partial(T, String),
    /// Nothing was read.
    Failed(String),
    /// There is nothing to read here.
    Off(String),
}

/// A source, as its task drives it.
pub trait Source: Send + 'static {
    /// What one reading yields.
    type Reading: Send + Sync + 'static;

    /// Reads once. It is dropped half way when it takes too long, so it must
    /// be able to begin anew afterwards.
    fn read(&mut self) -> impl Future<Output = Outcome<Self::Reading>> + Send;

    /// Told after a reading was dropped, to let go of what hangs.
    fn abandoned(&mut self) {}
}

/// What a source has to say at any time.
#[derive(Debug)]
pub struct Published<T> {
    /// The round that the latest attempt belongs to; 0 before the first.
    pub round: u64,
    /// The round of the last good reading.
    pub value_round: u64,
    /// When the last good reading was taken.
    pub taken: Option<Instant>,
    /// How the latest attempt went.
    pub health: Health,
    /// The last good reading.
    pub value: Option<T>,
}

impl<T> Published<T> {
    /// Before the first attempt.
    pub fn waiting() -> Self {
        Self {
            round: 0,
            value_round: 0,
            taken: None,
            health: Health::Degraded("has not been read yet".into()),
            value: None,
        }
    }

    /// A source that the configuration leaves out.
    pub fn off(why: &str) -> Self {
        Self { health: Health::Off(why.into()), round: u64::MAX, ..Self::waiting() }
    }

    /// The last good reading, unless it is older than `limit`.
    pub fn fresh(&self, now: Instant, limit: Duration) -> Option<&T> {
        let taken = self.taken?;
        if now.saturating_duration_since(taken) <= limit { self.value.as_ref() } else { None }
    }
}

/// Reads `source` at every change of `rounds`, until `stop`.
pub async fn drive<S: Source>(
    mut source: S,
    limit: Duration,
    mut rounds: watch::Receiver<u64>,
    publish: watch::Sender<Published<S::Reading>>,
    stop: CancellationToken,
) {
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = rounds.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let round = *rounds.borrow_and_update();
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = tokio::time::timeout(limit, source.read()) => outcome,
        };
        let outcome = outcome.unwrap_or_else(|_| {
            source.abandoned();
            Outcome::Failed(format!("no answer within {} ms", limit.as_millis()))
        });
        let now = Instant::now();
        publish.send_modify(|published| {
            published.round = round;
            let (value, health) = match outcome {
                Outcome::Good(value) => (Some(value), Health::Ok),
                Outcome::Partial(value, why) => (Some(value), Health::Degraded(why)),
                Outcome::Failed(why) => (None, Health::Degraded(why)),
                Outcome::Off(why) => (None, Health::Off(why)),
            };
            published.health = health;
            if value.is_some() {
                published.value = value;
                published.value_round = round;
                published.taken = Some(now);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hangs in its first reading, answers in the others.
    struct Hanging {
        readings: u32,
        abandoned: u32,
    }

    impl Source for Hanging {
        type Reading = u32;

        async fn read(&mut self) -> Outcome<u32> {
            self.readings += 1;
            if self.readings == 1 {
                std::future::pending::<()>().await;
            }
            Outcome::Good(self.abandoned)
        }

        fn abandoned(&mut self) {
            self.abandoned += 1;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_hangs_is_dropped_and_the_next_one_works() {
        let (rounds, receiver) = watch::channel(0);
        let (publish, mut published) = watch::channel(Published::waiting());
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let source = Hanging { readings: 0, abandoned: 0 };
        tasks.spawn(drive(source, Duration::from_secs(2), receiver, publish, stop.clone()));

        rounds.send_replace(1);
        published.changed().await.expect("published");
        {
            let seen = published.borrow_and_update();
            assert_eq!(seen.health, Health::Degraded("no answer within 2000 ms".into()));
            assert_eq!((seen.round, seen.value_round, seen.value), (1, 0, None));
        }
        rounds.send_replace(2);
        published.changed().await.expect("published");
        {
            let seen = published.borrow_and_update();
            assert_eq!((seen.round, seen.value_round, seen.value), (2, 2, Some(1)));
            assert_eq!(seen.health, Health::Ok);
        }
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}
