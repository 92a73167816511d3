use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;
use webhost_proto::ids::TenantId;
use webhost_proto::wire::{Basis, Metric, ReportAck};

use super::super::report::CollectedColumn;
use super::*;

mod disk;
mod faults;
mod totals;
mod unread;

/// A report in which each of `tenants` made so many calls.
fn report(tenants: &[u128], calls: u64) -> CollectedReport {
    let column = |metric, value| CollectedColumn {
        metric,
        basis: Basis::Measured,
        bound: 0,
        values: vec![Some(value); tenants.len()],
    };
    CollectedReport {
        collected_at_us: 1,
        interval_ms: 5_000,
        tenants: tenants.iter().map(|id| (TenantId(Uuid::from_u128(*id)), String::new())).collect(),
        columns: vec![column(Metric::ApiCalls, calls)],
        ..CollectedReport::default()
    }
}

fn ack(sequence: u64) -> ReportAck {
    ReportAck { epoch: 9, sequence, need_dictionary: false }
}

/// A spool in memory with a session that takes `window` reports.
fn spool(window: usize) -> Spool {
    let mut spool = Spool::new(9);
    spool.rewind(window, false);
    spool
}

/// All that goes out at this moment. What is synced is said to be, so that no
/// test waits for a disk; only the tests of syncs have it done.
fn drain(spool: &mut Spool, now_ms: u64) -> Vec<wire::Report> {
    let mut sent = Vec::new();
    loop {
        sent.extend(std::iter::from_fn(|| spool.next(now_ms)));
        match spool.sync(now_ms) {
            Some(_job) => spool.synced(&Ok(()), now_ms),
            None => return sent,
        }
    }
}

/// All that is in the spool, as a coordinator takes it that acknowledges each.
fn empty(spool: &mut Spool, mut now_ms: u64) -> Vec<wire::Report> {
    let mut taken = Vec::new();
    while !spool.is_empty() {
        for report in drain(spool, now_ms) {
            let (epoch, sequence) = (report.epoch, report.sequence);
            spool.acknowledge(&ReportAck { epoch, sequence, need_dictionary: false }, now_ms);
            taken.push(report);
        }
        now_ms += BURST_EVERY_MS;
    }
    taken
}

fn sequences(reports: &[wire::Report]) -> Vec<u64> {
    reports.iter().map(|report| report.sequence).collect()
}

fn calls(reports: &[wire::Report]) -> Vec<u64> {
    let sum = |report: &wire::Report| report.columns.iter().flat_map(|c| &c.values).sum();
    reports.iter().map(sum).collect()
}

#[test]
fn what_is_not_acknowledged_comes_again_in_order_and_unchanged() {
    let mut spool = spool(3);
    for calls in 1..=5 {
        spool.push(report(&[1], calls), 0);
    }
    let first = drain(&mut spool, 0);
    assert_eq!(sequences(&first), [1, 2, 3]);
    assert!(first[0].dictionary.is_some() && first[1].dictionary.is_none());
    spool.acknowledge(&ack(1), 0);
    assert_eq!(sequences(&drain(&mut spool, 0)), [4]);

    spool.rewind(10, false);
    let again = drain(&mut spool, 0);
    assert_eq!(sequences(&again), [2, 3, 4, 5]);
    assert!(again[0].dictionary.is_some(), "a new session holds no dictionary");
    assert_eq!(again[0].columns, first[1].columns);
    spool.acknowledge(&ack(5), 0);
    assert!(spool.is_empty());
}

#[test]
fn the_dictionary_is_told_when_it_changes() {
    let mut spool = spool(10);
    for tenants in [&[1][..], &[1], &[1, 2], &[1, 2], &[2, 1]] {
        spool.push(report(tenants, 1), 0);
    }
    let sent = drain(&mut spool, 0);
    let told: Vec<bool> = sent.iter().map(|report| report.dictionary.is_some()).collect();
    assert_eq!(told, [true, false, true, false, true]);
    let versions: Vec<u32> = sent.iter().map(|report| report.dictionary_version).collect();
    assert_eq!(versions, [1, 1, 2, 2, 3]);
}

#[test]
fn a_coordinator_without_the_dictionary_gets_it_and_everything_again_once() {
    let mut spool = spool(3);
    for calls in 1..=4 {
        spool.push(report(&[1], calls), 0);
    }
    let lacking = ReportAck { epoch: 9, sequence: 0, need_dictionary: true };
    assert_eq!(drain(&mut spool, 0).len(), 3);
    spool.acknowledge(&lacking, 0);
    let again = drain(&mut spool, 0);
    assert_eq!(sequences(&again), [1, 2, 3]);
    assert!(again[0].dictionary.is_some());
    // The answers to the first sending of 2 and 3.
    spool.acknowledge(&lacking, 0);
    spool.acknowledge(&lacking, 0);
    assert!(drain(&mut spool, 0).is_empty(), "nothing is sent a third time");
    for sequence in 1..=3 {
        spool.acknowledge(&ack(sequence), 0);
    }
    assert_eq!(sequences(&drain(&mut spool, 0)), [4]);
}

