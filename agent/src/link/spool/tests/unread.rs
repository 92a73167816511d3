//! A disk that holds what was written and does not give it now.

use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;

use super::totals::Coordinator;
use super::*;
use crate::link::spool::segments::{Access, plainly};
use crate::link::spool::trouble::GIVEN_UP_MS;

/// A disk on which no file but the newest can be read while `errno` is not 0.
pub(super) fn failing(errno: &Arc<AtomicI32>) -> Access {
    let (errno, Access { write, read }) = (errno.clone(), plainly());
    let read = move |path: &Path, bytes: &mut [u8], at: u64| match errno.load(Ordering::SeqCst) {
        0 => read(path, bytes, at),
        errno => Err(io::Error::from_raw_os_error(errno)),
    };
    Access { write, read: Arc::new(read) }
}

fn set(errno: &AtomicI32, value: Option<Errno>) {
    errno.store(value.map_or(0, Errno::raw_os_error), Ordering::SeqCst);
}

/// A spool with what an earlier run left: `sent` of the reports that made
/// 1, 2, 4 … calls were sent, none was acknowledged.
fn after_a_restart(dir: &Path, sent: usize, reports: u32, errno: &Arc<AtomicI32>) -> Spool {
    let mut spool = Spool::open(dir, 1 << 20, 9);
    spool.rewind(sent.max(1), false);
    if sent == 0 {
        spool.rest();
    }
    for number in 0..reports {
        spool.push(report(&[1], 1 << number), 0);
    }
    assert_eq!(drain(&mut spool, 0).len(), sent);
    drop(spool);
    let mut spool = Spool::open_with(dir, 1 << 20, 10, failing(errno));
    assert_eq!(spool.len(), reports as usize);
    spool.rewind(8, false);
    spool
}

#[test]
fn a_backlog_that_can_not_be_read_now_stays_and_what_is_of_now_goes_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let errno = Arc::default();
    let mut spool = after_a_restart(dir.path(), 0, 4, &errno);
    set(&errno, Some(Errno::MFILE));
    // The newest of what was left counts as of now; it has to wait, too.
    let mut taken = Vec::new();
    for minute in 1..=120 {
        let now_ms = minute * 60_000;
        spool.push(report(&[1], 1_000), now_ms);
        let sent = drain(&mut spool, now_ms);
        assert_eq!(calls(&sent), [1_000], "minute {minute}");
        assert!(!spool.ready(now_ms), "nobody asks again and again");
        spool.acknowledge(&ack_of(&sent[0]), now_ms);
        taken.extend(calls(&sent));
    }
    assert_eq!(spool.len(), 4);
    assert!(spool.waits(), "it is asked for again by the time alone");
    let problem = spool.problem().expect("an operator should know");
    assert!(problem.contains("can't be read now and wait: Too many open files"), "{problem}");

    set(&errno, None);
    let mut rest = calls(&empty(&mut spool, 121 * 60_000));
    rest.sort_unstable();
    assert_eq!(rest, [1, 2, 4, 8]);
    assert_eq!(spool.problem(), None);
}

fn ack_of(report: &wire::Report) -> ReportAck {
    ReportAck { epoch: report.epoch, sequence: report.sequence, need_dictionary: false }
}

#[test]
fn what_was_sent_before_is_waited_for_so_that_none_overtakes_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let errno = Arc::default();
    let mut spool = after_a_restart(dir.path(), 2, 4, &errno);
    let mut coordinator = Coordinator::default();
    set(&errno, Some(Errno::IO));
    for second in 1..60 {
        spool.push(report(&[1], 1 << 10), second * 1_000);
        assert!(drain(&mut spool, second * 1_000).is_empty(), "second {second}");
    }
    set(&errno, None);
    let mut applied = Vec::new();
    let mut now_ms = 120_000;
    while !spool.is_empty() {
        for report in drain(&mut spool, now_ms) {
            applied.extend(calls(std::slice::from_ref(&report)));
            let ack = coordinator.take(report);
            spool.acknowledge(&ack, now_ms);
        }
        now_ms += BURST_EVERY_MS;
    }
    assert_eq!(applied[..2], [1, 2], "under their numbers of before");
    assert_eq!(applied.iter().sum::<u64>(), 0b1111 + (59 << 10));
    assert_eq!(spool.problem(), None);
}

