//! After a restart of the agent: what an earlier run left goes on.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::Supervisor;
use super::record::Record;
use crate::mover::child::Line;
use crate::mover::error::Kind;
use crate::mover::spec::Step;

/// Between two tries to recover a move whose databases can't be reached.
const AGAIN: Duration = Duration::from_millis(900);

/// What a restarted agent does about a move whose last step this was; none
/// where the source is active anyway, and the coordinator says what is next.
fn resumed(step: Step) -> Option<Step> {
    match step {
        step if step.leaves_the_source_active() => None,
        // They have no end that a look at the fence rows could replace.
        Step::WayBack | Step::CleanUp => Some(step),
        _ => Some(Step::Recover),
    }
}

impl Supervisor {
    /// Recovers every move that an earlier run left in doubt, and goes on with
    /// ways back and clean-ups. Returns when each is settled or taken over by a
    /// command, or at shutdown; spawn it beside the rest.
    pub async fn resume(&self) {
        let all = self.inner.records.all();
        let begun = all
            .into_iter()
            .filter_map(|record| resumed(record.step).map(|step| self.resume_one(record, step)));
        join_all(begun).await;
    }

    async fn resume_one(&self, record: Record, step: Step) {
        let move_id = record.spec.move_id;
        let shutdown = &self.inner.setup.shutdown;
        while !shutdown.is_cancelled() {
            // A command of the coordinator may have settled it meanwhile.
            if self.inner.records.get(move_id).is_none_or(|now| now != record) {
                return;
            }
            let (silent, _) = watch::channel(None);
            let ended = self.locked(&record.spec, step, &silent).await;
            if ended.by_another {
                return;
            }
            match ended.line {
                Line::Done(done) => {
                    tracing::info!(%move_id, ?done, "resumed after a restart");
                    if step == Step::Recover {
                        self.show(&record.spec, record.step, "waiting");
                    } else {
                        self.ended(&record.spec, step, &done);
                    }
                    return;
                }
                Line::Failed { kind: Kind::Refused, message } => {
                    tracing::error!(%move_id, %message, "a move can't be recovered");
                    self.show(&record.spec, record.step, &message);
                    return;
                }
                Line::Failed { message, .. } => {
                    tracing::warn!(%move_id, %message, "not recovered yet");
                    self.show(&record.spec, record.step, &message);
                }
                Line::Progress(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_past_its_point_of_no_return_is_looked_at() {
        for step in Step::ALL {
            let want = match step {
                Step::Preflight | Step::Guard | Step::Copy | Step::Drain | Step::Verify => None,
                Step::WayBack | Step::CleanUp => Some(step),
                Step::CutOver
                | Step::RollBack
                | Step::Finish
                | Step::Undo
                | Step::Abandon
                | Step::Recover => Some(Step::Recover),
            };
            assert_eq!(resumed(step), want, "{step}");
        }
    }
}
