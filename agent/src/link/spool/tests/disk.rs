//! Files: restarts, bounds, ages, clocks.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn open(dir: &Path, epoch: u64) -> Spool {
    Spool::open(dir, 1 << 20, epoch)
}

/// Bytes of all files of a directory.
fn on_disk(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("a directory").flatten();
    files.map(|file| file.metadata().expect("metadata").len()).sum()
}

/// Says that all is synced, where it is time to.
fn sync(spool: &mut Spool, now_ms: u64) {
    if spool.sync(now_ms).is_some() {
        spool.synced(&Ok(()), now_ms);
    }
}

#[test]
fn a_backlog_survives_the_end_of_the_agent_and_what_was_sent_keeps_its_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = open(dir.path(), 9);
    spool.rewind(2, false);
    for calls in 1..=6 {
        spool.push(report(&[1, 2], calls), 0);
    }
    assert_eq!(sequences(&drain(&mut spool, 0)), [1, 2]);
    spool.acknowledge(&ack(1), 0);
    assert_eq!(sequences(&drain(&mut spool, 0)), [3]);
    // As kill -9 does: nothing is written any more.
    drop(spool);

    let mut spool = open(dir.path(), 20);
    assert_eq!(spool.len(), 5);
    spool.push(report(&[1, 2], 7), 0);
    spool.rewind(8, false);
    let sent = empty(&mut spool, 0);
    let numbers: Vec<(u64, u64)> = sent.iter().map(|r| (r.epoch, r.sequence)).collect();
    assert_eq!(numbers, [(9, 2), (9, 3), (20, 1), (20, 2), (20, 3), (20, 4)]);
    assert_eq!(calls(&sent), [4, 6, 14, 8, 10, 12]);
    assert!(sent[0].dictionary.as_ref().is_some_and(|names| names.tenants.len() == 2));
    drop(spool);
    assert!(open(dir.path(), 21).is_empty());
}

#[test]
fn a_burst_is_sent_after_its_numbers_are_on_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = open(dir.path(), 9);
    for calls in 1..=3 {
        spool.push(report(&[1], calls), 0);
    }
    spool.rewind(8, false);
    assert!(spool.next(0).is_none(), "its number is not safe yet");
    let job = spool.sync(0).expect("somebody waits for it");
    assert!(spool.sync(0).is_none(), "one at a time");
    spool.synced(&job.run(), 0);
    assert_eq!(calls(&[spool.next(0).expect("the newest")]), [3]);
    assert!(spool.next(0).is_none(), "the next ones' are not safe yet");
    // What is made now has its number in its own record, and keeps its place.
    spool.push(report(&[1], 4), 0);
    assert!(spool.next(0).is_none());
    drop(spool);
    let mut spool = open(dir.path(), 10);
    spool.rewind(8, false);
    let sent = drain(&mut spool, 0);
    assert_eq!(sent.iter().map(|report| report.epoch).collect::<Vec<_>>(), [9; 4]);
    assert_eq!(calls(&sent), [3, 1, 2, 4]);
}

#[test]
fn the_files_are_private_and_go_when_all_is_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().join("spool");
    let mut spool = open(&dir, 9);
    let ids: Vec<u128> = (0..100).collect();
    for calls in 0..600 {
        spool.push(report(&ids, calls), 0);
    }
    let mode = |path: &Path| path.metadata().expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in std::fs::read_dir(&dir).expect("a directory").flatten() {
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
    }
    assert_eq!(spool.bytes(), on_disk(&dir));
    assert!(spool.bytes() > 64 * 1024);
    spool.rewind(8, false);
    empty(&mut spool, 0);
    assert_eq!((spool.bytes(), on_disk(&dir)), (0, 0));
}

#[test]
fn while_all_is_well_the_files_stay_small_and_nothing_is_synced() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = open(dir.path(), 9);
    spool.rewind(8, false);
    let ids: Vec<u128> = (0..50).collect();
    let mut most = 0;
    for second in 0..10_000 {
        let now_ms = second * 1_000;
        spool.push(report(&ids, 1), now_ms);
        let sent = spool.next(now_ms).expect("it goes out at once");
        assert!(spool.sync(now_ms).is_none());
        spool.acknowledge(&ack(sent.sequence), now_ms);
        most = most.max(spool.bytes());
    }
    assert!(most < 80 * 1024, "{most}");
}

#[test]
fn what_waits_for_long_is_synced() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = open(dir.path(), 9);
    spool.push(report(&[1], 1), 1_000);
    assert!(spool.sync(30_999).is_none());
    let job = spool.sync(31_000).expect("it is time");
    spool.synced(&job.run(), 31_000);
    assert!(spool.sync(300_000).is_none(), "nothing was written since");
}

