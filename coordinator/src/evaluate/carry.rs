//! The moves of a plan are asked for, in its order. Each is looked at again
//! when it begins.

use webhost_proto::ids::{MoveId, TenantId};

use super::force::{ForceError, Wanted, force};
use crate::decide::Mode;
use crate::fleet::plan::{Move, Why};
use crate::moves::Kind;
use crate::slots::Slots;
use crate::store::Store;

/// Asks for each of `steps` on `actor`'s word; answers what came of each. One
/// that is refused keeps none of the others.
pub async fn carry(
    store: &Store,
    slots: &Slots,
    steps: &[Move],
    actor: &str,
) -> Vec<(TenantId, Result<MoveId, ForceError>)> {
    let mut answers = Vec::with_capacity(steps.len());
    for step in steps {
        let why = match step.why {
            Why::Relieve => "its node is overloaded",
            Why::Drain => "its node is being emptied",
            Why::Consolidate => "its node is not needed any more",
        };
        let wanted = Wanted {
            tenant: step.tenant,
            mode: Mode::MultiTenant,
            kind: Some(Kind::Lateral),
            target: Some(step.to),
            reason: Some(format!("plan: {why}")),
            confirm_rows: 0,
            dry_run: false,
        };
        let begun = force(store, slots, wanted, actor).await;
        answers.push((step.tenant, begun.map(|forced| forced.move_id)));
    }
    answers
}
