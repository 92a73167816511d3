//! Whatever happens to the reports: what a coordinator would apply adds up to
//! what was pushed, and its maxima are those that were pushed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};

use super::unread::failing;
use super::*;
use crate::link::merge::is_counter;
use crate::link::merge::tests::any_report;

/// What a coordinator makes of reports: counters by tenant, metric, basis and
/// bound, gauges by tenant and metric, and the host's CPU time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Usage {
    counters: BTreeMap<(TenantId, i32, i32, u64), u64>,
    maxima: BTreeMap<(TenantId, i32), u64>,
    busy_us: u64,
    covered_ms: u64,
}

impl Usage {
    pub(super) fn add(&mut self, report: &CollectedReport) {
        let mut gauges: BTreeMap<(TenantId, i32), u64> = BTreeMap::new();
        for column in &report.columns {
            for ((tenant, _), value) in report.tenants.iter().zip(&column.values) {
                let Some(value) = value else { continue };
                let (metric, basis) = (column.metric as i32, column.basis as i32);
                if is_counter(column.metric) {
                    let key = (*tenant, metric, basis, column.bound);
                    *self.counters.entry(key).or_default() += value;
                } else {
                    *gauges.entry((*tenant, metric)).or_default() += value;
                }
            }
        }
        for (key, value) in gauges {
            let most = self.maxima.entry(key).or_default();
            *most = value.max(*most);
        }
        self.busy_us += report.host.cpu_busy_us;
        self.covered_ms += u64::from(report.interval_ms);
    }
}

/// A coordinator with its cursor and the dictionary of the session.
#[derive(Default)]
pub(super) struct Coordinator {
    pub(super) usage: Usage,
    cursor: (u64, u64),
    names: Vec<(TenantId, String)>,
}

impl Coordinator {
    /// Applies a report once; answers the acknowledgement.
    pub(super) fn take(&mut self, report: wire::Report) -> ReportAck {
        if let Some(dictionary) = &report.dictionary {
            self.names = Dictionary::from_wire(0, dictionary).expect("names").tenants;
        }
        let number = (report.epoch, report.sequence);
        if number > self.cursor {
            self.cursor = number;
            self.usage.add(&crate::link::columns::from_wire(report, self.names.clone()));
        }
        ReportAck { epoch: number.0, sequence: number.1, need_dictionary: false }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Send,
    /// It arrives, and its acknowledgement comes back.
    Arrive,
    /// It arrives, and the session breaks before the acknowledgement comes.
    Break,
    /// The agent is killed and starts again. What only memory holds would be
    /// lost, so it isn't while something lies there.
    Kill,
    /// No older file can be read from now on, or all can be again.
    Read(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Push),
        3 => Just(Step::Send),
        3 => Just(Step::Arrive),
        1 => Just(Step::Break),
        1 => Just(Step::Kill),
        1 => any::<bool>().prop_map(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// The bound is so small that everything is merged again and again.
    #[test]
    fn no_total_is_lost_or_doubled_and_no_maximum_forgotten(
        reports in proptest::collection::vec(any_report(), 1..20),
        steps in proptest::collection::vec(any_step(), 1..200),
        bytes in prop_oneof![Just(70_000_u64), Just(200_000)],
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut epoch, errno) = (9, Arc::new(AtomicI32::new(0)));
        // Segments have at least 16 KiB: padding makes reports large.
        let pad = "x".repeat(4_000);
        let mut spool = Spool::open_with(dir.path(), bytes, epoch, failing(&errno));
        let (mut pushed, mut coordinator) = (Usage::default(), Coordinator::default());
        let mut in_flight: VecDeque<wire::Report> = VecDeque::new();
        let mut next = reports.iter().cycle();
        let mut now_ms = 0;
        spool.rewind(3, false);
        for step in steps {
            now_ms += 1_000;
            if spool.sync(now_ms).is_some() {
                spool.synced(&Ok(()), now_ms);
            }
            match step {
                Step::Push => {
                    let mut report = next.next().expect("endless").clone();
                    pushed.add(&report);
                    report.sources = vec![wire::SourceHealth {
                        message: pad.clone(),
                        ..wire::SourceHealth::default()
                    }];
                    spool.push(report, now_ms);
                }
                Step::Send => in_flight.extend(drain(&mut spool, now_ms)),
                Step::Arrive => if let Some(report) = in_flight.pop_front() {
                    spool.acknowledge(&coordinator.take(report), now_ms);
                },
                Step::Break => {
                    in_flight.pop_front().map(|report| coordinator.take(report));
                    in_flight.clear();
                    spool.rewind(3, false);
                }
                Step::Kill if spool.spilled => {}
                Step::Read(works) => {
                    let fails = rustix::io::Errno::MFILE.raw_os_error();
                    errno.store(if works { 0 } else { fails }, Ordering::SeqCst);
                }
                Step::Kill => {
                    in_flight.clear();
                    drop(spool);
                    epoch += 1;
                    spool = Spool::open_with(dir.path(), bytes, epoch, failing(&errno));
                    spool.rewind(3, false);
                }
            }
        }
        errno.store(0, Ordering::SeqCst);
        now_ms += 120_000;
        spool.rewind(3, false);
        while !spool.is_empty() {
            now_ms += 1_000;
            for report in drain(&mut spool, now_ms) {
                spool.acknowledge(&coordinator.take(report), now_ms);
            }
        }
        prop_assert_eq!(coordinator.usage, pushed);
        prop_assert!(!spool.problem().is_some_and(|problem| problem.contains("damaged")));
    }
}
