//! Background jobs of the databases: retention, compression and the like must
//! not run beside a move, and must surely run again afterwards.
//!
//! What is paused is written down beside the move's own row, in the same
//! transaction that pauses it; whatever ends the move (finish, undo, abandon,
//! clean up) resumes it before that row goes. A job that a person had switched
//! off stays off; one that two moves need quiet stays quiet until the second
//! is over.

use serde::{Deserialize, Serialize};

use super::connect::Conn;
use super::error::MoveError;
use super::hypertable;
use super::report::{Preflight, Topic};
use super::run::Pair;
use super::spec::Spec;
use super::sql::{self, Lock, SCHEMA};

/// Which scheduler a job is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scheduler {
    Cron,
    Timescale,
}

impl Scheduler {
    const ALL: [Self; 2] = [Self::Cron, Self::Timescale];

    /// The table that lists its jobs.
    fn list(self) -> &'static str {
        match self {
            Self::Cron => "cron.job",
            Self::Timescale => "timescaledb_information.jobs",
        }
    }

    /// Id and description of the jobs that are on. Of pg_cron's those of this
    /// database; of TimescaleDB's those that change a hypertable, and those of
    /// the application's own procedures, which may.
    fn active(self) -> &'static str {
        match self {
            Self::Cron => {
                "select jobid::int8, command::text from cron.job \
                 where active and database = current_database() order by 1"
            }
            Self::Timescale => {
                "select job_id::int8, proc_name::text || coalesce(' of ' || hypertable_name::text, '') \
                 from timescaledb_information.jobs where scheduled and (hypertable_name is not null \
                   or proc_name in ('policy_retention', 'policy_compression', 'policy_reorder') \
                   or proc_schema not like '\\_timescaledb%') order by 1"
            }
        }
    }

    /// The statement that switches a job on or off.
    async fn set(self, conn: &Conn, job: i64, on: bool) -> Result<String, MoveError> {
        Ok(match self {
            Self::Cron => format!("SELECT cron.alter_job({job}, active := {on}); "),
            Self::Timescale => {
                let functions = hypertable::read::functions(conn).await?;
                format!("SELECT {functions}.alter_job({job}, scheduled => {on}); ")
            }
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Cron => "pg_cron",
            Self::Timescale => "TimescaleDB",
        }
    }
}

/// A job that a move has switched off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Paused {
    scheduler: Scheduler,
    job: i64,
    what: String,
}

async fn exists(conn: &Conn, relation: &str) -> Result<bool, MoveError> {
    let sql = format!("select to_regclass({}) is not null", sql::literal(relation));
    Ok(conn.one(&sql, &[]).await?.get(0))
}

/// The jobs that are on.
async fn active(conn: &Conn) -> Result<Vec<Paused>, MoveError> {
    let mut jobs = Vec::new();
    for scheduler in Scheduler::ALL {
        if exists(conn, scheduler.list()).await? {
            for row in conn.query(scheduler.active(), &[]).await? {
                jobs.push(Paused { scheduler, job: row.get(0), what: row.get(1) });
            }
        }
    }
    Ok(jobs)
}

/// Lists the jobs that the move will pause.
pub(super) async fn tell(pair: &Pair, report: &mut Preflight) -> Result<(), MoveError> {
    for conn in [&pair.source, &pair.target] {
        for job in active(conn).await? {
            report.fact(
                Topic::Jobs,
                format!(
                    "job {} of {} on the {} ({}) is paused from the guard step to the end of the move",
                    job.job,
                    job.scheduler.as_str(),
                    conn.side(),
                    job.what
                ),
            );
        }
    }
    Ok(())
}

/// What the moves of this database have paused, with their ids.
async fn paused(conn: &Conn) -> Result<Vec<(uuid::Uuid, Vec<Paused>)>, MoveError> {
    if !exists(conn, &format!("{SCHEMA}.moves")).await? {
        return Ok(Vec::new());
    }
    let known: bool = conn
        .one(
            &format!(
                "select exists (select 1 from pg_attribute where attrelid = '{SCHEMA}.moves'::regclass \
                 and attname = 'paused_jobs' and not attisdropped)"
            ),
            &[],
        )
        .await?
        .get(0);
    if !known {
        return Ok(Vec::new());
    }
    let rows = conn.query(&format!("select move_id, paused_jobs from {SCHEMA}.moves"), &[]).await?;
    rows.iter()
        .map(|row| {
            serde_json::from_str(row.get(1)).map(|jobs| (row.get(0), jobs)).map_err(|error| {
                MoveError::refused(format!("{SCHEMA}.moves.paused_jobs can't be read: {error}"))
            })
        })
        .collect()
}

