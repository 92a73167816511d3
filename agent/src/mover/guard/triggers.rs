//! The SQL of guards: one function a table that guards and logs, those of the
//! tenant that look at snapshots, and the triggers that call them.

use super::through::{conditions, declarations, leave_others, log_below};
use crate::mover::error::Side;
use crate::mover::spec::Spec;
use crate::mover::sql::{self, Lock, SCHEMA};
use crate::mover::statements::TableSql;

/// Which guards a side has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Refuses unless active, and logs keys: a side that served the tenant
    /// before any switch.
    Serving,
    /// That, and refuses what began before an activation: a side that may
    /// become active. `alone` where it serves nobody else and never will.
    Coming { alone: bool },
}

impl Kind {
    /// The tails of its triggers' names, on a table and on its partitions.
    pub(super) fn tails(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Serving => (&["i", "u", "d", "t"], &["i", "u", "d"]),
            Self::Coming { alone: false } => {
                (&["i", "u", "d", "t", "xi", "xu", "xd"], &["i", "u", "d", "xi", "xu", "xd"])
            }
            Self::Coming { alone: true } => {
                (&["i", "u", "d", "t", "xi", "xu", "xd", "s"], &["i", "u", "d", "xi", "xu", "xd"])
            }
        }
    }
}

/// What the guard of a table does with a write that it lets pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    /// Appends its keys to the log of this side.
    Of(Side),
    /// Nothing: the tenant has left, and nothing passes.
    No,
}

/// The SECURITY DEFINER head that all our functions share.
fn head(name: &str, returns: &str, volatility: &str, settings: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {name}() RETURNS {returns} LANGUAGE plpgsql {volatility} SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp {settings} AS $guard$"
    )
}

/// `place` is what the refusal's DETAIL says: where to go, or "" for "here".
fn refusal(spec: &Spec, place: &str) -> String {
    format!(
        "RAISE EXCEPTION 'tenant {} is not served here (%)', coalesce(s, 'no fence row')
           USING ERRCODE = 'MG001', DETAIL = {place};",
        spec.tenant
    )
}

fn read(spec: &Spec, tail: &str) -> String {
    format!(
        "SELECT f.state, f.place INTO s, p FROM {SCHEMA}.fence f WHERE f.customer_id = {}{tail};",
        sql::tenant_literal(spec.tenant)
    )
}

/// The guard function of a table: reads the fence row as it is now.
pub(super) fn function(spec: &Spec, sql: &TableSql<'_>, number: usize, log: Log) -> String {
    // Types whose text depends on settings are pinned as in our sessions.
    let settings = if sql.table.key_columns().all(|column| stable_text(&column.cast)) {
        ""
    } else {
        "SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' \
         SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C'"
    };
    let body = match log {
        Log::Of(side) => logging(spec, sql, number, side),
        Log::No => "IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;".to_owned(),
    };
    format!(
        "{head}
         DECLARE s text; p text; {declarations}
         BEGIN
           {leave_others}
           PERFORM pg_catalog.pg_advisory_xact_lock_shared({lock});
           IF pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN
             {plain}
           ELSE
             {shared}
           END IF;
           IF s IS DISTINCT FROM 'active' THEN {refusal} END IF;
           {body}
         END $guard${began}",
        declarations = declarations(sql),
        leave_others = leave_others(sql, true),
        began = began_through(spec, sql, number),
        head = head(&sql::guard_function(spec.tenant, number), "trigger", "VOLATILE", settings),
        lock = Lock::Fence(spec.tenant).key(),
        plain = read(spec, ""),
        shared = read(spec, " FOR SHARE"),
        refusal = refusal(spec, "coalesce(p, '')"),
    )
}

/// Appends the keys of a write. On the new side a key that retention deletes
/// goes to the list of what the old copy keeps instead; any other change that
/// takes the row away strikes it off that list, so that it is carried back.
fn logging(spec: &Spec, sql: &TableSql<'_>, number: usize, side: Side) -> String {
    let append = |row: &str| {
        format!(
            "INSERT INTO {}(tab, k) VALUES ({number}, {});",
            sql::log_table(spec.move_id),
            sql.logged_key(row)
        )
    };
    let kept = sql::kept_table(spec.move_id);
    let (old, new) = (append("OLD"), append("NEW"));
    let (old_key, new_key) = (sql.logged_key("OLD"), sql.logged_key("NEW"));
    let strike = format!("DELETE FROM {kept} x WHERE x.tab = {number} AND x.k = {old_key};");
    let (delete, leave) = match side {
        Side::Source => (old.clone(), String::new()),
        Side::Target => (
            format!(
                "IF pg_catalog.current_setting('{RETENTION}', true) = 'on' THEN
                   INSERT INTO {kept}(tab, k) VALUES ({number}, {old_key}) ON CONFLICT DO NOTHING;
                 ELSE {strike} {old} END IF;"
            ),
            format!(
                "IF {new_key} IS DISTINCT FROM {old_key} OR NOT ({}) THEN {strike} END IF;",
                sql.of_tenant("NEW")
            ),
        ),
    };
    let log = sql::log_table(spec.move_id);
    let below = match side {
        Side::Source => log_below(sql, &log, None),
        Side::Target => log_below(sql, &log, Some((RETENTION, &kept))),
    };
    format!(
        "{below} IF TG_OP = 'INSERT' THEN {new} RETURN NEW;
         ELSIF TG_OP = 'DELETE' THEN {delete} RETURN OLD;
         ELSE {old} {leave} IF {new_key} IS DISTINCT FROM {old_key} THEN {new} END IF; RETURN NEW; END IF;"
    )
}

