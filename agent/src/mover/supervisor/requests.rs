//! The tenant's requests around a step: where they come through before the
//! guards, where they go once it is known who serves the tenant.

use super::Supervisor;
use crate::mover::child::Line;
use crate::mover::error::Kind;
use crate::mover::report::Topic;
use crate::mover::spec::{Done, Serving, Spec, Step};

impl Supervisor {
    /// `work` of one step, with what its tenant's requests need around it.
    pub(super) async fn with_requests(
        &self,
        spec: &Spec,
        step: Step,
        work: impl Future<Output = Line>,
    ) -> Line {
        let hold = &self.inner.setup.hold;
        let prepared = match step {
            Step::Guard => hold.begin(spec).await.map_err(|why| (Kind::Refused, why)),
            Step::Verify => hold.ready(spec).await.map_err(|why| (Kind::Retry, why)),
            Step::CutOver => {
                // Only warms: this step's failures say where the tenant is
                // active, and nobody has looked yet.
                if let Err(why) = hold.ready(spec).await {
                    tracing::warn!(tenant = %spec.tenant, why, "requests may have to wait");
                }
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err((kind, message)) = prepared {
            return Line::Failed { kind, message };
        }
        let mut line = work.await;
        if let Some(serving) = serving(step, &line) {
            hold.release(spec, serving);
        }
        match &mut line {
            Line::Done(Done::Preflight(report)) => {
                if let Some(why) = hold.not_in_the_way(spec) {
                    report.warn(
                        Topic::Servers,
                        format!("requests are not held at the switch: {why}"),
                        "the application must itself repeat what it is refused with SQLSTATE MG001",
                    );
                }
            }
            Line::Done(Done::Finish) => hold.finish(spec).await,
            Line::Done(Done::Undo | Done::Abandon | Done::CleanUp(_)) => hold.end(spec).await,
            Line::Done(_) | Line::Failed { .. } | Line::Progress(_) => {}
        }
        line
    }
}

/// Who serves the tenant, as far as a step's outcome says it.
fn serving(step: Step, line: &Line) -> Option<Serving> {
    match (step, line) {
        (_, Line::Done(Done::CutOver(_))) => Some(Serving::Target),
        (_, Line::Done(Done::RollBack(_))) => Some(Serving::Source),
        (_, Line::Done(Done::Recover(recovered))) => recovered.serving,
        // Both are the word of who has read the fence rows.
        (Step::CutOver, Line::Failed { kind: Kind::Retry | Kind::Refused, .. }) => {
            Some(Serving::Source)
        }
        (Step::RollBack, Line::Failed { kind: Kind::Retry | Kind::Refused, .. }) => {
            Some(Serving::Target)
        }
        _ => None,
    }
}
