//! One interval of one tenant, and how it is read from a report.

use std::collections::BTreeSet;

use webhost_proto::ids::TenantId;
use webhost_proto::wire;

use super::tenant::DAY_US;

/// A metric that the book keeps. Histogram buckets are not among them yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    CpuUs,
    GpsPoints,
    ApiCalls,
    ApiErrors,
    RequestDurationUs,
    BatchOperations,
    RealtimeOperations,
    Queries,
    MemoryBytes,
    StorageBytes,
    DbConnections,
    DbConnectionsActive,
    ClientConnections,
    Vehicles,
    /// Seconds since the Unix epoch.
    OldestPoint,
}

/// How many metrics there are.
pub const METRICS: usize = 15;

impl Metric {
    /// All, in the order of their index.
    pub const ALL: [Self; METRICS] = [
        Self::CpuUs,
        Self::GpsPoints,
        Self::ApiCalls,
        Self::ApiErrors,
        Self::RequestDurationUs,
        Self::BatchOperations,
        Self::RealtimeOperations,
        Self::Queries,
        Self::MemoryBytes,
        Self::StorageBytes,
        Self::DbConnections,
        Self::DbConnectionsActive,
        Self::ClientConnections,
        Self::Vehicles,
        Self::OldestPoint,
    ];

    fn from_wire(metric: wire::Metric) -> Option<Self> {
        Some(match metric {
            wire::Metric::CpuUs => Self::CpuUs,
            wire::Metric::GpsPoints => Self::GpsPoints,
            wire::Metric::ApiCalls => Self::ApiCalls,
            wire::Metric::ApiErrors => Self::ApiErrors,
            wire::Metric::RequestDurationUs => Self::RequestDurationUs,
            wire::Metric::BatchOperations => Self::BatchOperations,
            wire::Metric::RealtimeOperations => Self::RealtimeOperations,
            wire::Metric::MemoryBytes => Self::MemoryBytes,
            wire::Metric::StorageBytes => Self::StorageBytes,
            wire::Metric::DbConnections => Self::DbConnections,
            wire::Metric::DbConnectionsActive => Self::DbConnectionsActive,
            wire::Metric::ClientConnections => Self::ClientConnections,
            wire::Metric::Vehicles => Self::Vehicles,
            wire::Metric::Queries => Self::Queries,
            wire::Metric::OldestPoint => Self::OldestPoint,
            _ => return None,
        })
    }
}

/// A set of metrics, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricSet(u16);

impl MetricSet {
    /// Adds one.
    pub fn insert(&mut self, metric: Metric) {
        self.0 |= 1 << metric as u16;
    }

    /// Takes one out.
    pub fn remove(&mut self, metric: Metric) {
        self.0 &= !(1 << metric as u16);
    }

    /// Whether it is in.
    pub fn contains(self, metric: Metric) -> bool {
        self.0 & (1 << metric as u16) != 0
    }

    /// Whether nothing is in.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What one tenant did in one interval: counters are increases, gauges are
/// values. A metric outside `present` was not seen, which is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    values: [u64; METRICS],
    present: MetricSet,
    attributed: MetricSet,
}

impl Sample {
    /// The value, where it was seen.
    pub fn get(&self, metric: Metric) -> Option<u64> {
        self.present.contains(metric).then(|| self.values[metric as usize])
    }

    /// The same as it is kept: of the oldest point its age at `at_us`, in whole
    /// days, which doesn't grow when it is told no more; none while there is no
    /// point.
    pub fn kept(&self, metric: Metric, at_us: i64) -> Option<u64> {
        let value = self.get(metric)?;
        if metric != Metric::OldestPoint {
            return Some(value);
        }
        let told_us = i64::try_from(value).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let age_us = at_us.saturating_sub(told_us).max(0);
        (value > 0).then(|| age_us.unsigned_abs() / DAY_US.unsigned_abs())
    }

    /// The value, or 0.
    pub fn or_zero(&self, metric: Metric) -> u64 {
        self.get(metric).unwrap_or(0)
    }

    /// Sets a value; `attributed` says that it was split from a shared
    /// process. A value that is there already is added to: a tenant may have
    /// a container of its own and a share of a process.
    pub fn set(&mut self, metric: Metric, value: u64, attributed: bool) {
        let slot = &mut self.values[metric as usize];
        *slot = if self.present.contains(metric) { slot.saturating_add(value) } else { value };
        self.present.insert(metric);
        if attributed {
            self.attributed.insert(metric);
        }
    }

    /// One of `parts` equal parts of the interval: of counters its share, so that
    /// all of them add up; gauges as they are.
    pub fn share(&self, part: u64, parts: u64) -> Self {
        let mut share = self.clone();
        for value in &mut share.values[..Metric::MemoryBytes as usize] {
            let upto = |part: u64| u128::from(*value) * u128::from(part) / u128::from(parts.max(1));
            *value = u64::try_from(upto(part + 1) - upto(part)).unwrap_or(u64::MAX);
        }
        share
    }

    /// Whether the value was split from a shared process.
    pub fn is_attributed(&self, metric: Metric) -> bool {
        self.attributed.contains(metric)
    }

    /// Whether any value was.
    pub fn any_attributed(&self) -> bool {
        !self.attributed.is_empty()
    }
}

