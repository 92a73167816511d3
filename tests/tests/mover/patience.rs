//! Nobody queues behind a move's DDL: a lock that is not to be had is given up
//! at once and asked for again, so that others come by in between.

use std::collections::BTreeSet;
use std::time::Duration;

use webhost_agent::mover::error::Side;
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::Step;
use webhost_tests::schema;
use webhost_tests::writers::{World, session};

use crate::indexes::alone;
use crate::scene::{a_move, steps, world};

/// How often one lock is given up before whoever holds it lets go.
const GIVEN_UP: usize = 3;

/// Somebody writes `table` in a transaction that stays open; `step` wants to
/// change the table's triggers or indexes, gives up, and tries again; others
/// write meanwhile; then the first one ends, and so does the step.
async fn gives_way(run: &Run, world: &World, step: Step, side: Side, table: &str) {
    let config = if side == Side::Source { &world.source } else { &world.target };
    let (holder, _holds) = session(config).await.expect("a session");
    let (watcher, _watches) = session(config).await.expect("a session");
    holder
        .batch_execute(&format!("begin; lock table {table} in row exclusive mode"))
        .await
        .expect("locks");
    let watch = async {
        // Each try is a transaction of its own: its beginning tells them apart.
        let mut tries = BTreeSet::new();
        while tries.len() < GIVEN_UP {
            let rows = watcher
                .query(
                    "select a.xact_start::text, a.query from pg_stat_activity a \
                     join pg_locks l using (pid) \
                     where not l.granted and l.relation = $1::text::regclass \
                     and a.application_name like 'webhost-mover%'",
                    &[&table],
                )
                .await
                .expect("looks");
            for row in &rows {
                let query: String = row.get(1);
                // The locks are read after the statements: given up in between.
                if query.eq_ignore_ascii_case("rollback") {
                    continue;
                }
                assert!(query.contains("SET LOCAL lock_timeout = '100ms'"), "{query}");
                tries.insert(row.get::<_, String>(0));
            }
            // In the queue behind the step's request, until that is given up.
            watcher
                .batch_execute(&format!(
                    "begin; set local lock_timeout = '60s'; \
                     lock table {table} in row exclusive mode; rollback"
                ))
                .await
                .expect("comes by");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        holder.batch_execute("commit").await.expect("lets go");
    };
    let (done, ()) = tokio::join!(run.step(step), watch);
    done.unwrap_or_else(|error| panic!("{step} on the {side}: {error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_gives_way_to_those_who_write() {
    let world = world(schema::WEBHOST, 300).await;
    let mut run = a_move(&world);
    let (source, target) = (Side::Source, Side::Target);
    for side in [source, target] {
        gives_way(&run, &world, Step::Guard, side, "public.gps_positions").await;
        gives_way(&run, &world, Step::Undo, side, "public.vehicles").await;
    }
    // The way back's guards, what a finished move takes off, and what is left.
    run.spec.way_back_until_us = jiff::Timestamp::now().as_microsecond() + 600_000_000;
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain, Step::CutOver]).await;
    gives_way(&run, &world, Step::RollBack, source, "public.gps_positions").await;
    gives_way(&run, &world, Step::Finish, source, "public.gps_positions").await;
    run.here = target;
    gives_way(&run, &world, Step::CleanUp, target, "public.gps_positions").await;
}

/// Indexes that were put aside come back under the same rule.
#[tokio::test(flavor = "multi_thread")]
async fn indexes_come_back_without_a_queue() {
    let (world, mut run) = alone(schema::WEBHOST, 2_000).await;
    steps(&run, &[Step::Guard]).await;
    run.fail = Fail::stop_at("after_set_aside");
    run.step(Step::Copy).await.expect_err("stops");
    gives_way(&run, &world, Step::Copy, Side::Target, "public.gps_positions").await;
    steps(&run, &[Step::Undo]).await;
}
