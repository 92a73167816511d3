//! One step of one move: sessions opened, standing read, work done.

mod dispatch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::catalog::{self, Catalog, Rules, Table};
use super::connect::{Conn, Endpoint};
use super::error::{Kind, MoveError, Side};
use super::fail::Fail;
use super::fence;
use super::leg::Leg;
use super::pressure;
use super::recover::{self, Standing};
use super::requests::Requests;
use super::set_aside;
use super::spec::{Done, Preflight, Progress, Spec, Step};
use super::sql::{self, Lock, SCHEMA};
use super::{abandon, clean_up, finish, guard, preflight, way_back};

/// What may be set differently in tests.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Pages of a table that one part of the copy covers.
    pub copy_part_pages: u32,
    /// Streams of a copy; none is as many as help on this machine.
    pub copy_streams: Option<usize>,
    /// From this many rows on, a table's indexes are put aside where they may.
    pub set_aside_rows: u64,
    /// When copy and drain back off.
    pub pressure: pressure::Limits,
    /// Rows of the log that one drain takes.
    pub drain_batch: i64,
    /// Rows of the log that one drain in bulk takes; none where a test wants
    /// small ones only.
    pub drain_bulk: Option<i64>,
    /// How long a drain goes on while writers keep up with it.
    pub drain_patience: Duration,
    /// How often the fence is tried.
    pub fence_attempts: u32,
    /// The last leg that a cut-over may do: a move goes there, and perhaps
    /// back. Tests and benchmarks go there and back for long.
    pub last_leg: u64,
    /// Between two rounds of a way back whose log is short.
    pub way_back_pause: Duration,
    /// Between two exact comparisons of a way back.
    pub way_back_verify: Duration,
    /// How long after an activation nobody doubts that it was committed.
    pub settle_after: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            copy_part_pages: 16_384,
            copy_streams: None,
            set_aside_rows: 20_000,
            pressure: pressure::Limits::default(),
            drain_batch: 2_000,
            drain_bulk: Some(20_000),
            drain_patience: Duration::from_secs(60),
            fence_attempts: 40,
            last_leg: 1,
            way_back_pause: Duration::from_secs(1),
            way_back_verify: Duration::from_secs(3600),
            settle_after: Duration::from_secs(60),
        }
    }
}

/// Between two tries of a way back whose databases can't be reached.
const WAY_BACK_AGAIN: Duration = Duration::from_secs(2);

impl Tuning {
    /// How many streams a copy has: each keeps a core of either database busy,
    /// and on two cores a second one gains nothing.
    pub fn streams(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.copy_streams.unwrap_or(cores / 2).clamp(1, 4)
    }
}

/// What an operator is told about a schema that changed after the switch.
const CLOSED: &str = "that closes the way back: finish the move";

/// All that a step needs.
pub struct Run {
    pub spec: Spec,
    pub rules: Rules,
    pub source: Endpoint,
    pub target: Endpoint,
    /// The side beside this process: what needs one database works there.
    pub here: Side,
    /// The other side's database can't be reached from here.
    pub alone: bool,
    pub tuning: Tuning,
    /// Where archives of downgrades are kept.
    pub archives: std::path::PathBuf,
    pub fail: Fail,
    /// Whoever carries the tenant's requests.
    pub requests: Arc<dyn Requests>,
    /// The latest progress; a slow reader misses some.
    pub progress: watch::Sender<Progress>,
}

/// The two sessions that do the work. Each holds its side's mover lock, so
/// that what an older mover still has in flight is over before we start.
pub struct Pair {
    pub source: Conn,
    pub target: Conn,
}

impl Pair {
    /// The session with one side.
    pub fn side(&self, side: Side) -> &Conn {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }
}

impl Run {
    /// Carries one step out.
    ///
    /// # Errors
    /// [`MoveError`]; its kind says what may be done next.
    pub async fn step(&self, step: Step) -> Result<Done, MoveError> {
        self.fail.before(step)?;
        let done = self.carried_out(step).await?;
        self.fail.after(step)?;
        Ok(done)
    }

