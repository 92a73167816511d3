//! The SQL of guards: one function a table, and the triggers that call it.

use crate::mover::spec::Spec;
use crate::mover::sql::{self, Lock, SCHEMA};
use crate::mover::statements::TableSql;

/// Which guard a side gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Refuses unless active, and logs keys.
    Source,
    /// Refuses what began before the activation.
    Target { alone: bool },
    /// What stays on the source: refuses unless active.
    Left,
}

/// A guard function.
pub(super) fn function(spec: &Spec, sql: &TableSql<'_>, number: usize, kind: Kind) -> String {
    let tenant = sql::tenant_literal(spec.tenant);
    let lock = Lock::Fence(spec.tenant).key();
    // Types whose text depends on settings are pinned as in our sessions.
    let settings = if sql.table.key_columns().all(|column| stable_text(&column.cast)) {
        ""
    } else {
        "SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' \
         SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C'"
    };
    let append = |row: &str| {
        format!(
            "INSERT INTO {}(tab, k) VALUES ({number}, {});",
            sql::log_table(spec.move_id),
            sql.logged_key(row)
        )
    };
    let body = if kind == Kind::Source {
        format!(
            "IF TG_OP = 'INSERT' THEN {new} RETURN NEW; \
             ELSIF TG_OP = 'DELETE' THEN {old} RETURN OLD; \
             ELSE {old} IF {new_key} IS DISTINCT FROM {old_key} THEN {new} END IF; RETURN NEW; END IF;",
            new = append("NEW"),
            old = append("OLD"),
            new_key = sql.logged_key("NEW"),
            old_key = sql.logged_key("OLD"),
        )
    } else {
        "IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;".to_owned()
    };
    let volatility = if matches!(kind, Kind::Target { .. }) { "STABLE" } else { "VOLATILE" };
    let read = if matches!(kind, Kind::Target { .. }) {
        format!(
            "SELECT f.state, f.place INTO s, p FROM {SCHEMA}.fence f WHERE f.customer_id = {tenant};"
        )
    } else {
        format!(
            "IF pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN
               SELECT f.state, f.place INTO s, p FROM {SCHEMA}.fence f WHERE f.customer_id = {tenant};
             ELSE
               SELECT f.state, f.place INTO s, p FROM {SCHEMA}.fence f WHERE f.customer_id = {tenant} FOR SHARE;
             END IF;"
        )
    };
    format!(
        "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql {volatility} SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp {settings} AS $guard$
         DECLARE s text; p text;
         BEGIN
           PERFORM pg_catalog.pg_advisory_xact_lock_shared({lock});
           {read}
           IF s IS DISTINCT FROM 'active' THEN
             RAISE EXCEPTION 'tenant {id} is not served here (%)', coalesce(s, 'no fence row')
               USING ERRCODE = 'MG001', DETAIL = coalesce(p, '');
           END IF;
           {body}
         END $guard$",
        name = sql::guard_function(spec.tenant, number),
        id = spec.tenant,
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

/// The triggers of one table, in one transaction: one wait for its lock.
pub(super) fn triggers(spec: &Spec, sql: &TableSql<'_>, number: usize, kind: Kind) -> String {
    let prefix = sql::trigger_prefix(spec.tenant);
    let function = sql::guard_function(spec.tenant, number);
    let name = &sql.table.name;
    let (old, new) = (sql.of_tenant("OLD"), sql.of_tenant("NEW"));
    let row = |tail: &str, event: &str, when: &str| {
        format!(
            "CREATE OR REPLACE TRIGGER {prefix}_{tail} BEFORE {event} ON {name} FOR EACH ROW WHEN ({when}) \
             EXECUTE FUNCTION {function}();"
        )
    };
    let statement = if (kind == Kind::Target { alone: true }) {
        format!(
            "CREATE OR REPLACE TRIGGER {prefix}_s BEFORE UPDATE OR DELETE ON {name} FOR EACH STATEMENT \
             EXECUTE FUNCTION {function}();"
        )
    } else {
        String::new()
    };
    format!(
        "{} {} {} {statement} CREATE OR REPLACE TRIGGER {prefix}_t BEFORE TRUNCATE ON {name} FOR EACH STATEMENT \
         EXECUTE FUNCTION {SCHEMA}.refuse_truncate_{}();",
        row("i", "INSERT", &new),
        row("u", "UPDATE", &format!("{old} OR {new}")),
        row("d", "DELETE", &old),
        spec.tenant.0.simple(),
    )
}
