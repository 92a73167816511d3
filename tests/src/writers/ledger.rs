//! What the databases acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The isolation level of a writer's transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "begin isolation level read committed",
            Self::RepeatableRead => "begin isolation level repeatable read",
            Self::Serializable => "begin isolation level serializable",
        }
    }
}

/// Where a position's last acknowledged write left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The tenant's, with this value.
    Present(i32),
    Deleted,
    /// Given to the neighbour: on the source, with this value.
    GivenAway(i32),
}

/// A table whose rows the writers keep facts of, how its key reads as text,
/// and the one value that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FactTable {
    pub name: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    /// Nobody but the writers has rows of the tenant there.
    pub writers_alone: bool,
}

const fn facts(name: &'static str, key: &'static str, value: &'static str) -> FactTable {
    FactTable { name, key, value, writers_alone: false }
}

pub(super) const VEHICLES: FactTable = facts("vehicles", "id::text", "plate");
pub(super) const ROUTES: FactTable = facts("routes", "id::text", "vehicle_id::text");
pub(super) const DRIVERS: FactTable =
    facts("drivers", "id::text", "coalesce(vehicle_id::text, '')");
pub(super) const EVENTS: FactTable = facts("infrastructure_events", "seq::text", "kind");
pub(super) const ZONES: FactTable =
    FactTable { name: "zones", key: "code", value: "rank::text", writers_alone: true };
pub(super) const VISITS: FactTable =
    FactTable { name: "zone_visits", key: "id::text", value: "zone_code", writers_alone: true };

/// All of them.
pub(super) const FACT_TABLES: [FactTable; 6] = [VEHICLES, ROUTES, DRIVERS, EVENTS, ZONES, VISITS];

/// One acknowledged write: when it began, and how long it took with retries.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub began: Instant,
    pub took: Duration,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    pub positions: BTreeMap<Uuid, Expect>,
    /// By table and key: the value, or none for a row that is gone.
    pub facts: BTreeMap<(FactTable, String), Option<String>>,
    /// Odometers: how much was added per vehicle.
    pub odometers: BTreeMap<Uuid, i64>,
    /// Identities that were given out twice.
    pub given_twice: u64,
    pub writes: Vec<Write>,
    /// How often each kind of write was acknowledged.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Answers of either side that made a writer try again.
    pub refused: u64,
    pub serialization: u64,
    /// Commits whose answer was lost with the connection, and looked up.
    pub in_doubt: u64,
}

impl Ledger {
    pub(super) fn merge(&mut self, other: Self) {
        self.positions.extend(other.positions);
        for (fact, value) in other.facts {
            // Writers own their keys, so only the database's own can meet.
            self.given_twice += u64::from(self.facts.insert(fact, value).is_some());
        }
        for (vehicle, added) in other.odometers {
            *self.odometers.entry(vehicle).or_default() += added;
        }
        self.given_twice += other.given_twice;
        self.writes.extend(other.writes);
        for (kind, times) in other.kinds {
            *self.kinds.entry(kind).or_default() += times;
        }
        self.refused += other.refused;
        self.serialization += other.serialization;
        self.in_doubt += other.in_doubt;
    }

    /// The facts of one table that are there, as key and value.
    pub(super) fn present(&self, table: FactTable) -> Vec<(String, String)> {
        self.facts
            .iter()
            .filter(|((of, _), _)| *of == table)
            .filter_map(|((_, key), value)| Some((key.clone(), value.clone()?)))
            .collect()
    }
}