#[test]
fn acknowledgements_of_what_was_not_sent_forget_nothing() {
    let mut spool = spool(1);
    spool.push(report(&[1], 1), 0);
    drain(&mut spool, 0);
    for (epoch, sequence) in [(8, 10), (9, 2), (10, 1)] {
        spool.acknowledge(&ReportAck { epoch, sequence, need_dictionary: false }, 0);
        assert_eq!(spool.len(), 1, "({epoch}, {sequence})");
    }
}

#[test]
fn after_an_outage_what_is_measured_now_comes_before_the_backlog() {
    let mut spool = spool(8);
    for calls in [1, 2] {
        spool.push(report(&[1], calls), 0);
    }
    assert_eq!(calls(&drain(&mut spool, 0)), [1, 2]);
    spool.rest();
    for calls in 3..=30 {
        spool.push(report(&[1], calls), 0);
    }
    spool.rewind(8, false);
    // What may have arrived already, the newest, and then of the backlog what
    // leaves half of the window for what is measured meanwhile.
    assert_eq!(calls(&drain(&mut spool, 1_000)), [1, 2, 30, 3]);
    spool.acknowledge(&ack(4), 1_000);
    spool.push(report(&[1], 31), 1_000);
    // No more of the backlog before its time.
    assert_eq!(calls(&drain(&mut spool, 1_000 + BURST_EVERY_MS - 1)), [31]);
    assert!(spool.waits());
    assert_eq!(calls(&drain(&mut spool, 1_000 + BURST_EVERY_MS)), [4, 5, 6]);
    spool.acknowledge(&ack(8), 2_000);
    assert_eq!(calls(&drain(&mut spool, 2_000)), [7, 8, 9, 10]);
}

#[test]
fn a_backlog_goes_out_at_a_bounded_rate() {
    let mut spool = Spool::new(9);
    for calls in 0..100 {
        spool.push(report(&[1], calls), 0);
    }
    spool.rewind(1_000, false);
    // Eight seconds, looked at every ten milliseconds.
    let mut sent = 0;
    for now_ms in (0..8_000).step_by(10) {
        for report in drain(&mut spool, now_ms) {
            spool.acknowledge(&ack(report.sequence), now_ms);
            sent += 1;
        }
    }
    assert_eq!(sent, 1 + BURST * 16, "the newest, and a burst every half second");
}

#[test]
fn what_was_sent_is_never_merged() {
    let mut spool = spool(2);
    for calls in [1, 10] {
        spool.push(report(&[1], calls), 0);
    }
    let sent = drain(&mut spool, 0);
    spool.rest();
    for _ in 0..2 * MAX_IN_MEMORY {
        spool.push(report(&[1], 100), 0);
    }
    assert_eq!(spool.len(), MAX_IN_MEMORY);
    spool.rewind(MAX_IN_MEMORY, false);
    let again = empty(&mut spool, 0);
    assert_eq!(again[0].columns, sent[0].columns);
    assert_eq!(again[1].columns, sent[1].columns);
    assert_eq!(calls(&again).iter().sum::<u64>(), 11 + 2 * MAX_IN_MEMORY as u64 * 100);
}

#[test]
fn what_is_recent_stays_fine_the_longest() {
    let mut spool = Spool::new(9);
    for _ in 0..MAX_IN_MEMORY + MAX_IN_MEMORY / 2 {
        spool.push(report(&[1], 1), 0);
    }
    let intervals: Vec<u32> = spool.waiting.iter().map(|entry| entry.interval_ms).collect();
    let all = 5_000 * (MAX_IN_MEMORY + MAX_IN_MEMORY / 2);
    assert_eq!(intervals.iter().map(|ms| *ms as usize).sum::<usize>(), all);
    assert!(intervals.is_sorted_by(|one, two| one >= two), "{intervals:?}");
}

#[test]
fn more_tenants_than_are_wanted_are_cut_off() {
    let mut spool = spool(1);
    spool.set_max_tenants(2);
    spool.push(report(&[1, 2, 3], 1), 0);
    let sent = spool.next(0).expect("a report");
    assert_eq!(sent.dictionary.expect("a dictionary").tenants.len(), 2);
    assert_eq!(sent.columns[0].values.len(), 2);
}

#[test]
fn a_report_that_can_not_fit_the_link_is_made_to() {
    let mut spool = spool(1);
    let ids: Vec<u128> = (0..1_000).collect();
    let mut large = report(&ids, u64::MAX >> 11);
    large.columns = (0..60)
        .map(|bound| CollectedColumn {
            metric: Metric::RequestDurationBucket,
            bound,
            ..large.columns[0].clone()
        })
        .collect();
    spool.push(large, 0);
    let sent = spool.next(0).expect("a report");
    assert!(sent.encoded_len() <= webhost_proto::MAX_MESSAGE_BYTES);
    assert!(!sent.columns.is_empty());
}
