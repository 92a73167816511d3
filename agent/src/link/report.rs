//! What the collectors hand to the link: one interval of this node, as plain
//! values. The link alone numbers reports and versions dictionaries.

use webhost_proto::ids::TenantId;
use webhost_proto::wire;

/// One collected interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CollectedReport {
    /// When the interval ended: microseconds since the Unix epoch, this
    /// machine's clock.
    pub collected_at_us: i64,
    /// The interval's length. Counters below are increases within it.
    pub interval_ms: u32,
    /// The tenants that the columns speak of, each once, in an order that
    /// stays the same while the set does (sorted by id, for instance): a new
    /// order is a new dictionary on the wire. The text is the slug, or empty
    /// where the sources don't know it.
    pub tenants: Vec<(TenantId, String)>,
    /// The machine's own use.
    pub host: wire::HostSample,
    /// One column for each (metric, basis, bound); no two the same.
    pub columns: Vec<CollectedColumn>,
    /// The state of each source, in a stable order.
    pub sources: Vec<wire::SourceHealth>,
    /// The file systems that matter, in a stable order.
    pub mounts: Vec<wire::Mount>,
    /// The tenants' database server, when it was read within this interval.
    pub database: Option<wire::DatabaseSample>,
    /// What is told once a minute, of tenants above; each once. Their
    /// positions are the link's to say.
    pub minutes: Vec<(TenantId, wire::TenantMinute)>,
    /// The health checks, when they were made within this interval.
    pub checks: Option<wire::HealthChecks>,
}

/// One metric of all tenants.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectedColumn {
    pub metric: wire::Metric,
    pub basis: wire::Basis,
    /// Microseconds; only for `Metric::RequestDurationBucket`, else 0.
    pub bound: u64,
    /// `values[i]` belongs to `tenants[i]`; `None` where the source has no
    /// value for that tenant. As long as `tenants`.
    pub values: Vec<Option<u64>>,
}
