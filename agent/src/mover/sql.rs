//! Quoting, lock keys, and the session settings under which both databases
//! print the same value as the same text.

use webhost_proto::ids::{MoveId, TenantId};

/// The schema of everything that the mover creates.
pub const SCHEMA: &str = "webhost_fleet";

/// The settings of every session of the mover. Text forms are pinned, so that
/// equal rows print equally on both sides; the planner may not choose a scan
/// of a whole table for a handful of keys (the target has no statistics yet);
/// `jit` would compile on the artificial cost of that. A scan has one process,
/// so that a comparison leaves the tenants' statements their cores.
pub fn session_settings() -> &'static str {
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
     SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'; \
     SET standard_conforming_strings = on; SET search_path = pg_catalog, public; \
     SET client_min_messages = warning; SET row_security = off; \
     SET statement_timeout = 0; SET lock_timeout = '10s'; \
     SET idle_in_transaction_session_timeout = 0; SET jit = off; \
     SET max_parallel_workers_per_gather = 0; \
     SET client_connection_check_interval = '500ms'; \
     SET default_transaction_isolation = 'read committed'; \
     SET default_transaction_read_only = off; SET default_transaction_deferrable = off"
}

/// For sessions that look rows up by key: one way to do it, planned once.
pub const BY_KEY: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
     SET plan_cache_mode = force_generic_plan";

/// For sessions that change rows of hypertables: however many compressed rows
/// TimescaleDB must open for that, it may. Where there is no such setting,
/// nothing happens.
pub const DECOMPRESS: &str = "SELECT set_config(name, '0', false) FROM pg_settings \
     WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'";

/// `name` as an identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted identifier as a person reads it.
pub fn bare(ident: &str) -> String {
    ident.trim_matches('"').replace("\"\"", "\"")
}

/// `text` as a literal, under `standard_conforming_strings = on`.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The tenant as a typed literal.
pub fn tenant_literal(tenant: TenantId) -> String {
    format!("'{}'::pg_catalog.uuid", tenant.0)
}

/// The move as a typed literal.
pub fn move_literal(move_id: MoveId) -> String {
    format!("'{}'::pg_catalog.uuid", move_id.0)
}

/// `ARRAY[…]::text[]` of literals; a null is a null.
pub fn text_array<'a>(items: impl IntoIterator<Item = Option<&'a str>>) -> String {
    let items: Vec<String> =
        items.into_iter().map(|item| item.map_or("NULL".into(), literal)).collect();
    format!("ARRAY[{}]::pg_catalog.text[]", items.join(","))
}

/// The key log of a move.
pub fn log_table(move_id: MoveId) -> String {
    format!("{SCHEMA}.log_{}", move_id.0.simple())
}

/// Keys whose rows retention deleted on the new side of a move, and the old
/// copy keeps.
pub fn kept_table(move_id: MoveId) -> String {
    format!("{SCHEMA}.kept_{}", move_id.0.simple())
}

/// What was seen of statements that write several tenants' rows at once.
pub fn mixed_table(move_id: MoveId) -> String {
    format!("{SCHEMA}.mixed_{}", move_id.0.simple())
}

/// The guard function of one table; one tenant has one guard per table.
pub fn guard_function(tenant: TenantId, table: usize) -> String {
    format!("{SCHEMA}.guard_{}_{table}", tenant.0.simple())
}

/// One of the tenant's functions that look at the fence row alone.
pub fn fence_function(tenant: TenantId, what: &str) -> String {
    format!("{SCHEMA}.{what}_{}", tenant.0.simple())
}

/// What the tenant's triggers are called; they sort after all others.
pub fn trigger_prefix(tenant: TenantId) -> String {
    format!("zzz_webhost_fleet_{}", tenant.0.simple())
}

/// What an advisory lock protects.
#[derive(Clone, Copy)]
pub enum Lock {
    /// Writers share it, the cut-over takes it alone.
    Fence(TenantId),
    /// One mover per tenant.
    Mover(TenantId),
    /// Creating and dropping the schema.
    Schema,
}

impl Lock {
    /// The lock's key. Two tenants with one key would only wait for each
    /// other; nothing is wrong then.
    pub fn key(self) -> i64 {
        let fold = |tenant: TenantId, salt: u64| {
            let (high, low) = tenant.0.as_u64_pair();
            (high ^ low.rotate_left(17) ^ salt).cast_signed()
        };
        match self {
            Self::Fence(tenant) => fold(tenant, 0x7768_665f_6665_6e63),
            Self::Mover(tenant) => fold(tenant, 0x7768_665f_6d6f_7672),
            Self::Schema => 0x7768_665f_7363_6865_u64.cast_signed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_holds_against_quotes() {
        for (given, want) in [("plain", "\"plain\""), ("a\"b", "\"a\"\"b\"")] {
            assert_eq!(ident(given), want);
        }
        for (given, want) in [("plain", "'plain'"), ("it's", "'it''s'"), ("a\\b", "'a\\b'")] {
            assert_eq!(literal(given), want);
        }
        assert_eq!(text_array([Some("a"), None]), "ARRAY['a',NULL]::pg_catalog.text[]");
    }

    #[test]
    fn names_fit_postgres() {
        let tenant = TenantId::generate();
        assert!(trigger_prefix(tenant).len() + 2 <= 63);
        assert!(guard_function(tenant, 9999).len() - SCHEMA.len() - 1 <= 63);
        assert_ne!(Lock::Fence(tenant).key(), Lock::Mover(tenant).key());
    }
}
