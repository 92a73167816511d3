//! When moves would begin and end, if each takes as long as it is thought to.
//! Pure.
//!
//! The driver takes moves in their order: each begins as soon as its windows
//! are open and no limit is in its way, and one that must wait keeps none of
//! those behind it. That is played through here, from event to event, so what
//! a person is shown beforehand is what the driver will do.

use std::collections::HashMap;
use std::ops::Range;

use jiff::{SignedDuration, Timestamp};
use webhost_proto::ids::{NodeId, TenantId};

use super::limits::{Busy, Limits};
use super::window::{Window, all_open, is_open};

/// Beyond that nothing is foretold.
const HORIZON: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Windows are the same each week.
const WEEK_MIN: i64 = 7 * 24 * 60;

/// How fast moves are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Of a copy; at least 1.
    pub bytes_per_second: u64,
    /// What a move takes beside its copy, from its first step to its switch.
    pub beside_s: u64,
}

impl Pace {
    /// How long a move of so many bytes takes, in whole seconds.
    pub fn of(&self, bytes: u64) -> SignedDuration {
        let seconds = bytes.div_ceil(self.bytes_per_second.max(1)).saturating_add(self.beside_s);
        SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)).min(HORIZON)
    }
}

/// When moves may begin: the windows of tenants and nodes. Who has none is not
/// in it.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    /// By tenant.
    pub tenants: HashMap<TenantId, Vec<Window>>,
    /// By node.
    pub nodes: HashMap<NodeId, Vec<Window>>,
}

/// A move that has yet to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Whom it moves.
    pub tenant: TenantId,
    /// From where.
    pub source: NodeId,
    /// To where; none where that is chosen when it begins.
    pub target: Option<NodeId>,
    /// How long it takes.
    pub takes: SignedDuration,
    /// It keeps to no windows: a person lets it begin.
    pub at_any_time: bool,
    /// What keeps it until then ends by itself.
    pub not_before: Option<Timestamp>,
}

impl Job {
    /// `at`, or when it may begin at all, whichever is later.
    fn earliest(&self, at: Timestamp) -> Timestamp {
        self.not_before.map_or(at, |from| from.max(at))
    }
}

/// A move that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// What it loads.
    pub busy: Busy,
    /// When it is thought to have switched.
    pub ends: Timestamp,
}

/// What was found of a [`Job`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When its windows are all open next; none where that is never.
    pub window: Option<Timestamp>,
    /// When it begins; none where that is never.
    pub begins: Option<Timestamp>,
    /// When the tenant lives on the target.
    pub ends: Option<Timestamp>,
}

impl Times {
    /// Whether the tenant is still there at `by`.
    pub fn is_late(&self, by: Timestamp) -> bool {
        self.ends.is_none_or(|ends| ends > by)
    }
}

impl Calendar {
    fn lists(&self, job: &Job) -> [&[Window]; 3] {
        if job.at_any_time {
            return [&[], &[], &[]];
        }
        let node = |id| self.nodes.get(id).map(Vec::as_slice).unwrap_or_default();
        let target = job.target.as_ref().map(node).unwrap_or_default();
        let tenant = self.tenants.get(&job.tenant).map(Vec::as_slice).unwrap_or_default();
        [tenant, node(&job.source), target]
    }

    fn is_open(&self, job: &Job, at: Timestamp) -> bool {
        job.earliest(at) == at && self.lists(job).iter().all(|windows| is_open(windows, at))
    }

    /// When `job` may begin, from `at` on; none where that is never.
    fn opens(&self, job: &Job, at: Timestamp) -> Option<Timestamp> {
        all_open(&self.lists(job), job.earliest(at))
    }

    /// The last minute at which `job` may begin to end by `by`, looking back a
    /// week at most; `by` less its time where nothing closes.
    fn latest_begin(&self, job: &Job, by: Timestamp) -> Option<Timestamp> {
        let last = by.checked_sub(job.takes).ok()?;
        let minute = |back: i64| last.checked_sub(SignedDuration::from_mins(back)).ok();
        (0..WEEK_MIN).filter_map(minute).find(|at| self.is_open(job, *at))
    }
}

/// What moves that have yet to begin have to keep to.
#[derive(Clone, Debug, Default)]
pub struct Timetable {
    /// When they may begin.
    pub calendar: Calendar,
    /// What is under way.
    pub running: Vec<Running>,
    /// How many may be.
    pub limits: Limits,
}

