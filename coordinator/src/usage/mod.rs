//! Usage: what agents report, kept so that decisions can be made of it.
//!
//! A report is one interval of one node. Its way: [`sample`] reads it against
//! the node's dictionary; [`ingest`] checks which of its tenants the node may
//! speak of, and writes the cursor and the hour's roll-ups in one transaction;
//! then, and only then, [`book`] takes it in and the agent is answered. So a
//! report that comes twice, to this process or to the next, counts once, and
//! what was acknowledged is durable.
//!
//! **Invariant:** only the node where a tenant's placement is active (or is
//! reserved, and thereby becomes active) adds to that tenant's usage. A
//! target that is being filled and a kept copy add to their host only.
//!
//! **Invariant:** a tenant that is not placed on a node gains nothing from its
//! reports; the host's totals stand, and one alarm is raised.
//!
//! Beside the sums, each tenant's last minutes are kept one by one until a part
//! of twelve is over ([`part`]). [`record`] writes it into the history, from which
//! [`chart`] reads, and makes hours of it, which teach the tenant's usual day
//! ([`profile`]), which placement packs by. A crash loses the resolution of the
//! running part, never a total.
//!
//! What is kept of a tenant in memory is under a kilobyte, because there are
//! many: what decisions need, some of it rounded up ([`ring`], [`profile`]). What
//! is stored and today's sums are not rounded, and what is only shown, as the
//! last 24 hours ([`hourly`]), is read when it is asked for.
//!
//! Times are those of the report's collection, never later than the
//! coordinator's clock: a report that waited for hours in a spool counts in
//! its own hour, and an agent whose clock runs ahead moves nothing into the
//! future.

pub mod book;
pub mod chart;
pub mod days;
pub mod hourly;
mod hours;
pub mod ingest;
pub mod machine;
pub mod metrics;
pub mod minute;
pub mod node;
pub mod part;
pub mod profile;
pub mod record;
pub mod ring;
pub mod rollup;
pub mod sample;
pub mod season;
pub mod series;
pub mod tenant;

#[cfg(test)]
mod tests;

pub use book::Book;
pub use metrics::UsageMetrics;
pub use node::NodeUsage;
pub use tenant::TenantUsage;
