//! A disk that is full, torn, flipped or gone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::link::spool::segments::{Access, plainly};

/// A disk with so many bytes left; what fits of a record is written, as a full
/// file system does.
fn with_room(left: &Arc<AtomicU64>) -> Access {
    use std::os::unix::fs::FileExt;
    let left = left.clone();
    let write = Arc::new(move |file: &std::fs::File, bytes: &[u8], at: u64| {
        let room = left.load(Ordering::SeqCst);
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        file.write_all_at(&bytes[..fits], at)?;
        left.fetch_sub(fits as u64, Ordering::SeqCst);
        if fits < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    });
    Access { write, ..plainly() }
}

fn only_file(dir: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).expect("a directory").flatten().map(|f| f.path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// What a spool in `dir` would send.
fn left(dir: &Path) -> (Vec<u64>, Option<String>) {
    let mut spool = Spool::open(dir, 1 << 20, 10);
    let problem = spool.problem();
    spool.rewind(100, false);
    let mut sent = calls(&empty(&mut spool, 0));
    sent.sort_unstable();
    (sent, problem)
}

#[test]
fn a_full_disk_stops_nothing_and_is_said_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let room = Arc::new(AtomicU64::new(1_000));
    let mut spool = Spool::open_with(dir.path(), 1 << 20, 9, with_room(&room));
    for round in 0..2_000 {
        spool.push(report(&[1], 1), round * 1_000);
    }
    let problem = spool.problem().expect("it is full");
    assert!(problem.contains("can't be written to disk"), "{problem}");
    assert!(spool.waiting.iter().any(|entry| !entry.in_memory()), "some got through");
    let in_memory = spool.waiting.iter().filter(|entry| entry.in_memory()).count();
    assert_eq!(in_memory, MAX_IN_MEMORY, "memory stays bounded");
    let files = std::fs::read_dir(dir.path()).expect("a directory").count();
    assert!(files <= 2, "{files} files: each try begins the same one anew");

    // What is made now goes out; what lies on the disk waits until its number
    // can be written there.
    spool.rewind(8, false);
    spool.push(report(&[1], 1_000), 2_000_000);
    let sent = drain(&mut spool, 2_000_000);
    assert!(calls(&sent).contains(&1_000));
    let mut taken: u64 = calls(&sent).iter().sum();
    for report in &sent {
        spool.acknowledge(&ack(report.sequence), 2_000_000);
    }

    room.store(u64::MAX, Ordering::SeqCst);
    spool.rest();
    // It is tried again after half a minute.
    spool.push(report(&[1], 10_000), 2_060_000);
    assert_eq!(spool.problem(), None);
    assert!(spool.waiting.iter().all(|entry| !entry.in_memory()), "all of it moved to the disk");
    drop(spool);
    let mut spool = Spool::open(dir.path(), 1 << 20, 10);
    assert_eq!(spool.problem(), None);
    spool.rewind(100, false);
    taken += calls(&empty(&mut spool, 0)).iter().sum::<u64>();
    assert_eq!(taken, 2_000 + 1_000 + 10_000);
}

/// Any number of bytes may get onto the disk before it is full.
#[test]
fn no_length_of_the_last_write_confuses_what_comes_after() {
    for bytes in (0..1_200).step_by(7) {
        let dir = tempfile::tempdir().expect("a directory");
        let room = Arc::new(AtomicU64::new(bytes));
        let mut spool = Spool::open_with(dir.path(), 1 << 20, 9, with_room(&room));
        for round in 0..12 {
            spool.push(report(&[1], 1 << round), 0);
        }
        room.store(u64::MAX, Ordering::SeqCst);
        spool.push(report(&[1], 1 << 12), 60_000);
        drop(spool);
        let (sent, problem) = left(dir.path());
        assert_eq!(sent, (0..13).map(|round| 1 << round).collect::<Vec<u64>>(), "{bytes}");
        assert_eq!(problem, None, "{bytes}");
    }
}