/// The setting by which a session says that what it deletes is retention's.
pub const RETENTION: &str = "webhost_fleet.retention";

/// The functions that compare the statement's snapshot with the fence row. A
/// STABLE function reads with the snapshot of the statement that fired it; the
/// VOLATILE one that it calls reads what is committed now.
///
/// A row that is written must be of a statement that began after the
/// activation. A statement that finds no row is only refused where it raced
/// with an activation, or where nobody was served yet: elsewhere it may be
/// another tenant's.
pub(super) fn checks(spec: &Spec) -> String {
    let name = |what: &str| sql::fence_function(spec.tenant, what);
    format!(
        "{row}
         DECLARE s text; p text;
         BEGIN
           {read}
           IF s IS DISTINCT FROM 'active' THEN {refusal} END IF;
           IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;
         END $guard$;
         {now}
         DECLARE s text; p text;
         BEGIN {read} RETURN s; END $guard$;
         {statement}
         DECLARE s text; p text;
         BEGIN
           PERFORM pg_catalog.pg_advisory_xact_lock_shared({lock});
           {read}
           IF s IS DISTINCT FROM 'active' AND {fresh}() IN ('active', 'standby') THEN {refusal} END IF;
           RETURN NULL;
         END $guard$;",
        row = head(&name("began"), "trigger", "STABLE", ""),
        now = head(&name("now"), "text", "VOLATILE", ""),
        statement = head(&name("statement"), "trigger", "STABLE", ""),
        fresh = name("now"),
        read = read(spec, ""),
        // Served here now, or soon: only this statement came too early.
        refusal = refusal(spec, "''"),
        lock = Lock::Fence(spec.tenant).key(),
    )
}

/// The function `began` of a table whose rows must be looked up, with what
/// ends the statement before it; empty where a trigger's WHEN does that.
fn began_through(spec: &Spec, sql: &TableSql<'_>, number: usize) -> String {
    if sql.table.membership.column().is_some() {
        return String::new();
    }
    format!(
        "; {head}
         DECLARE s text; p text; {declarations}
         BEGIN
           {leave_others}
           {read}
           IF s IS DISTINCT FROM 'active' THEN {refusal} END IF;
           IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;
         END $guard$",
        head = head(&began_name(spec, sql, number), "trigger", "STABLE", ""),
        declarations = declarations(sql),
        leave_others = leave_others(sql, false),
        read = read(spec, ""),
        refusal = refusal(spec, "''"),
    )
}

fn began_name(spec: &Spec, sql: &TableSql<'_>, number: usize) -> String {
    if sql.table.membership.column().is_some() {
        sql::fence_function(spec.tenant, "began")
    } else {
        format!("{}_began", sql::guard_function(spec.tenant, number))
    }
}

/// The function that refuses TRUNCATE.
pub(super) fn no_truncate(spec: &Spec) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql \
         SET search_path = pg_catalog, pg_temp AS $guard$ BEGIN
           RAISE EXCEPTION 'TRUNCATE of % while tenant {} moves', TG_RELID::regclass USING ERRCODE = 'MG002';
         END $guard$;",
        sql::fence_function(spec.tenant, "refuse_truncate"),
        spec.tenant,
    )
}

/// Whether a type prints the same under every setting.
fn stable_text(cast: &str) -> bool {
    matches!(
        cast,
        "uuid"
            | "smallint"
            | "integer"
            | "bigint"
            | "text"
            | "character varying"
            | "bpchar"
            | "boolean"
            | "numeric"
    )
}

/// The triggers of one table, in one transaction: one wait for its lock. The
/// guard fires first (its name sorts first), so that a write waits for a
/// cut-over before its snapshot is looked at.
pub(super) fn triggers(spec: &Spec, sql: &TableSql<'_>, number: usize, kind: Kind) -> String {
    let prefix = sql::trigger_prefix(spec.tenant);
    let name = &sql.table.name;
    let [insert, update, delete] = conditions(sql);
    // TimescaleDB clones triggers to chunks, and does not replace a clone.
    let create = |tail: &str| match sql.table.hypertable {
        None => "CREATE OR REPLACE TRIGGER".to_owned(),
        Some(_) => format!("DROP TRIGGER IF EXISTS {prefix}_{tail} ON {name}; CREATE TRIGGER"),
    };
    let row = |tail: &str, event: &str, when: &str, function: &str| {
        format!(
            "{} {prefix}_{tail} BEFORE {event} ON {name} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {function}();",
            create(tail)
        )
    };
    let statement = |tail: &str, event: &str, function: &str| {
        format!(
            "{} {prefix}_{tail} BEFORE {event} ON {name} FOR EACH STATEMENT EXECUTE FUNCTION {function}();",
            create(tail)
        )
    };
    let guard = sql::guard_function(spec.tenant, number);
    let began = began_name(spec, sql, number);
    kind.tails()
        .0
        .iter()
        .map(|tail| match *tail {
            "i" => row("i", "INSERT", &insert, &guard),
            "u" => row("u", "UPDATE", &update, &guard),
            "d" => row("d", "DELETE", &delete, &guard),
            "xi" => row("xi", "INSERT", &insert, &began),
            "xu" => row("xu", "UPDATE", &update, &began),
            "xd" => row("xd", "DELETE", &delete, &began),
            "s" => {
                statement("s", "UPDATE OR DELETE", &sql::fence_function(spec.tenant, "statement"))
            }
            _ => statement("t", "TRUNCATE", &sql::fence_function(spec.tenant, "refuse_truncate")),
        })
        .collect::<Vec<_>>()
        .join(" ")
}