/// The tenants that columns refer to, by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dictionary {
    pub version: u32,
    pub tenants: Vec<TenantId>,
}

impl Dictionary {
    /// Reads a dictionary.
    ///
    /// # Errors
    /// What is wrong with which entry.
    pub fn from_wire(wire: &wire::TenantDictionary) -> Result<Self, String> {
        let mut seen = BTreeSet::new();
        let mut tenants = Vec::with_capacity(wire.tenants.len());
        for entry in &wire.tenants {
            let id = TenantId::from_wire(&entry.tenant_id).map_err(|error| error.to_string())?;
            if !seen.insert(id) {
                return Err(format!("the dictionary names tenant {id} twice"));
            }
            tenants.push(id);
        }
        Ok(Self { version: wire.version, tenants })
    }
}

/// Reads the columns of a report: one sample a dictionary entry, in the
/// dictionary's order.
///
/// # Errors
/// What is wrong with which column.
pub fn decode<'a>(
    columns: impl IntoIterator<Item = &'a wire::Column>,
    dictionary: &Dictionary,
) -> Result<Vec<Sample>, String> {
    let count = dictionary.tenants.len();
    let mut samples = vec![Sample::default(); count];
    for column in columns {
        // A metric of a newer agent is skipped; histogram buckets are not
        // kept here.
        let Some(metric) = wire::Metric::try_from(column.metric).ok().and_then(Metric::from_wire)
        else {
            continue;
        };
        let attributed = column.basis == wire::Basis::Attributed as i32;
        let mut values = column.values.iter();
        for (position, sample) in samples.iter_mut().enumerate() {
            let present = column.present.is_empty()
                || column
                    .present
                    .get(position / 8)
                    .is_some_and(|byte| byte & (1 << (position % 8)) != 0);
            if present {
                let value = values.next().ok_or_else(|| {
                    format!("column {metric:?} has {} values for more tenants", column.values.len())
                })?;
                sample.set(metric, *value, attributed);
            }
        }
        if values.next().is_some() {
            return Err(format!(
                "column {metric:?} has {} values for {count} tenants",
                column.values.len()
            ));
        }
    }
    Ok(samples)
}

/// A measured sample, for tests.
#[cfg(test)]
pub(crate) fn sample(values: &[(Metric, u64)]) -> Sample {
    let mut sample = Sample::default();
    for (metric, value) in values {
        sample.set(*metric, *value, false);
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary(count: u8) -> Dictionary {
        let tenants = (1..=count)
            .map(|n| wire::DictionaryTenant { tenant_id: vec![n; 16], slug: String::new() })
            .collect();
        Dictionary::from_wire(&wire::TenantDictionary { version: 1, tenants }).expect("reads")
    }

    fn column(metric: wire::Metric, present: &[u8], values: &[u64]) -> wire::Column {
        wire::Column {
            metric: metric.into(),
            basis: wire::Basis::Attributed.into(),
            present: present.to_vec(),
            values: values.to_vec(),
            ..wire::Column::default()
        }
    }

    #[test]
    fn columns_spread_over_the_dictionary() {
        let columns = [
            column(wire::Metric::GpsPoints, &[], &[1, 2, 3]),
            column(wire::Metric::Vehicles, &[0b101], &[7, 9]),
        ];
        let samples = decode(&columns, &dictionary(3)).expect("decodes");
        let points: Vec<_> = samples.iter().map(|s| s.get(Metric::GpsPoints)).collect();
        assert_eq!(points, [Some(1), Some(2), Some(3)]);
        let vehicles: Vec<_> = samples.iter().map(|s| s.get(Metric::Vehicles)).collect();
        assert_eq!(vehicles, [Some(7), None, Some(9)]);
        assert!(samples[0].is_attributed(Metric::Vehicles));
        assert_eq!(samples[0].get(Metric::CpuUs), None, "not seen is not zero");
    }

    #[test]
    fn the_oldest_point_is_kept_as_its_age() {
        let day = 86_400;
        let told = |value| {
            let mut sample = Sample::default();
            sample.set(Metric::OldestPoint, value, false);
            sample
        };
        let at_us = 400 * day * 1_000_000;
        for (told_s, days) in
            [(0, None), (1, Some(399)), (370 * 86_400, Some(30)), (u64::MAX, Some(0))]
        {
            assert_eq!(told(told_s).kept(Metric::OldestPoint, at_us), days, "{told_s}");
        }
        assert_eq!(told(1).kept(Metric::Vehicles, at_us), None);
    }

    #[test]
    fn columns_that_do_not_fit_are_refused() {
        for (present, values) in [(&[][..], &[1, 2][..]), (&[], &[1, 2, 3, 4]), (&[1], &[1, 2])] {
            let columns = [column(wire::Metric::CpuUs, present, values)];
            let error = decode(&columns, &dictionary(3)).expect_err("must be refused");
            assert!(error.contains("CpuUs"), "{error}");
        }
    }

    #[test]
    fn a_dictionary_names_each_tenant_once() {
        let twice = wire::DictionaryTenant { tenant_id: vec![1; 16], slug: String::new() };
        let wire = wire::TenantDictionary { version: 1, tenants: vec![twice.clone(), twice] };
        assert!(Dictionary::from_wire(&wire).expect_err("refused").contains("twice"));
    }
}
