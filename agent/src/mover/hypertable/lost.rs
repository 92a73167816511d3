//! Whole chunks that went away on the source while the move lasted.
//!
//! `drop_chunks` fires no trigger, so no key of such rows is in the log: the
//! comparison finds them. Where exactly the oldest chunks went, as retention
//! drops them, the same chunks are dropped on the target, by the same absolute
//! time; then everything is compared once more. Only on a target of the
//! tenant's own: elsewhere a chunk holds other tenants' rows too. Any other
//! loss stops the move, with the range named; the source stays active.
//!
//! **Invariant:** what is dropped on the target is older than every chunk that
//! the source has in a snapshot later than the last drain, and the target's
//! fence row, locked by the dropping transaction, waits for this leg.

use super::{Hypertable, chunks, read};
use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::copy::parts::Part;
use crate::mover::error::MoveError;
use crate::mover::fence;
use crate::mover::leg::Leg;
use crate::mover::run::{Pair, Run};
use crate::mover::sql::{self, SCHEMA};
use crate::mover::statements::TableSql;

/// A table whose two sides differ, as a snapshot of the source shows it.
pub(in crate::mover) struct Differs {
    /// The table's place in the list.
    pub(in crate::mover) number: usize,
    /// Where its chunks begin on the source, in order.
    pub(in crate::mover) starts: Vec<String>,
}

/// A part of the copy: where it began and ended in time, and whether it had
/// rows.
type Copied = (Option<String>, Option<String>, bool);

/// What of the copied parts has no chunk any more.
#[derive(Debug, PartialEq, Eq)]
struct Gone {
    /// All before this went, and something did.
    before: Option<String>,
    /// Later ranges without a chunk.
    between: Vec<String>,
}

/// `parts` in order of time; `starts` of the chunks that are there now.
fn gone(parts: &[Copied], starts: &[String]) -> Gone {
    let oldest = starts.first();
    let first_left =
        parts.iter().position(|(from, ..)| from.is_some() && from.as_ref() == oldest).unwrap_or(0);
    let some_before = parts.iter().take(first_left).any(|(.., rows)| *rows);
    let show = |bound: &Option<String>| bound.clone().unwrap_or_else(|| "the end".into());
    let between = parts
        .iter()
        .skip(first_left + 1)
        .filter(|(from, _, rows)| *rows && from.as_ref().is_some_and(|from| !starts.contains(from)))
        .map(|(from, until, _)| format!("{} to {}", show(from), show(until)))
        .collect();
    Gone { before: oldest.filter(|_| some_before).cloned(), between }
}

/// Drops on the target what was dropped on the source. False where no chunk
/// that was copied is gone: the difference is of another kind.
///
/// # Errors
/// [`MoveError::Mismatch`], naming the range, where it can't be mirrored.
pub(in crate::mover) async fn mirror(
    run: &Run,
    pair: &Pair,
    leg: Leg,
    table: &Table,
    differs: &Differs,
) -> Result<bool, MoveError> {
    let Some(hypertable) = &table.hypertable else { return Ok(false) };
    if leg != Leg::FORTH {
        return Ok(false);
    }
    let parts = copied(run, &pair.target, hypertable, differs.number).await?;
    let gone = gone(&parts, &differs.starts);
    let stop = |what: String| {
        Err(MoveError::Mismatch {
            table: table.name.clone(),
            keys: format!("{what}: undo the move and start it again, with retention paused"),
        })
    };
    if !gone.between.is_empty() {
        return stop(format!(
            "{}, where chunks were dropped on the source during the move",
            gone.between.join(", ")
        ));
    }
    let Some(before) = gone.before else { return Ok(false) };
    if !run.spec.target_dedicated {
        return stop(format!(
            "all before {before}, where chunks were dropped on the source during the move; \
             on a target that other tenants share they are not"
        ));
    }
    let bound = format!("{}::{}", sql::literal(&before), hypertable.cast);
    let others: bool = pair
        .target
        .one(
            &format!(
                "select exists (select 1 from {} x where x.{} < {bound} and ({}) is not true)",
                table.name,
                hypertable.time,
                TableSql::new(table, &run.spec).of_tenant("x")
            ),
            &[],
        )
        .await?
        .get(0);
    if others {
        return stop(format!(
            "all before {before}, where chunks were dropped on the source during the move; \
             the target has rows of other tenants there"
        ));
    }
    drop_chunks(run, &pair.target, leg, table, &bound).await?;
    tracing::info!(
        move_id = %run.spec.move_id, table = %table.name, %before,
        "chunks that were dropped on the source are dropped on the target"
    );
    Ok(true)
}

