//! What a writer may do: one transaction, drawn at random, as statements and
//! as what they do to the model once acknowledged.

use std::time::Duration;

use rand::Rng;
use uuid::Uuid;

use super::ledger::{DRIVERS, EVENTS, Expect, FactTable, ROUTES, VEHICLES, VISITS, ZONES};
use super::writer::Writer;

/// One thing a transaction does.
#[derive(Clone, Debug)]
pub(super) enum Statement {
    Sql(String),
    /// COPY … FROM STDIN and its text.
    Copy(String, String),
    /// A row whose key the database gives out; the kind that it is called.
    Event(String),
    Think(Duration),
}

/// What a write does to the model, once acknowledged.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Position(Uuid, Expect),
    Odometer(Uuid, i64),
    Fact(FactTable, String, Option<String>),
}

/// One transaction.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) statements: Vec<Statement>,
    pub(super) effects: Vec<Effect>,
    /// Its kinds of writes.
    pub(super) kinds: Vec<&'static str>,
    /// It involves the neighbour, who lives on the source.
    pub(super) crosses: bool,
    nested: bool,
}

impl Draft {
    pub(super) fn sql(&mut self, text: impl Into<String>) {
        self.statements.push(Statement::Sql(text.into()));
    }

    fn position(&mut self, key: Uuid, expect: Expect) {
        self.effects.push(Effect::Position(key, expect));
    }

    fn fact(&mut self, table: FactTable, key: impl ToString, value: Option<String>) {
        self.effects.push(Effect::Fact(table, key.to_string(), value));
    }

    /// One key once per transaction keeps the model simple.
    fn touches(&self, key: Uuid) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Position(k, _) if *k == key))
    }
}

/// How many seconds before midnight a key's position was recorded. It never
/// changes, so that a key over both finds it again.
fn age(key: Uuid) -> i64 {
    i64::try_from(key.as_u128() % 864_000).unwrap_or_default()
}

/// Each kind of write with its weight.
const KINDS: [(&str, u32); 23] = [
    ("insert", 20),
    ("update", 16),
    ("delete", 8),
    ("re-insert", 6),
    ("upsert", 6),
    ("insert or nothing", 3),
    ("key change", 6),
    ("give away", 5),
    ("take back", 4),
    ("count", 8),
    ("lock and count", 2),
    ("event", 4),
    ("savepoint", 5),
    ("savepoint rolled back", 5),
    ("copy from", 3),
    ("merge", 5),
    ("merge delete", 2),
    ("nest", 3),
    ("nest felled", 2),
    ("zone", 4),
    ("zone renamed", 3),
    ("zone dropped", 2),
    ("values swapped", 4),
];

/// The names of all kinds of writes.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

impl Writer {
    /// Draws one transaction; it may turn out empty.
    pub(super) fn draft(&mut self) -> Draft {
        let mut draft = Draft::default();
        let writes = if self.random.random_bool(0.3) { self.random.random_range(2..5) } else { 1 };
        let total: u32 = KINDS.iter().map(|(_, weight)| weight).sum();
        for number in 0..writes {
            if number > 0 && self.mix.think {
                let pause = Duration::from_micros(self.random.random_range(0..5_000));
                draft.statements.push(Statement::Think(pause));
            }
            let mut drawn = self.random.random_range(0..total);
            let kind = KINDS.iter().find(|(_, weight)| {
                let hit = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                hit
            });
            let Some((kind, _)) = kind else { continue };
            let before = draft.statements.len();
            self.add(kind, &mut draft);
            if draft.statements.len() > before {
                draft.kinds.push(kind);
            }
        }
        draft
    }