    async fn carried_out(&self, step: Step) -> Result<Done, MoveError> {
        if step == Step::Preflight {
            return self.preflight().await.map(Done::Preflight);
        }
        match step {
            Step::CleanUp => return clean_up::run(self).await.map(Done::CleanUp),
            Step::Abandon => return abandon::run(self).await.map(|()| Done::Abandon),
            Step::Finish if self.spec.old_copy_gone => {
                return finish::alone(self).await.map(|()| Done::Finish);
            }
            Step::Recover if self.alone => return recover::beside(self).await.map(Done::Recover),
            _ if self.alone => {
                return Err(MoveError::Interrupted(format!(
                    "{step} needs both databases, and this side reaches its own alone"
                )));
            }
            _ => {}
        }
        let mut way_back = way_back::State::default();
        let outcome = loop {
            match self.attempt(step, &mut way_back).await {
                Err(error) if step == Step::WayBack && way_back::goes_on(self, &error) => {
                    tracing::warn!(%error, "the old copy is not kept up to date; trying again");
                    tokio::time::sleep(WAY_BACK_AGAIN.min(way_back::remaining(self))).await;
                }
                // Its time ended while a database was out of reach.
                Err(error) if step == Step::WayBack && way_back::is_over(self, &error) => {
                    break Ok(Done::WayBack(way_back.done()));
                }
                other => break other,
            }
        };
        let switches = matches!(step, Step::CutOver | Step::RollBack);
        match outcome {
            // Whether `moved` was committed is not known when a connection
            // broke in the cut-over: new sessions read it off the fence rows.
            Err(error) if switches && error.kind() == Kind::Interrupted => {
                if matches!(error, MoveError::FailPoint(_)) {
                    return Err(error);
                }
                match self.switched_after_all(step).await {
                    Ok(Some(done)) => Ok(done),
                    Ok(None) => Err(error),
                    Err(second) => {
                        tracing::warn!(%second, "the fence rows could not be read yet");
                        Err(error)
                    }
                }
            }
            other => other,
        }
    }

    async fn preflight(&self) -> Result<Preflight, MoveError> {
        let pair = Pair {
            source: self.connect(Side::Source).await?,
            target: self.connect(Side::Target).await?,
        };
        preflight::check(self, &pair).await
    }

