use proptest::prelude::*;
use uuid::Uuid;
use webhost_proto::wire::{Basis, Metric, ReportAck};

use super::super::report::CollectedColumn;
use super::*;

fn report(tenants: &[u128], calls: u64) -> CollectedReport {
    CollectedReport {
        collected_at_us: 1,
        interval_ms: 5_000,
        tenants: tenants.iter().map(|id| (TenantId(Uuid::from_u128(*id)), String::new())).collect(),
        columns: vec![CollectedColumn {
            metric: Metric::ApiCalls,
            basis: Basis::Measured,
            bound: 0,
            values: vec![Some(calls); tenants.len()],
        }],
        ..CollectedReport::default()
    }
}

fn ack(sequence: u64) -> ReportAck {
    ReportAck { epoch: 9, sequence, need_dictionary: false }
}

fn drain(spool: &mut Spool, window: usize) -> Vec<wire::Report> {
    std::iter::from_fn(|| spool.next(window)).collect()
}

fn sequences(reports: &[wire::Report]) -> Vec<u64> {
    reports.iter().map(|report| report.sequence).collect()
}

#[test]
fn what_is_not_acknowledged_comes_again_in_order_and_unchanged() {
    let mut spool = Spool::new(9, 100);
    for calls in 1..=5 {
        spool.push(report(&[1], calls));
    }
    let first = drain(&mut spool, 3);
    assert_eq!(sequences(&first), [1, 2, 3]);
    assert!(first[0].dictionary.is_some() && first[1].dictionary.is_none());
    spool.acknowledge(&ack(1));
    assert_eq!(sequences(&drain(&mut spool, 3)), [4]);

    spool.rewind(false);
    let again = drain(&mut spool, 10);
    assert_eq!(sequences(&again), [2, 3, 4, 5]);
    assert!(again[0].dictionary.is_some(), "a new session holds no dictionary");
    assert_eq!(again[0].columns, first[1].columns);
    spool.acknowledge(&ack(5));
    assert!(spool.is_empty());
}

#[test]
fn the_dictionary_is_told_when_it_changes() {
    let mut spool = Spool::new(9, 100);
    for tenants in [&[1][..], &[1], &[1, 2], &[1, 2], &[2, 1]] {
        spool.push(report(tenants, 1));
    }
    let sent = drain(&mut spool, 10);
    let told: Vec<bool> = sent.iter().map(|report| report.dictionary.is_some()).collect();
    assert_eq!(told, [true, false, true, false, true]);
    let versions: Vec<u32> = sent.iter().map(|report| report.dictionary_version).collect();
    assert_eq!(versions, [1, 1, 2, 2, 3]);
}

#[test]
fn a_coordinator_without_the_dictionary_gets_it_and_everything_again_once() {
    let mut spool = Spool::new(9, 100);
    for calls in 1..=4 {
        spool.push(report(&[1], calls));
    }
    let lacking = ReportAck { epoch: 9, sequence: 0, need_dictionary: true };
    assert_eq!(drain(&mut spool, 3).len(), 3);
    spool.acknowledge(&lacking);
    let again = drain(&mut spool, 3);
    assert_eq!(sequences(&again), [1, 2, 3]);
    assert!(again[0].dictionary.is_some());
    // The answers to the first sending of 2 and 3.
    spool.acknowledge(&lacking);
    spool.acknowledge(&lacking);
    assert!(drain(&mut spool, 3).is_empty(), "nothing is sent a third time");
    for sequence in 1..=3 {
        spool.acknowledge(&ack(sequence));
    }
    assert_eq!(sequences(&drain(&mut spool, 3)), [4]);
}

#[test]
fn acknowledgements_of_another_epoch_forget_nothing() {
    let mut spool = Spool::new(9, 100);
    spool.push(report(&[1], 1));
    drain(&mut spool, 1);
    spool.acknowledge(&ReportAck { epoch: 8, sequence: 10, need_dictionary: false });
    assert_eq!(spool.len(), 1);
}