    /// Adds one write of `kind`, where there is something to do it to.
    fn add(&mut self, kind: &str, draft: &mut Draft) {
        match kind {
            "nest" | "nest felled" | "zone" | "zone renamed" | "zone dropped"
            | "values swapped" => {
                // At most one of them, for the same reason as one key once.
                if !draft.nested {
                    draft.nested = true;
                    self.add_nested(kind, draft);
                }
            }
            "count" | "lock and count" | "event" => self.add_counted(kind, draft),
            "savepoint" => {
                draft.sql("savepoint kept");
                self.add("update", draft);
                draft.sql("release savepoint kept");
            }
            "savepoint rolled back" => {
                let value = self.value();
                draft.sql("savepoint undone");
                draft.sql(self.insert(Uuid::new_v4(), value, ""));
                if let Some((key, _)) = self.some_key(|e| matches!(e, Expect::Present(_))) {
                    draft.sql(format!(
                        "update gps_positions set altitude = {value} where id = '{key}'"
                    ));
                    draft.sql(format!("delete from gps_positions where id = '{key}'"));
                }
                draft.sql("rollback to savepoint undone");
            }
            _ => self.add_position(kind, draft),
        }
    }

    fn add_position(&mut self, kind: &str, draft: &mut Draft) {
        let value = self.value();
        let known = self
            .some_key(|expect| matches!(expect, Expect::Present(_)))
            .filter(|(key, _)| !draft.touches(*key));
        match (kind, known) {
            ("update", Some((key, _))) => {
                draft
                    .sql(format!("update gps_positions set altitude = {value} where id = '{key}'"));
                draft.position(key, Expect::Present(value));
            }
            ("delete", Some((key, _))) => {
                draft.sql(format!("delete from gps_positions where id = '{key}'"));
                draft.position(key, Expect::Deleted);
            }
            ("re-insert", _) => {
                // Comes back under the same key.
                let Some((key, _)) = self.some_key(|expect| expect == Expect::Deleted) else {
                    return;
                };
                if !draft.touches(key) {
                    draft.sql(self.insert(key, value, ""));
                    draft.position(key, Expect::Present(value));
                }
            }
            ("upsert", Some((key, _))) => {
                let tail = format!(
                    "on conflict ({}) do update set altitude = excluded.altitude",
                    self.world.position_key
                );
                draft.sql(self.insert(key, value, &tail));
                draft.position(key, Expect::Present(value));
            }
            ("insert or nothing", Some((key, Expect::Present(old)))) => {
                draft.sql(self.insert(key, value, "on conflict do nothing"));
                draft.position(key, Expect::Present(old));
            }
            ("key change", Some((key, Expect::Present(old)))) => {
                let fresh = Uuid::new_v4();
                draft.sql(format!(
                    "update gps_positions set id = '{fresh}', recorded_at = {} where id = '{key}'",
                    self.recorded_at(fresh)
                ));
                draft.position(key, Expect::Deleted);
                draft.position(fresh, Expect::Present(old));
            }
            // Giving away and taking back works only while both live in one
            // database.
            ("give away", Some((key, Expect::Present(old)))) if self.at == 0 => {
                draft.crosses = true;
                draft.sql(self.hand_over(key, self.world.neighbour, self.world.neighbour_vehicle));
                draft.position(key, Expect::GivenAway(old));
            }
            ("take back", _) if self.at == 0 => {
                let given = self.some_key(|expect| matches!(expect, Expect::GivenAway(_)));
                let Some((key, Expect::GivenAway(old))) = given else { return };
                if !draft.touches(key) {
                    let vehicle = self.some_vehicle();
                    draft.crosses = true;
                    draft.sql(self.hand_over(key, self.world.tenant, vehicle));
                    draft.position(key, Expect::Present(old));
                }
            }
            ("merge", _) => {
                let key = known.map_or_else(Uuid::new_v4, |(key, _)| key);
                let vehicle = self.some_vehicle();
                draft.sql(format!(
                    "merge into gps_positions as x using (select '{key}'::uuid as id, {at} as at) as v \
                     on x.id = v.id and x.recorded_at = v.at and x.customer_id = '{t}' \
                     when matched then update set altitude = {value} \
                     when not matched then insert \
                     (id, customer_id, vehicle_id, recorded_at, latitude, longitude, altitude, location) \
                     values (v.id, '{t}', '{vehicle}', v.at, 50, 8, {value}, st_setsrid(st_makepoint(8, 50), 4326))",
                    at = self.recorded_at(key),
                    t = self.world.tenant,
                ));
                draft.position(key, Expect::Present(value));
            }
            ("merge delete", Some((key, _))) => {
                draft.sql(format!(
                    "merge into gps_positions as x using (select '{key}'::uuid as id) as v \
                     on x.id = v.id and x.customer_id = '{}' when matched then delete",
                    self.world.tenant
                ));
                draft.position(key, Expect::Deleted);
            }
            ("copy from", _) => self.add_copy(value, draft),
            ("insert", _) => {
                let key = Uuid::new_v4();
                draft.sql(self.insert(key, value, ""));
                draft.position(key, Expect::Present(value));
            }
            _ => {}
        }
    }

