//! How this move, and others of the tenant, stand already.

use crate::mover::error::{MoveError, Side};
use crate::mover::fence;
use crate::mover::leg::Leg;
use crate::mover::recover::{self, Standing};
use crate::mover::report::{Preflight, Topic};
use crate::mover::run::{Pair, Run};
use crate::mover::sql::SCHEMA;

pub(super) async fn standing(
    run: &Run,
    pair: &Pair,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let source = fence::read(&pair.source, run.spec.tenant, false).await?;
    let target = fence::read(&pair.target, run.spec.tenant, false).await?;
    match recover::standing(run.spec.move_id, run.spec.epoch, source, target) {
        Standing::Before(Leg::FORTH) => {}
        Standing::Before(_) | Standing::PastThePoint(_) | Standing::Elsewhere => {
            report.problem(Topic::Standing, "this move has switched the tenant already", "");
        }
        Standing::TwoActive => report.problem(
            Topic::Standing,
            format!("both databases are active for tenant {}", run.spec.tenant),
            "find out which one its writers use first",
        ),
        Standing::Stale(why) => report.problem(Topic::Standing, why, ""),
    }
    for conn in [&pair.source, &pair.target] {
        let exists: bool = conn
            .one(&format!("select to_regclass('{SCHEMA}.moves') is not null"), &[])
            .await?
            .get(0);
        if !exists {
            continue;
        }
        let others = conn
            .query(
                &format!("select move_id::text from {SCHEMA}.moves where customer_id = $1 and move_id <> $2"),
                &[&run.spec.tenant.0, &run.spec.move_id.0],
            )
            .await?;
        for row in &others {
            let other: String = row.get(0);
            let (what, way_out) = match conn.side() {
                Side::Source => ("has guards", "finish or undo it first".to_owned()),
                // Of a move that was given up while this node was away.
                Side::Target => (
                    "still has guards, and perhaps rows,",
                    format!(
                        "finish or undo it first; if it was abandoned or forgotten, \
                         `webhost-coordinator move clean-up {other}` deletes them"
                    ),
                ),
            };
            report.problem(
                Topic::Standing,
                format!("the {} {what} of move {other} of the same tenant", conn.side()),
                way_out,
            );
        }
    }
    Ok(())
}