#[test]
fn what_was_sent_is_never_merged() {
    let mut spool = Spool::new(9, 4);
    for calls in [1, 10] {
        spool.push(report(&[1], calls));
    }
    let sent = drain(&mut spool, 10);
    for calls in [100, 1_000, 10_000, 100_000] {
        spool.push(report(&[1], calls));
    }
    assert_eq!(spool.len(), 4);
    spool.rewind(false);
    let again = drain(&mut spool, 10);
    assert_eq!(again[0].columns, sent[0].columns);
    assert_eq!(again[1].columns, sent[1].columns);
    assert_eq!(sequences(&again), [1, 2, 3, 4]);
    let values: Vec<u64> = again[2..].iter().map(|report| report.columns[0].values[0]).collect();
    assert_eq!(values.iter().sum::<u64>(), 111_100);
}

#[test]
fn what_is_recent_stays_fine_the_longest() {
    let mut spool = Spool::new(9, 8);
    for _ in 0..12 {
        spool.push(report(&[1], 1));
    }
    let intervals: Vec<u32> = spool.entries.iter().map(|entry| entry.interval_ms).collect();
    assert_eq!(intervals.iter().sum::<u32>(), 60_000);
    assert!(intervals.is_sorted_by(|one, two| one >= two), "{intervals:?}");
}

#[test]
fn more_tenants_than_are_wanted_are_cut_off() {
    let mut spool = Spool::new(9, 8);
    spool.set_max_tenants(2);
    spool.push(report(&[1, 2, 3], 1));
    let sent = spool.next(1).expect("a report");
    assert_eq!(sent.dictionary.expect("a dictionary").tenants.len(), 2);
    assert_eq!(sent.columns[0].values.len(), 2);
}

#[test]
fn a_report_that_can_not_fit_the_link_is_made_to() {
    let mut spool = Spool::new(9, 8);
    let ids: Vec<u128> = (0..1_000).collect();
    let mut large = report(&ids, u64::MAX >> 11);
    large.columns = (0..60)
        .map(|bound| CollectedColumn {
            metric: Metric::RequestDurationBucket,
            bound,
            ..large.columns[0].clone()
        })
        .collect();
    spool.push(large);
    let sent = spool.next(1).expect("a report");
    assert!(sent.encoded_len() <= webhost_proto::MAX_MESSAGE_BYTES);
    assert!(!sent.columns.is_empty());
}

proptest! {
    /// Whatever is pushed, sent, lost and acknowledged: the reports that a
    /// coordinator would apply carry every call exactly once.
    #[test]
    fn no_total_is_lost_or_doubled(steps in proptest::collection::vec(0..5_u8, 1..200)) {
        let mut spool = Spool::new(9, 6);
        let (mut pushed, mut applied, mut cursor) = (0_u64, 0_u64, 0_u64);
        let mut in_flight: VecDeque<wire::Report> = VecDeque::new();
        let mut calls = 1;
        let mut step = |spool: &mut Spool, step: u8| match step {
            0 | 1 => {
                spool.push(report(&[u128::from(calls % 3)], calls));
                pushed += calls;
                calls += 1;
            }
            2 => in_flight.extend(spool.next(3)),
            // Arrives, and its acknowledgement comes back or is lost.
            3 | 4 => if let Some(arrived) = in_flight.pop_front() {
                if arrived.sequence > cursor {
                    cursor = arrived.sequence;
                    applied += arrived.columns.iter().flat_map(|c| &c.values).sum::<u64>();
                }
                if step == 3 {
                    spool.acknowledge(&ack(cursor));
                } else {
                    in_flight.clear();
                    spool.rewind(false);
                }
            },
            _ => unreachable!(),
        };
        for number in steps {
            step(&mut spool, number);
        }
        for _ in 0..50 {
            step(&mut spool, 2);
            step(&mut spool, 3);
        }
        prop_assert!(spool.is_empty());
        prop_assert_eq!(applied, pushed);
    }
}