/// The ledger's parts of a table, in order of time.
async fn copied(
    run: &Run,
    target: &Conn,
    hypertable: &Hypertable,
    number: usize,
) -> Result<Vec<Copied>, MoveError> {
    let cast = &hypertable.cast;
    let (from, until) = (Part::from_of("part"), Part::until_of("part"));
    let rows = target
        .query(
            &format!(
                "select {from}, {until}, rows > 0 from {SCHEMA}.copied \
                 where move_id = $1 and tab = $2 and {of_time} \
                 order by ({from})::{cast} nulls first, ({until})::{cast} nulls last",
                of_time = Part::is_of_time("part"),
            ),
            &[&run.spec.move_id.0, &i32::try_from(number).unwrap_or(i32::MAX)],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

async fn drop_chunks(
    run: &Run,
    target: &Conn,
    leg: Leg,
    table: &Table,
    bound: &str,
) -> Result<(), MoveError> {
    let functions = read::functions(target).await?;
    target.batch("BEGIN; SET LOCAL synchronous_commit = on").await?;
    let dropped = async {
        fence::waits(&run.spec, leg, target, "FOR UPDATE").await?;
        target
            .batch(&format!(
                "SELECT {functions}.drop_chunks({}::regclass, older_than => {bound}); COMMIT",
                sql::literal(&table.name)
            ))
            .await
    }
    .await;
    if dropped.is_err()
        && let Err(error) = target.batch("ROLLBACK").await
    {
        tracing::debug!(%error, "rollback of dropped chunks");
    }
    dropped
}

/// What a comparison on the way back leaves out on both sides: all that is
/// older than the oldest chunk of the side that serves. Retention dropped it
/// there; the old copy keeps it, as it keeps what retention deletes.
///
/// # Errors
/// What the database said.
pub(in crate::mover) async fn kept(
    serving: &Conn,
    leg: Leg,
    table: &Table,
) -> Result<String, MoveError> {
    match &table.hypertable {
        Some(hypertable) if leg.is_back() => {
            let starts = chunks::starts(serving, &table.name, hypertable).await?;
            let range = chunks::Range { from: starts.first().cloned(), until: None };
            Ok(range.filter(hypertable, "x"))
        }
        _ => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_oldest_chunks_may_be_gone() {
        let part = |from: &str, until: &str| {
            let bound = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            (bound(from), bound(until), true)
        };
        let mut parts = [part("", "2"), part("2", "3"), part("3", "4"), part("4", "")];
        let cases: [(&[&str], Option<&str>, &[&str]); 8] = [
            // The chunks that are there now, what is gone before, and between.
            (&["1", "2", "3", "4"], None, &[]),
            (&["1", "2", "3", "4", "5"], None, &[]),
            (&["2", "3", "4"], Some("2"), &[]),
            (&["3", "4"], Some("3"), &[]),
            (&["4"], Some("4"), &[]),
            (&["1", "2", "4"], None, &["3 to 4"]),
            (&["2", "4"], Some("2"), &["3 to 4"]),
            (&["1", "2", "3"], None, &["4 to the end"]),
        ];
        for (starts, before, between) in cases {
            let starts: Vec<String> = starts.iter().map(ToString::to_string).collect();
            let want = Gone {
                before: before.map(Into::into),
                between: between.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(gone(&parts, &starts), want, "{starts:?}");
        }
        // With no chunk left nobody can say where retention would have cut.
        let none = gone(&parts, &[]);
        assert_eq!((none.before, none.between.len()), (None, 3));
        // Chunks without rows of the tenant may come and go.
        let starts = ["3".to_owned(), "4".to_owned()];
        parts[2].2 = false;
        assert_eq!(gone(&parts, &starts).before.as_deref(), Some("3"));
        parts[0].2 = false;
        parts[1].2 = false;
        assert_eq!(gone(&parts, &starts), Gone { before: None, between: Vec::new() });
        assert_eq!(gone(&parts, &starts[1..]), Gone { before: None, between: Vec::new() });
    }
}