    /// A session of this move with one side.
    ///
    /// # Errors
    /// [`MoveError::Unreachable`].
    pub async fn connect(&self, side: Side) -> Result<Conn, MoveError> {
        let endpoint = match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        };
        endpoint.connect(side, &format!("webhost-mover {}", self.spec.move_id)).await
    }

    /// The session with the database beside this process, with the mover's
    /// lock there.
    ///
    /// # Errors
    /// [`MoveError::Unreachable`], [`MoveError::Blocked`].
    pub(super) async fn beside(&self) -> Result<Conn, MoveError> {
        let conn = self.connect(self.here).await?;
        self.claim(&conn, self.here == Side::Target).await?;
        conn.batch(sql::DECOMPRESS).await?;
        Ok(conn)
    }

    async fn open(&self) -> Result<Pair, MoveError> {
        let source = self.connect(Side::Source).await?;
        self.claim(&source, false).await?;
        let target = self.connect(Side::Target).await?;
        // We are the one mover: whoever still holds the target's lock is the
        // leftover of a dead one, perhaps behind a broken tunnel.
        self.claim(&target, true).await?;
        set_aside::back(&self.spec, &target, &|_| ()).await?;
        for conn in [&source, &target] {
            conn.batch(sql::DECOMPRESS).await?;
            conn.batch(sql::BY_KEY).await?;
        }
        Ok(Pair { source, target })
    }

    async fn claim(&self, conn: &Conn, evict: bool) -> Result<(), MoveError> {
        let key = Lock::Mover(self.spec.tenant).key();
        for attempt in 0..50_u32 {
            if conn.one("select pg_try_advisory_lock($1)", &[&key]).await?.get(0) {
                return Ok(());
            }
            if evict && attempt == 2 {
                conn.query(
                    "select pg_terminate_backend(l.pid) from pg_locks l \
                     where l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
                     and l.database = (select oid from pg_database where datname = current_database()) \
                     and (l.classid::int8 << 32) | l.objid::int8 = $1",
                    &[&key],
                )
                .await?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(MoveError::Blocked {
            what: format!("the mover's lock of tenant {} on the {}", self.spec.tenant, conn.side()),
            blockers: "another mover of the same tenant".into(),
        })
    }

    async fn standing(&self, pair: &Pair) -> Result<Standing, MoveError> {
        // The row locks wait for a cut-over that is still being committed, and
        // the commits for the disk: what was read here is durable.
        const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = on";
        pair.source.batch(BEGIN).await?;
        let source = fence::read(&pair.source, self.spec.tenant, true).await;
        pair.source.batch("COMMIT").await?;
        pair.target.batch(BEGIN).await?;
        let target = fence::read(&pair.target, self.spec.tenant, true).await;
        pair.target.batch("COMMIT").await?;
        Ok(recover::standing(self.spec.move_id, self.spec.epoch, source?, target?))
    }

    async fn two_active(&self, pair: &Pair) -> MoveError {
        let epoch = |fence: Result<Option<fence::Fence>, MoveError>| {
            fence.ok().flatten().map_or(0, |fence| fence.epoch.0.cast_signed())
        };
        let error = MoveError::TwoActive {
            tenant: self.spec.tenant.to_string(),
            source_epoch: epoch(fence::read(&pair.source, self.spec.tenant, false).await),
            target_epoch: epoch(fence::read(&pair.target, self.spec.tenant, false).await),
        };
        tracing::error!(%error, "invariant broken");
        error
    }

    /// The tables as both sides have them now.
    ///
    /// # Errors
    /// [`MoveError::Refused`] where they differ, or where one can't move.
    pub async fn discover_both(&self, pair: &Pair) -> Result<Vec<Table>, MoveError> {
        let source = catalog::discover(&pair.source, &self.rules).await?;
        let target = catalog::discover(&pair.target, &self.rules).await?;
        let mut problems = refusals(&source);
        problems.extend(catalog::differences(&source.tables, &target.tables));
        if problems.is_empty() { Ok(source.tables) } else { Err(MoveError::Refused(problems)) }
    }

    /// The tables as they were when the guards went in.
    ///
    /// # Errors
    /// [`MoveError::Refused`] without guards, or when the tables have changed
    /// since: rows of a table without guard would be lost.
    pub async fn guarded_tables(&self, pair: &Pair, leg: Leg) -> Result<Vec<Table>, MoveError> {
        let tables = self.tables(pair).await?;
        let now = self.discover_both(pair).await.map_err(|error| match error {
            MoveError::Refused(mut problems) if leg > Leg::FORTH => {
                problems.push(CLOSED.into());
                MoveError::Refused(problems)
            }
            other => other,
        })?;
        if now != tables {
            let changed: Vec<&str> = now
                .iter()
                .filter(|table| !tables.contains(table))
                .chain(tables.iter().filter(|table| !now.contains(table)))
                .map(|table| table.name.as_str())
                .collect();
            let way_out = if leg == Leg::FORTH { "undo it and start again" } else { CLOSED };
            return Err(MoveError::refused(format!(
                "the schema changed during the move ({}): {way_out}",
                changed.join(", ")
            )));
        }
        guard::check(leg.from(pair), &self.spec, &tables, guard::Kind::Serving).await?;
        let coming = guard::Kind::Coming { alone: false };
        guard::check(leg.to(pair), &self.spec, &tables, coming).await?;
        Ok(tables)
    }

    /// The tables that the guard step wrote down.
    ///
    /// # Errors
    /// [`MoveError::Refused`] without guards.
    pub async fn tables(&self, pair: &Pair) -> Result<Vec<Table>, MoveError> {
        self.remembered(&pair.source).await?.ok_or_else(|| {
            MoveError::refused(format!(
                "move {} has no guards on the source: it was never begun, or is finished and its way back closed",
                self.spec.move_id
            ))
        })
    }

    /// What the guard step wrote down on one side; none when it did not run.
    ///
    /// # Errors
    /// What the database said; a list that can't be read.
    pub async fn remembered(&self, conn: &Conn) -> Result<Option<Vec<Table>>, MoveError> {
        let exists: bool = conn
            .one(&format!("select to_regclass('{SCHEMA}.moves') is not null"), &[])
            .await?
            .get(0);
        if !exists {
            return Ok(None);
        }
        let rows = conn
            .query(
                &format!("select tables from {SCHEMA}.moves where move_id = $1"),
                &[&self.spec.move_id.0],
            )
            .await?;
        rows.first()
            .map(|row| {
                serde_json::from_str(row.get(0)).map_err(|error| {
                    MoveError::refused(format!("{SCHEMA}.moves.tables can't be read: {error}"))
                })
            })
            .transpose()
    }
}

/// What a catalog refuses, in sentences.
pub(super) fn refusals(catalog: &Catalog) -> Vec<String> {
    catalog
        .verdicts
        .iter()
        .filter(|verdict| verdict.verdict == super::spec::VerdictKind::Refuse)
        .map(|verdict| format!("table {} can't move: {}", verdict.table, verdict.reason))
        .collect()
}
