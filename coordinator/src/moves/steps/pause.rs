//! The step that runs is ended for a pause; its own command answers that it
//! was interrupted, and the state machine pauses there. The rest of the steps
//! is let end.

use webhost_proto::wire::MoveStepKind;

use super::{Context, Outgoing, Step, move_step};

/// None where a pause waits for the step's own end.
pub(super) fn command(step: Step, context: &Context<'_>) -> Option<Outgoing> {
    matches!(step, Step::Copy | Step::Drain | Step::Verify)
        .then(|| move_step(context, MoveStepKind::Pause))
}