#[test]
fn a_last_record_that_is_torn_at_any_byte_costs_only_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = Spool::open(dir.path(), 1 << 20, 9);
    for calls in [1, 2] {
        spool.push(report(&[1], calls), 0);
    }
    let whole = spool.bytes();
    spool.push(report(&[1], 4), 0);
    drop(spool);
    let bytes = std::fs::read(only_file(dir.path())).expect("reads");
    let whole = usize::try_from(whole).expect("small");
    for cut in whole..bytes.len() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("0000000001.log"), &bytes[..cut]).expect("writes");
        let mut spool = Spool::open(dir.path(), 1 << 20, 10);
        assert_eq!(spool.problem(), None, "a crash is no damage ({cut})");
        spool.push(report(&[1], 8), 0);
        drop(spool);
        assert_eq!(left(dir.path()).0, [1, 2, 8], "{cut}");
    }
}

#[test]
fn a_flipped_bit_in_any_byte_costs_at_most_one_report_and_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = Spool::open(dir.path(), 1 << 20, 9);
    for calls in [1, 2, 4, 8] {
        spool.push(report(&[1], calls), 0);
    }
    drop(spool);
    let bytes = std::fs::read(only_file(dir.path())).expect("reads");
    // The dictionary, which stands in front, has a test of its own.
    let first = record::scan(&bytes).found[0].length;
    let mut said = 0;
    for byte in first..bytes.len() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut flipped = bytes.clone();
        flipped[byte] ^= 1 << (byte % 8);
        std::fs::write(dir.path().join("0000000001.log"), &flipped).expect("writes");
        let (sent, problem) = left(dir.path());
        assert_eq!(sent.len(), 3, "byte {byte}: {sent:?}");
        assert!(sent.iter().all(|calls| [1, 2, 4, 8].contains(calls)), "byte {byte}: {sent:?}");
        said += usize::from(problem.is_some());
    }
    // The last record's damage looks like a crash.
    let last = record::scan(&bytes).found.last().map_or(0, |found| found.length);
    assert_eq!(said, bytes.len() - first - last);
}

#[test]
fn a_damaged_dictionary_is_found_in_another_file() {
    let dir = tempfile::tempdir().expect("a directory");
    for epoch in [9, 10] {
        let mut spool = Spool::open(dir.path(), 1 << 20, epoch);
        spool.push(report(&[1], epoch), 0);
    }
    let path = dir.path().join("0000000001.log");
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let (sent, problem) = left(dir.path());
    assert_eq!(sent, [9, 10]);
    assert!(problem.is_some_and(|problem| problem.contains("damaged")));
}

#[test]
fn a_report_whose_file_is_gone_is_counted_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = Spool::open(dir.path(), 1 << 20, 9);
    spool.push(report(&[1], 1), 0);
    drop(spool);
    let mut spool = Spool::open(dir.path(), 1 << 20, 10);
    spool.push(report(&[1], 2), 0);
    std::fs::remove_file(dir.path().join("0000000001.log")).expect("removes");
    spool.rewind(8, false);
    assert_eq!(calls(&empty(&mut spool, 0)), [2]);
    let problem = spool.problem().expect("one is lost");
    assert!(problem.starts_with("1 spooled reports were damaged"), "{problem}");
}

#[test]
fn where_no_file_can_be_made_reports_wait_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let occupied = dir.path().join("spool");
    std::fs::write(&occupied, "not a directory").expect("writes");
    let mut spool = Spool::open(&occupied, 1 << 20, 9);
    spool.push(report(&[1], 3), 0);
    assert!(spool.problem().is_some_and(|problem| problem.contains("can't be used")));
    spool.rewind(8, false);
    assert_eq!(calls(&empty(&mut spool, 0)), [3]);
}

#[test]
fn a_sync_that_fails_is_said_and_holds_nothing_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spool = Spool::open(dir.path(), 1 << 20, 9);
    spool.push(report(&[1], 3), 0);
    spool.rewind(8, false);
    assert!(spool.next(0).is_none());
    let _job = spool.sync(0).expect("the number waits for it");
    spool.synced(&Err(io::Error::other("the disk is gone")), 0);
    assert_eq!(calls(&[spool.next(0).expect("it is sent")]), [3]);
    assert!(spool.problem().is_some_and(|problem| problem.contains("the disk is gone")));
}
