//! The epoch under which this run of the agent numbers its reports: greater
//! than every one before, even if the machine's clock was set back.

use std::path::Path;

use crate::durable;

/// Takes the next epoch; durable when it returns. `now_us` is microseconds
/// since the Unix epoch.
///
/// # Errors
/// Of the file system: without a durable epoch the coordinator could take new
/// reports for old ones.
pub(super) fn next(state_dir: &Path, now_us: i64) -> std::io::Result<u64> {
    let path = state_dir.join("report-epoch");
    let last = match std::fs::read_to_string(&path) {
        // A damaged file counts as none: the clock carries on from there.
        Ok(text) => text.trim().parse::<u64>().unwrap_or(0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let next = last.saturating_add(1).max(now_us.max(1).unsigned_abs());
    durable::private_dir(state_dir)?;
    durable::replace(&path, next.to_string().as_bytes())?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_whatever_the_clock_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut last = 0;
        for now in [1_000, 2_000, 1_500, -5, 2_001] {
            let epoch = next(dir.path(), now).expect("an epoch");
            assert!(epoch > last);
            last = epoch;
        }
        std::fs::write(dir.path().join("report-epoch"), "?").expect("writes");
        assert_eq!(next(dir.path(), 9_000).expect("an epoch"), 9_000);
    }
}
