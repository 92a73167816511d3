//! The WebHost application's database, as its own migrations would make it:
//! our SQL, used by the demo, the tests and the benchmarks.

/// Roles, extension and grants: run as a superuser in the tenants' database,
/// any number of times.
pub const ROLES: &str = include_str!("../sql/roles.sql");

/// The schema with `gps_positions` as one plain table: run once as [`APP`].
pub const WEBHOST: &str = include_str!("../sql/webhost.sql");

/// The schema with `gps_positions` partitioned by day: run once as [`APP`].
pub const WEBHOST_PARTITIONED: &str =
    concat!(include_str!("../sql/webhost.sql"), include_str!("../sql/webhost-partitioned.sql"));

/// Two tables more, for the chaos writers: run once as [`APP`].
pub const CHAOS: &str = include_str!("../sql/webhost-chaos.sql");

/// The tenants' database.
pub const DATABASE: &str = "webhost";

/// The role that owns the schema and that the application connects as.
pub const APP: &str = "webhost_app";

/// The role of the agent and its mover; no superuser.
pub const AGENT: &str = "webhost_agent";