    fn add_copy(&mut self, value: i32, draft: &mut Draft) {
        let mut text = String::new();
        for _ in 0..3 {
            let key = Uuid::new_v4();
            let vehicle = self.some_vehicle();
            text.push_str(&format!(
                "{key}\t{}\t{}\t{}\t50\t8\t{value}\tSRID=4326;POINT(8 50)\n",
                self.world.tenant,
                vehicle,
                self.world.midnight - jiff::SignedDuration::from_secs(age(key)),
            ));
            draft.position(key, Expect::Present(value));
        }
        draft.statements.push(Statement::Copy(
            "copy gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, altitude, location) from stdin"
                .into(),
            text,
        ));
    }

    fn add_counted(&mut self, kind: &str, draft: &mut Draft) {
        let vehicle = self.some_vehicle();
        match kind {
            "lock and count" => {
                // Two of these in turn wait for each other, and so may a mover.
                let other = self.some_vehicle();
                draft.sql(format!("select 1 from vehicles where id = '{other}' for update"));
                if self.mix.think {
                    draft.statements.push(Statement::Think(Duration::from_millis(3)));
                }
            }
            "event" => {
                let value = self.value();
                draft.statements.push(Statement::Event(format!("w{value}")));
                draft.sql(format!(
                    "insert into sync_updates (customer_id, document, update) values ('{}', 'doc{value}', '\\x00ff')",
                    self.world.tenant
                ));
                return;
            }
            _ => {}
        }
        draft
            .sql(format!("update vehicles set odometer_m = odometer_m + 1 where id = '{vehicle}'"));
        draft.effects.push(Effect::Odometer(vehicle, 1));
    }

    /// Rows that hang on others: what cascades do, and unique values that
    /// change hands.
    fn add_nested(&mut self, kind: &str, draft: &mut Draft) {
        let t = self.world.tenant;
        match kind {
            "nest" => {
                let (vehicle, driver) = (Uuid::new_v4(), Uuid::new_v4());
                draft.sql(format!(
                    "insert into vehicles (id, customer_id, name, plate, device_id) \
                     values ('{vehicle}', '{t}', 'nest', '{vehicle}', '{vehicle}')"
                ));
                draft.fact(VEHICLES, vehicle, Some(vehicle.to_string()));
                for _ in 0..2 {
                    let route = Uuid::new_v4();
                    draft.sql(format!(
                        "insert into routes (id, customer_id, vehicle_id, name) values ('{route}', '{t}', '{vehicle}', 'r')"
                    ));
                    draft.fact(ROUTES, route, Some(vehicle.to_string()));
                }
                draft.sql(format!(
                    "insert into drivers (id, customer_id, vehicle_id, name) values ('{driver}', '{t}', '{vehicle}', 'd')"
                ));
                draft.fact(DRIVERS, driver, Some(vehicle.to_string()));
            }
            "nest felled" => {
                let Some((vehicle, _)) = self.some_fact(VEHICLES) else { return };
                draft.sql(format!("delete from vehicles where id = '{vehicle}'"));
                for (route, of) in self.ledger.present(ROUTES) {
                    if of == vehicle {
                        draft.fact(ROUTES, route, None);
                    }
                }
                for (driver, of) in self.ledger.present(DRIVERS) {
                    if of == vehicle {
                        draft.fact(DRIVERS, driver, Some(String::new()));
                    }
                }
                draft.fact(VEHICLES, vehicle, None);
            }
            "zone" => {
                let (code, rank) =
                    (Uuid::new_v4().to_string(), self.random.random_range(0..i64::MAX));
                draft.sql(format!("insert into zones values ('{t}', '{code}', {rank})"));
                for _ in 0..3 {
                    let visit = Uuid::new_v4();
                    draft.sql(format!(
                        "insert into zone_visits values ('{visit}', '{t}', '{code}')"
                    ));
                    draft.fact(VISITS, visit, Some(code.clone()));
                }
                draft.fact(ZONES, code, Some(rank.to_string()));
            }
            "zone renamed" | "zone dropped" => {
                let Some((code, rank)) = self.some_fact(ZONES) else { return };
                let fresh = (kind == "zone renamed").then(|| Uuid::new_v4().to_string());
                draft.sql(match &fresh {
                    Some(fresh) => format!(
                        "update zones set code = '{fresh}' where customer_id = '{t}' and code = '{code}'"
                    ),
                    None => {
                        format!("delete from zones where customer_id = '{t}' and code = '{code}'")
                    }
                });
                for (visit, of) in self.ledger.present(VISITS) {
                    if of == code {
                        draft.fact(VISITS, visit, fresh.clone());
                    }
                }
                draft.fact(ZONES, code, None);
                if let Some(fresh) = fresh {
                    draft.fact(ZONES, fresh, Some(rank));
                }
            }
            _ => self.add_swap(draft),
        }
    }