#[test]
fn a_disk_that_never_gives_a_report_is_not_waited_for_longer_than_said() {
    for (kind, kept) in [(Errno::IO, false), (Errno::NFILE, true), (Errno::NOMEM, true)] {
        let dir = tempfile::tempdir().expect("a directory");
        let errno = Arc::default();
        let mut spool = after_a_restart(dir.path(), 1, 1, &errno);
        set(&errno, Some(kind));
        let mut now_ms = 0;
        while now_ms < GIVEN_UP_MS {
            assert!(spool.next(now_ms).is_none());
            assert_eq!(spool.len(), 1, "{kind} at {now_ms} ms");
            now_ms += 250;
        }
        // One pause later at most.
        for now_ms in (now_ms..now_ms + 120_000).step_by(250) {
            assert!(spool.next(now_ms).is_none());
        }
        assert_eq!(spool.len(), usize::from(kept), "{kind}");
        let problem = spool.problem().expect("an operator should know");
        assert_eq!(problem.contains("1 spooled reports were damaged"), !kept, "{problem}");
        assert_eq!(problem.contains("can't be read now"), kept, "{problem}");
        set(&errno, None);
        spool.push(report(&[1], 2), now_ms);
        let sent = calls(&empty(&mut spool, now_ms + 120_000));
        assert_eq!(sent.iter().sum::<u64>(), 2 + u64::from(kept), "{kind}");
    }
}

#[test]
fn a_file_that_the_disk_gives_up_on_is_waited_for_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let errno = Arc::default();
    let mut spool = after_a_restart(dir.path(), 5, 5, &errno);
    set(&errno, Some(Errno::IO));
    for now_ms in (0..GIVEN_UP_MS + 120_000).step_by(250) {
        assert!(spool.next(now_ms).is_none());
        assert!(now_ms >= GIVEN_UP_MS || spool.len() == 5, "at {now_ms} ms");
    }
    assert_eq!(spool.len(), 0, "all of them were in the one file");
    let problem = spool.problem().expect("an operator should know");
    assert!(problem.contains("5 spooled reports were damaged"), "{problem}");
}

#[test]
fn a_full_spool_whose_oldest_file_can_not_be_read_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let errno = Arc::default();
    let mut spool = Spool::open_with(dir.path(), 100_000, 9, failing(&errno));
    let mut large = report(&[1], 1);
    let message = "x".repeat(1_000);
    large.sources = vec![wire::SourceHealth { message, ..wire::SourceHealth::default() }];
    set(&errno, Some(Errno::MFILE));
    // More than the files may hold: the rest waits in memory.
    let mut now_ms = 0;
    for _ in 0..300 {
        now_ms += 1_000;
        spool.push(large.clone(), now_ms);
        assert!(spool.bytes() <= 100_000 + 2_000, "{}", spool.bytes());
    }
    assert!(spool.spilled);
    set(&errno, None);
    let mut pushed = 300;
    while spool.spilled {
        assert!(pushed < 5_000, "it never moved to the disk");
        now_ms += 1_000;
        spool.push(large.clone(), now_ms);
        pushed += 1;
        if spool.sync(now_ms).is_some() {
            spool.synced(&Ok(()), now_ms);
        }
        assert!(spool.bytes() <= 100_000 + 20_000, "{}", spool.bytes());
    }
    drop(spool);
    let mut spool = Spool::open(dir.path(), 100_000, 10);
    spool.rewind(8, false);
    assert_eq!(calls(&empty(&mut spool, 0)).iter().sum::<u64>(), pushed);
    assert_eq!(spool.problem(), None);
}
