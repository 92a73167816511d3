//! The parts of all tables, over a few streams at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;

use super::meter::Meter;
use super::parts::{Part, plan};
use super::pipe::copy_part;
use super::{Done, close, number};
use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::error::{MoveError, Side};
use crate::mover::run::{Pair, Run};
use crate::mover::sql::SCHEMA;
use crate::mover::undo;

/// Between two looks at the parts of another stream.
const WAIT: std::time::Duration = std::time::Duration::from_millis(5);

/// One table's share of the work.
pub(super) struct Task<'a> {
    pub(super) tab: i32,
    pub(super) table: &'a Table,
    /// Whether an earlier run has copied some of it already.
    pub(super) begun: bool,
    /// Parts that no stream has finished yet.
    left: AtomicUsize,
}

/// What is to be copied, in order.
pub(super) struct Plan<'a> {
    tasks: Vec<Task<'a>>,
    /// The task's place, and the part.
    queue: Mutex<VecDeque<(usize, Part)>>,
}

impl<'a> Plan<'a> {
    /// Reads the ledger and cuts the tables that are not whole into parts. A
    /// table that was rewritten since an earlier run starts anew.
    pub(super) async fn make(
        run: &Run,
        pair: &Pair,
        (source, target): (&Conn, &Conn),
        tables: &'a [Table],
        meter: &Meter<'_>,
    ) -> Result<Self, MoveError> {
        let mut tasks = Vec::new();
        let mut queue = VecDeque::new();
        for (at, table) in tables.iter().enumerate() {
            let tab = number(at);
            let done = Done::read(run, target, tab).await?;
            if done.is_whole() {
                done.count(meter);
                continue;
            }
            let parts = plan(run, source, table).await?;
            // A table that was rewritten since (VACUUM FULL) has other rows in
            // the same pages, and no log knows of it.
            let files: Vec<&str> =
                parts.iter().filter_map(|part| part.id.split(':').next()).collect();
            let rewritten = done.parts.iter().any(|(part, ..)| {
                part.split(':').next().is_some_and(|file| !files.contains(&file))
            });
            if rewritten {
                // With it goes what belongs to the tenant through it: without
                // the parents nobody could tell whose those rows are.
                let below = table.dependents.iter().map(|dependent| dependent.number);
                let mut anew: Vec<usize> = below.chain([at]).collect();
                anew.sort_unstable();
                for other in anew.into_iter().rev() {
                    if let Some(table) = tables.get(other) {
                        undo::delete_rows(run, &pair.target, table).await?;
                    }
                    let sql =
                        format!("delete from {SCHEMA}.copied where move_id = $1 and tab = $2");
                    target.execute(&sql, &[&run.spec.move_id.0, &number(other)]).await?;
                }
            } else {
                done.count(meter);
            }
            let todo: Vec<Part> =
                parts.into_iter().filter(|part| rewritten || !done.has(&part.id)).collect();
            if todo.is_empty() {
                close(run, target, tab).await?;
                continue;
            }
            let begun = !rewritten && !done.parts.is_empty();
            let left = AtomicUsize::new(todo.len());
            queue.extend(todo.into_iter().map(|part| (tasks.len(), part)));
            tasks.push(Task { tab, table, begun, left });
        }
        Ok(Self { tasks, queue: Mutex::new(queue) })
    }

    fn next(&self) -> Option<(&Task<'a>, Part)> {
        // No code panics while it holds this; a poisoned value is whole.
        let (at, part) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        self.tasks.get(at).map(|task| (task, part))
    }

    /// Waits until the tables are whole through which the task's rows belong to
    /// the tenant: an undo of what is committed must find them by it. Their
    /// parts came off the queue before, so somebody is at them.
    async fn parents_are_there(&self, task: &Task<'_>) {
        for hop in task.table.membership.hops() {
            let above = number(hop.parent_number);
            while self
                .tasks
                .iter()
                .any(|other| other.tab == above && other.left.load(Ordering::Acquire) > 0)
            {
                tokio::time::sleep(WAIT).await;
            }
        }
    }

    fn len(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Copies every part of `plan`; gives back the session with the target. The
/// first stream uses `sessions`, whose source transaction holds the snapshot.
pub(super) async fn run(
    run: &Run,
    pair: &Pair,
    plan: Plan<'_>,
    (source, target): (Conn, Conn),
    meter: &Meter<'_>,
) -> Result<Conn, MoveError> {
    let more = run.tuning.streams().min(plan.len()).saturating_sub(1);
    let mut sessions = Vec::new();
    if more > 0 {
        let snapshot: String = source.one("select pg_export_snapshot()", &[]).await?.get(0);
        for _ in 0..more {
            let source = run.connect(Side::Source).await?;
            source
                .batch(&format!(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'"
                ))
                .await?;
            sessions.push((source, run.connect(Side::Target).await?));
        }
    }
    let plan = &plan;
    let first = stream(run, pair, plan, (&source, &target), meter);
    let others =
        sessions.iter().map(|(source, target)| stream(run, pair, plan, (source, target), meter));
    tokio::try_join!(first, try_join_all(others))?;
    source.batch("COMMIT").await?;
    Ok(target)
}

async fn stream(
    run: &Run,
    pair: &Pair,
    plan: &Plan<'_>,
    sessions: (&Conn, &Conn),
    meter: &Meter<'_>,
) -> Result<(), MoveError> {
    while let Some((task, part)) = plan.next() {
        meter.table(&task.table.name);
        plan.parents_are_there(task).await;
        copy_part(run, sessions, task, &part, meter).await?;
        run.fail.point("between_parts")?;
        if pair.source.client().is_closed() || pair.target.client().is_closed() {
            return Err(MoveError::Interrupted("the session with the mover's lock ended".into()));
        }
        if task.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            close(run, sessions.1, task.tab).await?;
        }
    }
    Ok(())
}
