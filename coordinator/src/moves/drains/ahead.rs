//! What lies ahead of new moves, read from the state database: what is under
//! way, who waits, when windows open, and how fast moves have been.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use webhost_proto::ids::{NodeId, TenantId};

use crate::fleet::plan;
use crate::moves::Rules;
use crate::moves::limits::Busy;
use crate::moves::progress::seconds_left;
use crate::moves::schedule::{Job, Pace, Running, Times, Timetable};
use crate::moves::state::{State, Step};
use crate::moves::timing::later;
use crate::slots::Slots;
use crate::store::StoreError;
use crate::store::moves::{self, Move};
use crate::store::windows;

/// The pace is that of so many moves.
const MOVES: i64 = 50;
/// Of fewer bytes than that a copy says nothing about its speed.
const SAMPLE_BYTES: u64 = 1 << 20;
/// Before a copy was ever seen: of an unlimited one, about a tenth of what the
/// benchmark of moves finds, since others use the disks as well.
const UNSEEN_BYTES_PER_SECOND: u64 = 4 << 20;
/// Bytes of a row where the speed is limited in rows: a position without much
/// metadata.
const ROW_BYTES: u64 = 128;
/// What a move takes beside its copy, before one was ever seen.
const UNSEEN_BESIDE_S: u64 = 60;

/// What lies ahead.
#[derive(Clone, Debug)]
pub struct Ahead {
    /// Windows, limits, and what is under way.
    pub timetable: Timetable,
    /// Who waits for their turn, in their order.
    pub waiting: Vec<Move>,
    /// How fast moves are.
    pub pace: Pace,
    /// Who is under way, and when that is thought to end.
    pub under_way: Vec<(TenantId, Timestamp)>,
}

/// How fast moves to shared nodes are: what the newest of them took, or, where
/// none is known, what the configuration lets them reach.
pub fn pace(copied: &[Move], rules: &Rules) -> Pace {
    let number = |row: &Move, name: &str| row.result["copy"][name].as_u64().unwrap_or_default();
    let sum =
        |name: &str| copied.iter().fold(0_u64, |sum, row| sum.saturating_add(number(row, name)));
    let (bytes, us) = (sum("bytes"), sum("duration_us"));
    let bytes_per_second = if bytes >= SAMPLE_BYTES && us > 0 {
        u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(us)).unwrap_or(u64::MAX)
    } else {
        match rules.rate("multi_tenant") {
            0 => UNSEEN_BYTES_PER_SECOND,
            rows => rows.saturating_mul(ROW_BYTES).min(UNSEEN_BYTES_PER_SECOND),
        }
    };
    // Those that never switched say nothing of what a switch takes.
    let switched: Vec<u64> = copied.iter().filter_map(beside_ms).collect();
    let beside_s = match u64::try_from(switched.len()) {
        Ok(count @ 1..) => (switched.iter().sum::<u64>() / count).div_ceil(1000),
        _ => UNSEEN_BESIDE_S,
    };
    Pace { bytes_per_second: bytes_per_second.max(1), beside_s }
}

/// What a move that has switched took for its steps up to then, less its copy.
fn beside_ms(row: &Move) -> Option<u64> {
    row.durable.new_epoch?;
    let before_switch = |state: State| matches!(state, State::Step(step) if step <= Step::CutOver && step != Step::Copy);
    let passed = row.durable.passed.iter().filter(|passed| before_switch(passed.state));
    let ms = passed.map(|one| one.ended.as_millisecond() - one.began.as_millisecond());
    Some(ms.sum::<i64>().max(0).unsigned_abs())
}

impl Ahead {
    /// Reads it as of `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(
        client: &impl GenericClient,
        slots: &Slots,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let pace = pace(&moves::copied(client, MOVES).await?, rules);
        let busy: Vec<State> = State::all().filter(|state| state.is_busy()).collect();
        let (mut running, mut under_way) = (Vec::new(), Vec::new());
        for row in moves::open_in(client, &busy).await? {
            if row.durable.wanted.dry_run {
                continue;
            }
            let began = row.durable.began_at.unwrap_or(row.updated_at);
            let whole = pace.of(bytes(slots, row.tenant, now));
            let thought = began.saturating_add(whole).unwrap_or(Timestamp::MAX);
            // Its own figure is better than a thought, and nothing is over at once.
            let left = std::time::Duration::from_secs(1 + seconds_left(&row).unwrap_or(0));
            let ends = if seconds_left(&row).is_some() {
                later(now, left)
            } else {
                thought.max(later(now, left))
            };
            running.push(Running { busy: Busy { source: row.source, target: row.target }, ends });
            under_way.push((row.tenant, ends));
        }
        let calendar = windows::all(client).await?;
        let timetable = Timetable { calendar, running, limits: rules.limits };
        let waiting = moves::queue(client).await?;
        Ok(Self { timetable, waiting, pace, under_way })
    }

    /// A move that waits already.
    pub fn job_of(&self, row: &Move, slots: &Slots, now: Timestamp) -> Job {
        Job {
            tenant: row.tenant,
            source: row.source,
            target: row.target.or(row.durable.wanted.node),
            takes: self.pace.of(bytes(slots, row.tenant, now)),
            at_any_time: row.durable.outside_window.is_some(),
            not_before: None,
        }
    }

    /// A move of a plan.
    pub fn job(&self, step: &plan::Move) -> Job {
        Job {
            tenant: step.tenant,
            source: step.from,
            target: Some(step.to),
            takes: self.pace.of(u64::from(step.disk) << 20),
            at_any_time: false,
            not_before: None,
        }
    }

    /// A move that can't be asked for before something has ended by itself.
    pub fn job_after(
        &self,
        tenant: TenantId,
        source: NodeId,
        not_before: Timestamp,
        bytes: u64,
    ) -> Job {
        Job {
            tenant,
            source,
            target: None,
            takes: self.pace.of(bytes),
            at_any_time: false,
            not_before: Some(not_before),
        }
    }

    /// When moves of a plan would begin and end, after those that wait already.
    pub fn times(&self, steps: &[plan::Move], slots: &Slots, now: Timestamp) -> Vec<Times> {
        let mut jobs: Vec<Job> =
            self.waiting.iter().map(|row| self.job_of(row, slots, now)).collect();
        jobs.extend(steps.iter().map(|step| self.job(step)));
        let order: Vec<usize> = (0..jobs.len()).collect();
        self.timetable.schedule(&jobs, &order, now).split_off(self.waiting.len())
    }
}

/// What is copied of a tenant, in bytes.
pub fn bytes(slots: &Slots, tenant: TenantId, now: Timestamp) -> u64 {
    u64::from(slots.need(tenant, now.as_microsecond()).disk) << 20
}
