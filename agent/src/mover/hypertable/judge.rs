//! Which hypertables move. Pure.

use super::Hypertables;
use super::read::{Found, Version};

/// What the method was verified with, by a prototype; see [`VERIFIED`].
const EXTENSION: &str = "2.28.3";
const SERVER: i32 = 15;

/// The whole truth about it, for a report.
pub(in crate::mover) const VERIFIED: &str = "moves of hypertables were verified by a prototype with TimescaleDB 2.28.3 on \
     PostgreSQL 15.18 (one time dimension, chunks compressed by the tenant); this program itself was tested on a \
     stand-in for its catalog";

/// The way out of a refusal that a setting decides.
const ANY: &str = "set moves.hypertables = \"any\" to move it all the same";

impl Version {
    /// Whether it is what the method was verified with.
    pub(in crate::mover) fn is_verified(&self) -> bool {
        self.extension.as_deref() == Some(EXTENSION) && self.server == SERVER
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let extension = self.extension.as_deref().unwrap_or("of an unknown version");
        write!(f, "TimescaleDB {extension} on PostgreSQL {}", self.server)
    }
}

impl Found {
    /// Why the hypertable can't be moved; none when it can. `tenant` is the
    /// quoted column that names the tenant, where one does; `key` are the
    /// quoted columns of the primary key.
    pub(in crate::mover) fn refusal(
        &self,
        rule: Hypertables,
        tenant: Option<&str>,
        key: &[&str],
    ) -> Option<String> {
        if rule == Hypertables::Refuse {
            return Some(
                "it is a TimescaleDB hypertable, and moves.hypertables is \"refuse\"".into(),
            );
        }
        let Some(tenant) = tenant else {
            return Some(
                "it is a TimescaleDB hypertable whose rows belong to a tenant through another table, which was not \
                 verified: give it a customer_id"
                    .into(),
            );
        };
        if self.dimensions != 1 {
            return Some(format!(
                "it is a TimescaleDB hypertable with {} dimensions: space partitions were not verified",
                self.dimensions
            ));
        }
        if let Some(storage) = self.storage.first() {
            return Some(format!(
                "it is a TimescaleDB hypertable with chunks in {storage}, which was not verified: only heaps and \
                 compressed heaps were"
            ));
        }
        if !key.is_empty() && !key.contains(&self.table.time.as_str()) {
            return Some(format!(
                "it is a TimescaleDB hypertable whose primary key lacks its time column {}",
                self.table.time
            ));
        }
        let doubts = self.doubts(tenant);
        match (rule, doubts.first()) {
            (Hypertables::Verified, Some(doubt)) => {
                Some(format!("it is a TimescaleDB hypertable: {doubt}; {ANY}"))
            }
            _ => None,
        }
    }

    /// What a move of it would rest on that was not verified.
    pub(in crate::mover) fn doubts(&self, tenant: &str) -> Vec<String> {
        let mut doubts = Vec::new();
        if !self.version.is_verified() {
            doubts.push(format!("here is {}, and {VERIFIED}", self.version));
        }
        if self.table.compression && !self.table.segment_by.iter().any(|column| column == tenant) {
            doubts.push(format!(
                "its compressed rows are not kept apart by {tenant} (compress_segmentby): changing or deleting one \
                 tenant's would decompress everybody's"
            ));
        }
        doubts
    }

    /// What is worth knowing about it, for its verdict.
    pub(in crate::mover) fn traits(&self) -> String {
        let mut text = format!("hypertable by {}, {} chunks", self.table.time, self.chunks);
        if !self.interval.is_empty() {
            text.push_str(&format!(" of {}", self.interval));
        }
        if self.compressed > 0 {
            text.push_str(&format!(", {} compressed", self.compressed));
        }
        if self.table.compression {
            let by = self.table.segment_by.join(", ");
            text.push_str(&format!(
                ", compression by {}",
                if by.is_empty() { "nothing" } else { by.as_str() }
            ));
        }
        text.replace('"', "")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Hypertable;
    use super::*;

    fn found(change: impl FnOnce(&mut Found)) -> Found {
        let mut found = Found {
            table: Hypertable {
                time: "\"recorded_at\"".into(),
                cast: "timestamp with time zone".into(),
                compression: true,
                segment_by: vec!["\"customer_id\"".into(), "\"vehicle_id\"".into()],
            },
            version: Version { extension: Some("2.28.3".into()), server: 15 },
            dimensions: 1,
            interval: "1 day".into(),
            order_by: Vec::new(),
            chunks: 12,
            compressed: 5,
            storage: Vec::new(),
            rows: 0,
        };
        change(&mut found);
        found
    }

    #[test]
    fn what_was_verified_moves_and_the_rest_is_named() {
        let tenant = Some("\"customer_id\"");
        let key = ["\"id\"", "\"recorded_at\""];
        let good = found(|_| ());
        assert_eq!(good.refusal(Hypertables::Verified, tenant, &key), None);
        assert_eq!(
            good.traits(),
            "hypertable by recorded_at, 12 chunks of 1 day, 5 compressed, compression by customer_id, vehicle_id"
        );
        let refused = good.refusal(Hypertables::Refuse, tenant, &key).expect("refused");
        assert!(refused.contains("moves.hypertables is \"refuse\""), "{refused}");
        // Each case: what differs, words of the refusal, and whether a setting
        // lets it move.
        let cases: [(Found, &str, bool); 8] = [
            (
                found(|f| f.version.extension = Some("2.17.2".into())),
                "here is TimescaleDB 2.17.2 on PostgreSQL 15, and moves of hypertables were verified by a prototype \
                 with TimescaleDB 2.28.3 on PostgreSQL 15.18",
                true,
            ),
            (found(|f| f.version.server = 16), "TimescaleDB 2.28.3 on PostgreSQL 16", true),
            (found(|f| f.version.extension = None), "of an unknown version", true),
            (
                found(|f| f.table.segment_by.retain(|c| c != "\"customer_id\"")),
                "not kept apart by \"customer_id\"",
                true,
            ),
            (found(|f| f.dimensions = 2), "2 dimensions: space partitions", false),
            (found(|f| f.storage = vec!["hypercore".into()]), "chunks in hypercore", false),
            (found(|f| f.storage = vec!["a foreign table".into()]), "a foreign table", false),
            (found(|f| f.table.time = "\"at\"".into()), "lacks its time column \"at\"", false),
        ];
        for (odd, words, may) in cases {
            let said = odd.refusal(Hypertables::Verified, tenant, &key).expect(words);
            assert!(said.contains(words), "{said}\n  not {words}");
            assert_eq!(said.contains("moves.hypertables = \"any\""), may, "{said}");
            assert_eq!(odd.refusal(Hypertables::Any, tenant, &key).is_none(), may, "{words}");
        }
        let through = good.refusal(Hypertables::Any, None, &key).expect("refused");
        assert!(through.contains("through another table"), "{through}");
        let plain = found(|f| {
            f.table.compression = false;
            f.table.segment_by.clear();
        });
        assert_eq!(plain.refusal(Hypertables::Verified, tenant, &key), None);
    }
}
