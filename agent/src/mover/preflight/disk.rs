//! Room for the tenant on the target's disk.

/// The rows with their indexes, and as much again: the copy writes them to the
/// database's log as well, and rows were estimated.
const TIMES: u64 = 2;

/// Bytes that `stored` bytes of rows and indexes need.
pub(super) fn needed(stored: u64) -> u64 {
    stored.saturating_mul(TIMES)
}

/// Why `stored` bytes (rows and indexes) don't fit into `free`; none when they
/// do. Both in bytes.
pub(super) fn lacking(free: u64, stored: u64) -> Option<String> {
    let needed = needed(stored);
    (free < needed).then(|| {
        format!(
            "the target's disk has {} free, and about {} are needed \
             ({TIMES} times the tenant's rows and indexes)",
            mebibytes(free),
            mebibytes(needed)
        )
    })
}

/// Rounded up.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said_in_figures() {
        for (free, stored, fits) in [
            (0, 0, true),
            (200, 100, true),
            (199, 100, false),
            (u64::MAX, u64::MAX, true),
            (u64::MAX - 1, u64::MAX, false),
        ] {
            assert_eq!(lacking(free, stored).is_none(), fits, "{free} {stored}");
        }
        let said = lacking(10 << 20, 30 << 20).expect("too little");
        assert!(said.contains("10 MiB free") && said.contains("about 60 MiB"), "{said}");
    }
}