/// Pauses what is on, for a move whose row is there. Idempotent.
///
/// # Errors
/// What the database said: without the right to alter a job, nothing is
/// paused, and the job is named.
pub(super) async fn pause(conn: &Conn, spec: &Spec) -> Result<(), MoveError> {
    one_at_a_time(conn, async {
        let on = active(conn).await?;
        let all = paused(conn).await?;
        // Jobs that another move paused are ours to keep quiet as well.
        let mut ours: Vec<Paused> = on.clone();
        for (_, jobs) in &all {
            ours.extend(jobs.iter().filter(|job| !on.contains(job)).cloned());
        }
        ours.dedup_by(|a, b| a.job == b.job && a.scheduler == b.scheduler);
        if ours.is_empty() {
            return Ok(());
        }
        let json = serde_json::to_string(&ours)
            .map_err(|error| MoveError::Interrupted(format!("the list of jobs: {error}")))?;
        let mut switch = String::new();
        for job in &on {
            switch.push_str(&job.scheduler.set(conn, job.job, false).await?);
        }
        let text = format!(
            "SET LOCAL lock_timeout = '1s'; \
             UPDATE {SCHEMA}.moves SET paused_jobs = {} WHERE move_id = {}; {switch}",
            sql::literal(&json),
            sql::move_literal(spec.move_id)
        );
        conn.batch(&text).await.map_err(|error| {
            let names: Vec<String> =
                on.iter().map(|job| format!("{} {}", job.scheduler.as_str(), job.job)).collect();
            MoveError::refused(format!(
                "the jobs {} on the {} can't be paused ({error}): let their owner switch them off for the move",
                names.join(", "),
                conn.side()
            ))
        })
    })
    .await
}

/// Runs `work` in a transaction, while no other move of this database pauses or
/// resumes jobs: two that ended together would each leave them to the other.
async fn one_at_a_time(
    conn: &Conn,
    work: impl Future<Output = Result<(), MoveError>>,
) -> Result<(), MoveError> {
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on; \
         SELECT pg_advisory_xact_lock({})",
        Lock::Schema.key()
    );
    let outcome = async {
        conn.batch(&begin).await?;
        work.await
    }
    .await;
    match outcome {
        Ok(()) => conn.batch("COMMIT").await,
        Err(error) => {
            conn.batch("ROLLBACK").await?;
            Err(error)
        }
    }
}

/// Switches on again what the move paused and no other move needs quiet.
/// Idempotent; a job that was removed meanwhile is let go.
///
/// # Errors
/// What the database said.
pub(super) async fn resume(conn: &Conn, spec: &Spec) -> Result<(), MoveError> {
    one_at_a_time(conn, resumed(conn, spec)).await
}

async fn resumed(conn: &Conn, spec: &Spec) -> Result<(), MoveError> {
    let all = paused(conn).await?;
    let Some((_, ours)) = all.iter().find(|(id, _)| *id == spec.move_id.0) else { return Ok(()) };
    let mut switch = String::new();
    for job in ours {
        let needed = all.iter().any(|(id, jobs)| {
            *id != spec.move_id.0
                && jobs.iter().any(|j| j.job == job.job && j.scheduler == job.scheduler)
        });
        if needed || !exists(conn, job.scheduler.list()).await? {
            continue;
        }
        let column = match job.scheduler {
            Scheduler::Cron => "jobid",
            Scheduler::Timescale => "job_id",
        };
        let there: bool = conn
            .one(
                &format!(
                    "select exists (select 1 from {} where {column} = {})",
                    job.scheduler.list(),
                    job.job
                ),
                &[],
            )
            .await?
            .get(0);
        if there {
            switch.push_str(&job.scheduler.set(conn, job.job, true).await?);
        }
    }
    if ours.is_empty() {
        return Ok(());
    }
    conn.batch(&format!(
        "{switch} UPDATE {SCHEMA}.moves SET paused_jobs = '[]' WHERE move_id = {}",
        sql::move_literal(spec.move_id)
    ))
    .await
}