/// A day without the coordinator at 20 s, in a bound that holds far less: the
/// files and the index stay within it, nothing is lost, and what lies long ago
/// is coarser.
#[test]
fn a_day_away_stays_within_the_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let bound = 256 * 1024;
    let mut spool = Spool::open(dir.path(), bound, 9);
    let ids: Vec<u128> = (0..50).collect();
    let (mut most, mut reports) = (0, 0);
    for round in 0..4_320_u64 {
        let now_ms = round * 20_000;
        let report = CollectedReport { interval_ms: 20_000, ..report(&ids, round) };
        spool.push(report, now_ms);
        sync(&mut spool, now_ms);
        most = most.max(spool.bytes());
        reports = reports.max(spool.len());
    }
    assert!(most <= bound, "{most}");
    assert_eq!(on_disk(dir.path()), spool.bytes());
    assert!(reports < 2_000, "{reports}");
    assert_eq!(spool.problem(), None);
    assert!(spool.waiting.iter().all(|entry| !entry.in_memory()), "memory holds no body");
    let intervals: Vec<u32> = spool.waiting.iter().map(|entry| entry.interval_ms).collect();
    assert_eq!(intervals.iter().map(|ms| u64::from(*ms)).sum::<u64>(), 24 * 3600 * 1000);
    let half = intervals.len() / 2;
    let mean = |part: &[u32]| part.iter().map(|ms| u64::from(*ms)).sum::<u64>() / part.len() as u64;
    assert!(mean(&intervals[..half]) > 4 * mean(&intervals[half..]), "{intervals:?}");
    assert_eq!(intervals.last(), Some(&20_000));

    drop(spool);
    let mut spool = Spool::open(dir.path(), bound, 10);
    spool.rewind(1_000, false);
    let sent = empty(&mut spool, 0);
    assert_eq!(calls(&sent).iter().sum::<u64>(), 50 * (0..4_320).sum::<u64>());
}

#[test]
fn no_report_grows_beyond_what_the_coordinator_takes() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = Spool::open(dir.path(), 64 * 1024, 9);
    let ids: Vec<u128> = (0..60).collect();
    for round in 0..600_u64 {
        let mut long = report(&ids, 1);
        long.interval_ms = 3 * 3600 * 1000;
        spool.push(long, round);
        sync(&mut spool, round);
    }
    assert!(spool.waiting.iter().all(|entry| entry.interval_ms <= 24 * 3600 * 1000));
    let most = spool.waiting.iter().map(|entry| entry.interval_ms).max();
    assert_eq!(most, Some(24 * 3600 * 1000));
}

/// A clock that is set forwards and backwards between reports moves none of
/// them in order, and none is taken for older or younger than it is.
#[test]
fn a_clock_that_jumps_changes_no_order_and_no_total() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = open(dir.path(), 9);
    let clock = [5_000_000, 90_000_000_000, 1, 4_000_000, -7, 6_000_000];
    for (round, collected_at_us) in (0..).zip(clock) {
        spool.push(CollectedReport { collected_at_us, ..report(&[1], 1 << round) }, 0);
    }
    assert_eq!(spool.oldest_us(), Some(5_000_000));
    drop(spool);
    let mut spool = open(dir.path(), 10);
    spool.rewind(8, false);
    let sent = empty(&mut spool, 0);
    assert_eq!(calls(&sent), [32, 1, 2, 4, 8, 16], "the newest, then in their order");
    let times: Vec<i64> = sent.iter().map(|report| report.collected_at_us).collect();
    assert_eq!(times, [6_000_000, 5_000_000, 90_000_000_000, 1, 4_000_000, -7]);
}

/// The file of epochs was lost and the clock set back: a number that another
/// run gave is not given again.
#[test]
fn a_run_with_a_lower_epoch_goes_on_above_what_it_finds() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = open(dir.path(), 9);
    spool.rewind(8, false);
    spool.push(report(&[1], 1), 0);
    drop(spool);
    let mut spool = open(dir.path(), 3);
    spool.rewind(8, false);
    spool.push(report(&[1], 2), 0);
    let sent = drain(&mut spool, 0);
    let numbers: Vec<(u64, u64)> = sent.iter().map(|r| (r.epoch, r.sequence)).collect();
    assert_eq!(numbers, [(9, 1), (10, 1)]);
}

#[test]
fn what_one_node_measured_is_never_sent_as_another() {
    use webhost_proto::ids::NodeId;

    let dir = tempfile::tempdir().expect("a directory");
    let [one, two] = [1, 2].map(|number| NodeId(Uuid::from_u128(number)));
    let open = |node, epoch| {
        let mut spool = Spool::of(dir.path(), node, DEFAULT_BYTES, epoch);
        spool.rewind(8, false);
        spool
    };
    let mut spool = open(one, 9);
    spool.push(report(&[1], 5), 0);
    drop(spool);
    let mut other = open(two, 10);
    assert_eq!((other.len(), other.problem()), (0, None));
    other.push(report(&[2], 7), 0);
    let sent = empty(&mut other, 0);
    let values: Vec<&[u64]> =
        sent.iter().map(|report| report.columns[0].values.as_slice()).collect();
    assert_eq!(values, [[7]]);
    drop(other);
    // One that can't be moved away is not sent either.
    let beside = tempfile::tempdir().expect("a directory");
    std::fs::write(beside.path().join("spool"), "a file").expect("writes");
    let blocked = Spool::of(beside.path(), one, DEFAULT_BYTES, 11);
    assert!(blocked.is_empty() && blocked.problem().is_some());
}
