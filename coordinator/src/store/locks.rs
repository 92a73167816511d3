//! The advisory locks of the state database, all in one place: two purposes
//! under one key would wait for each other without need.
//!
//! **Invariant:** every key is distinct, also from those in the schema.

/// What is done by one process, or one transaction, at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// The schema is migrated.
    Migration,
    /// The certificate authorities are made.
    Authorities,
    /// Days of the history are made of their hours.
    Days,
    /// Partitions of the history are made and dropped.
    Partitions,
    /// A move takes its turn.
    Turns,
}

impl Lock {
    /// The key: "webhost" and a number. The numbers of the first three are also
    /// those of releases before, which may still run beside this one.
    pub(super) const fn key(self) -> i64 {
        0x7765_6268_6f73_7400
            + match self {
                Self::Migration => 1,
                Self::Authorities => 2,
                Self::Days => 3,
                Self::Partitions => 4,
                Self::Turns => 5,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every number that a migration locks.
    fn of_schema() -> BTreeSet<i64> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/schema");
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(dir).expect("the schema").flatten() {
            let sql = std::fs::read_to_string(entry.path()).expect("a migration");
            for call in sql.split("advisory_xact_lock(").skip(1) {
                let number = call.split(')').next().unwrap_or_default();
                found.insert(number.parse().expect("a number"));
            }
        }
        found
    }

    #[test]
    fn every_purpose_has_a_key_of_its_own() {
        let mut keys = of_schema();
        assert!(!keys.is_empty(), "versions of places are given under a lock");
        for lock in [Lock::Migration, Lock::Authorities, Lock::Days, Lock::Partitions, Lock::Turns]
        {
            assert!(keys.insert(lock.key()), "{lock:?} has a key that another one has");
        }
    }
}
