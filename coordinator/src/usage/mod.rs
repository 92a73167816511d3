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
//! Beside the sums, each tenant's running hour is kept minute by minute
//! ([`series`]). When it is over it teaches the tenant's usual day ([`profile`]),
//! which placement packs by, and [`record`] writes it into the history, from
//! which [`chart`] reads. A crash loses the resolution of the running hour,
//! never a total.
//!
//! What is kept of a tenant is small, because there are many: sums of hours that
//! are over are rounded to a twentieth of a percent ([`ring`]); what is stored,
//! today's totals and the days' are not.
//!
//! Times are those of the report's collection, never later than the
//! coordinator's clock: a report that waited for hours in a spool counts in
//! its own hour, and an agent whose clock runs ahead moves nothing into the
//! future.

pub mod book;
pub mod chart;
mod hours;
pub mod ingest;
pub mod machine;
pub mod metrics;
pub mod minute;
pub mod node;
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