impl Timetable {
    /// When each of `jobs` begins and ends from `now` on, if they come in
    /// `order` (positions in `jobs`, each once).
    pub fn schedule(&self, jobs: &[Job], order: &[usize], now: Timestamp) -> Vec<Times> {
        let calendar = &self.calendar;
        let mut times: Vec<Times> = jobs
            .iter()
            .map(|job| Times { window: calendar.opens(job, now), ..Times::default() })
            .collect();
        let mut load = Load::new(self.limits);
        for one in &self.running {
            load.add(one.busy.source, one.busy.target, one.ends);
        }
        let mut queue: Vec<Waiting<'_>> = order
            .iter()
            .filter_map(|&at| {
                let (job, opens) = (&jobs[at], times[at].window?);
                let (source, target) =
                    (load.index(job.source), job.target.map(|to| load.index(to)));
                Some(Waiting { at, job, opens, source, target })
            })
            .collect();
        let horizon = now.saturating_add(HORIZON).unwrap_or(Timestamp::MAX);
        let mut at = now;
        while !queue.is_empty() && at < horizon {
            load.end_by(at);
            let mut next: Option<Timestamp> = None;
            let mut seen = 0;
            let mut begun = Vec::new();
            for one in &mut queue {
                // Nobody else can begin, whatever opens meanwhile.
                if load.is_full() {
                    break;
                }
                seen += 1;
                if !load.takes(one) {
                    continue;
                }
                if one.opens <= at && !calendar.is_open(one.job, at) {
                    one.opens = calendar.opens(one.job, at).unwrap_or(Timestamp::MAX);
                }
                if one.opens > at {
                    next = Some(next.map_or(one.opens, |next| next.min(one.opens)));
                    continue;
                }
                let ends = at.saturating_add(one.job.takes).unwrap_or(Timestamp::MAX);
                times[one.at].begins = Some(at);
                times[one.at].ends = Some(ends);
                load.begin(one.source, one.target, ends);
                begun.push(seen - 1);
            }
            for position in begun.into_iter().rev() {
                queue.remove(position);
            }
            // A move of no length ends at once; time goes on all the same.
            let Some(next) = next.into_iter().chain(load.next_end()).min() else { break };
            at = next
                .max(at.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX));
        }
        times
    }
}

/// A move of the queue, while it waits.
struct Waiting<'a> {
    /// Its position among the jobs.
    at: usize,
    job: &'a Job,
    /// Before that it may not begin.
    opens: Timestamp,
    /// Its nodes, as [`Load`] counts them.
    source: usize,
    target: Option<usize>,
}

/// What is under way at some time, counted by node. A queue of thousands is gone
/// through for each move that ends, so nodes are small numbers here.
struct Load {
    limits: Limits,
    nodes: HashMap<NodeId, usize>,
    /// By node: how many moves go from it, and how many to it.
    counts: Vec<(u32, u32)>,
    /// From where, to where, until when.
    running: Vec<(usize, Option<usize>, Timestamp)>,
}

impl Load {
    fn new(limits: Limits) -> Self {
        Self { limits, nodes: HashMap::new(), counts: Vec::new(), running: Vec::new() }
    }

    fn index(&mut self, node: NodeId) -> usize {
        let index = *self.nodes.entry(node).or_insert(self.counts.len());
        if index == self.counts.len() {
            self.counts.push((0, 0));
        }
        index
    }

    fn add(&mut self, source: NodeId, target: Option<NodeId>, ends: Timestamp) {
        let (source, target) = (self.index(source), target.map(|to| self.index(to)));
        self.begin(source, target, ends);
    }

    fn begin(&mut self, source: usize, target: Option<usize>, ends: Timestamp) {
        self.counts[source].0 += 1;
        if let Some(target) = target {
            self.counts[target].1 += 1;
        }
        self.running.push((source, target, ends));
    }

    /// What ends by `at` loads nobody any more.
    fn end_by(&mut self, at: Timestamp) {
        let counts = &mut self.counts;
        self.running.retain(|&(source, target, ends)| {
            if ends <= at {
                counts[source].0 -= 1;
                if let Some(target) = target {
                    counts[target].1 -= 1;
                }
            }
            ends > at
        });
    }

    fn next_end(&self) -> Option<Timestamp> {
        self.running.iter().map(|(_, _, ends)| *ends).min()
    }

    fn is_full(&self) -> bool {
        u32::try_from(self.running.len()).is_ok_and(|running| running >= self.limits.in_fleet)
    }

    fn takes(&self, one: &Waiting<'_>) -> bool {
        self.counts[one.source].0 < self.limits.per_source
            && one.target.is_none_or(|to| self.counts[to].1 < self.limits.per_target)
    }
}

/// The order of `jobs` in which the fewest of `mine` end after `by`, of several
/// that are tried: as they are, by the last moment at which each can end in time,
/// and the longest first. The others keep their places; without `by` all do.
/// Answers it with its times.
pub fn ordered(
    jobs: &[Job],
    mine: Range<usize>,
    timetable: &Timetable,
    by: Option<Timestamp>,
    now: Timestamp,
) -> (Vec<usize>, Vec<Times>) {
    let as_they_are: Vec<usize> = (0..jobs.len()).collect();
    let found = timetable.schedule(jobs, &as_they_are, now);
    let Some(by) = by else { return (as_they_are, found) };
    let longest = |at: &usize| std::cmp::Reverse(jobs[*at].takes);
    let mut urgent = as_they_are.clone();
    urgent[mine.clone()].sort_by_cached_key(|at| {
        // What can't be done in time any more keeps nobody who can.
        let last = timetable.calendar.latest_begin(&jobs[*at], by).filter(|last| *last >= now);
        let end = last.and_then(|last| last.checked_add(jobs[*at].takes).ok());
        (end.unwrap_or(Timestamp::MAX), longest(at), *at)
    });
    let mut long = as_they_are.clone();
    long[mine.clone()].sort_by_key(|at| (longest(at), *at));
    let cost = |times: &[Times]| {
        let times = &times[mine.clone()];
        let late = times.iter().filter(|one| one.is_late(by)).count();
        let end = times.iter().map(|one| one.ends.unwrap_or(Timestamp::MAX)).max();
        (late, end)
    };
    let mut best = (cost(&found), as_they_are, found);
    for order in [urgent, long] {
        let found = timetable.schedule(jobs, &order, now);
        let cost = cost(&found);
        if cost < best.0 {
            best = (cost, order, found);
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests;
