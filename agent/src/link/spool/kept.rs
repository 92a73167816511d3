//! A report as the spool holds it: encoded, beside the tenants that its
//! columns refer to. Pure.

use std::sync::Arc;

use prost::Message;
use webhost_proto::ids::TenantId;
use webhost_proto::wire;

use super::super::columns::{from_wire, to_wire};
use super::super::report::CollectedReport;
use super::record::checksum;

/// What a report may weigh, dictionary included, below the link's limit.
const MAX_BYTES: usize = webhost_proto::MAX_MESSAGE_BYTES - 1024;

/// Tenants in the order of a report's columns.
#[derive(Debug, PartialEq)]
pub struct Dictionary {
    /// Of its content, the same in every run.
    pub key: u64,
    pub tenants: Vec<(TenantId, String)>,
}

impl Dictionary {
    /// The dictionary of these tenants.
    pub fn new(tenants: Vec<(TenantId, String)>) -> Self {
        let mut dictionary = Self { key: 0, tenants };
        let encoded = dictionary.to_wire(0).encode_to_vec();
        dictionary.key = u64::from_le_bytes(checksum(&encoded));
        dictionary
    }

    /// What [`to_wire`](Self::to_wire) made; entries that name nobody are an
    /// error of the disk, and none.
    pub fn from_wire(key: u64, wire: &wire::TenantDictionary) -> Option<Self> {
        let tenant = |tenant: &wire::DictionaryTenant| {
            Some((TenantId::from_wire(&tenant.tenant_id).ok()?, tenant.slug.clone()))
        };
        Some(Self { key, tenants: wire.tenants.iter().map(tenant).collect::<Option<_>>()? })
    }

    /// As the coordinator takes it, under `version`.
    pub fn to_wire(&self, version: u32) -> wire::TenantDictionary {
        let tenant = |(id, slug): &(TenantId, String)| wire::DictionaryTenant {
            tenant_id: id.to_wire(),
            slug: slug.clone(),
        };
        wire::TenantDictionary { version, tenants: self.tenants.iter().map(tenant).collect() }
    }
}

/// One report.
#[derive(Clone, Debug)]
pub struct Kept {
    pub collected_at_us: i64,
    pub interval_ms: u32,
    pub dictionary: Arc<Dictionary>,
    /// A `wire::Report` without epoch, sequence and dictionary.
    pub body: Vec<u8>,
}

impl Kept {
    /// Encodes a report about the tenants of `dictionary`. Never larger than
    /// the link takes: on real numbers a thousand tenants fit with all
    /// columns, and what can't fit must not end the session again and again.
    pub fn of(report: &CollectedReport, dictionary: Arc<Dictionary>) -> Self {
        let (mut wire, unfit) = to_wire(report);
        for metric in unfit {
            tracing::error!(?metric, "a column doesn't fit its tenants and is left out");
        }
        let names = dictionary.to_wire(0).encoded_len();
        if wire.encoded_len() + names > MAX_BYTES && !wire.minutes.is_empty() {
            tracing::error!(
                "a report is too large for the link; what is told by the minute is left out"
            );
            wire.minutes = Vec::new();
        }
        while wire.encoded_len() + names > MAX_BYTES
            && wire.more_columns.pop().or_else(|| wire.columns.pop()).is_some()
        {
            tracing::error!("a report is too large for the link; a column is left out");
        }
        Self {
            collected_at_us: report.collected_at_us,
            interval_ms: report.interval_ms,
            dictionary,
            body: wire.encode_to_vec(),
        }
    }

    /// Whether [`of`](Self::of) would leave nothing of this report out.
    pub fn fits(report: &CollectedReport, dictionary: &Dictionary) -> bool {
        let (wire, _) = to_wire(report);
        wire.encoded_len() + dictionary.to_wire(0).encoded_len() <= MAX_BYTES
    }

    /// The report on the wire, without epoch, sequence and dictionary.
    pub fn wire(&self) -> wire::Report {
        // It was encoded by us and its checksum is right.
        wire::Report::decode(self.body.as_slice()).unwrap_or_default()
    }

    /// The report again.
    pub fn report(&self) -> CollectedReport {
        from_wire(self.wire(), self.dictionary.tenants.clone())
    }
}