    /// Two rows exchange a value of a unique key.
    fn add_swap(&mut self, draft: &mut Draft) {
        let t = self.world.tenant;
        let (table, column, by) = if self.random.random_bool(0.5) {
            (ZONES, "rank", "code")
        } else {
            (VEHICLES, "plate", "id")
        };
        let (Some(one), Some(other)) = (self.some_fact(table), self.some_fact(table)) else {
            return;
        };
        if one.0 == other.0 {
            return;
        }
        let meanwhile = -self.random.random_range(1..i64::MAX);
        for (key, value) in
            [(&one.0, meanwhile.to_string()), (&other.0, one.1.clone()), (&one.0, other.1.clone())]
        {
            draft.sql(format!(
                "update {} set {column} = '{value}' where customer_id = '{t}' and {by} = '{key}'",
                table.name
            ));
        }
        draft.fact(table, &one.0, Some(other.1));
        draft.fact(table, &other.0, Some(one.1));
    }

    fn recorded_at(&self, key: Uuid) -> String {
        format!("timestamptz '{}' - interval '1 second' * {}", self.world.midnight, age(key))
    }

    fn insert(&self, key: Uuid, value: i32, tail: &str) -> String {
        format!(
            "insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, altitude, location) \
             values ('{key}', '{}', '{}', {}, 50, 8, {value}, \
             st_setsrid(st_makepoint(8, {value} * 1e-6), 4326)) {tail}",
            self.world.tenant,
            self.world.vehicles[value.unsigned_abs() as usize % self.world.vehicles.len()],
            self.recorded_at(key),
        )
    }

    fn value(&mut self) -> i32 {
        self.next += 1;
        self.next
    }

    fn some_vehicle(&mut self) -> Uuid {
        let at = self.random.random_range(0..self.world.vehicles.len());
        self.world.vehicles[at]
    }

    fn some_key(&mut self, wanted: impl Fn(Expect) -> bool) -> Option<(Uuid, Expect)> {
        let positions = self.ledger.positions.iter();
        let fitting: Vec<_> = positions.filter(|(_, expect)| wanted(**expect)).collect();
        if fitting.is_empty() {
            return None;
        }
        let (key, expect) = fitting.get(self.random.random_range(0..fitting.len()))?;
        Some((**key, **expect))
    }

    fn some_fact(&mut self, table: FactTable) -> Option<(String, String)> {
        let mut present = self.ledger.present(table);
        if present.is_empty() {
            return None;
        }
        let at = self.random.random_range(0..present.len());
        Some(present.swap_remove(at))
    }

    fn hand_over(&self, key: Uuid, to: Uuid, vehicle: Uuid) -> String {
        format!(
            "update gps_positions set customer_id = '{to}', vehicle_id = '{vehicle}' where id = '{key}'"
        )
    }

    pub(super) fn event(&self, kind: &str) -> String {
        format!(
            "insert into {} (customer_id, kind) values ('{}', '{kind}') returning seq",
            EVENTS.name, self.world.tenant
        )
    }
}
