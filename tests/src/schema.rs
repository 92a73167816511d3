//! The WebHost application's database, as its own migrations would make it:
//! our SQL, used by the demo, the tests and the benchmarks.

use webhost_coordinator::embedded;

/// Roles, extension and grants: run as a superuser in the tenants' database,
/// any number of times.
pub const ROLES: &str = include_str!("../sql/roles.sql");

/// The schema with `gps_positions` as one plain table: run once as [`APP`].
pub const WEBHOST: &str = include_str!("../sql/webhost.sql");

/// The schema with `gps_positions` partitioned by day: run once as [`APP`].
pub const WEBHOST_PARTITIONED: &str =
    concat!(include_str!("../sql/webhost.sql"), include_str!("../sql/webhost-partitioned.sql"));

/// The schema with `gps_positions` as a hypertable of TimescaleDB, which must
/// be installed: run once as [`APP`].
pub const WEBHOST_HYPERTABLE: &str =
    concat!(include_str!("../sql/webhost.sql"), include_str!("../sql/webhost-hypertable.sql"));

/// The same with a stand-in for the extension; its header says what it can't
/// show.
pub const WEBHOST_STAND_IN: &str = concat!(
    include_str!("../sql/webhost.sql"),
    include_str!("../sql/webhost-hypertable-stand-in.sql")
);

/// Two tables more, for the chaos writers: run once as [`APP`].
pub const CHAOS: &str = include_str!("../sql/webhost-chaos.sql");

/// The tenants' database.
pub const DATABASE: &str = "webhost";

/// The role that owns the schema and that the application connects as.
pub const APP: &str = "webhost_app";

/// The role of the agent and its mover; no superuser.
pub const AGENT: &str = "webhost_agent";

/// Whether TimescaleDB's files lie beside the PostgreSQL that the tests use.
/// Debian has none.
pub fn timescaledb_is_installed() -> bool {
    const CONTROL: &str = "extension/timescaledb.control";
    let Ok(bin) = embedded::binaries() else { return false };
    let Some(home) = bin.parent() else { return false };
    // Debian's place first, then those of a PostgreSQL that was built by hand.
    let debian = home
        .file_name()
        .map(|version| std::path::Path::new("/usr/share/postgresql").join(version).join(CONTROL));
    debian.is_some_and(|path| path.exists())
        || ["share", "share/postgresql"].iter().any(|share| home.join(share).join(CONTROL).exists())
}
