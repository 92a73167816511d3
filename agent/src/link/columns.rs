//! Collected columns as the wire carries them, and back. Pure.

use std::collections::HashMap;

use webhost_proto::short;
use webhost_proto::wire::{self, Basis, Metric};

use super::report::{CollectedColumn, CollectedReport};

/// The report without epoch, sequence and dictionary. A column that doesn't
/// fit the tenants is a fault of its collector; it is left out and named.
pub fn to_wire(report: &CollectedReport) -> (wire::Report, Vec<Metric>) {
    let mut unfit = Vec::new();
    let (more_columns, columns) = report
        .columns
        .iter()
        .filter(|column| {
            let fits = column.values.len() == report.tenants.len();
            if !fits {
                unfit.push(column.metric);
            }
            fits
        })
        .map(|told| (short::is_later(told.metric), column(told)))
        .partition::<Vec<_>, _>(|(later, _)| *later);
    let plain = |columns: Vec<(bool, wire::Column)>| columns.into_iter().map(|(_, c)| c).collect();
    let wire = wire::Report {
        collected_at_us: report.collected_at_us,
        interval_ms: report.interval_ms,
        host: Some(report.host),
        columns: plain(columns),
        more_columns: plain(more_columns),
        sources: report.sources.clone(),
        mounts: report.mounts.clone(),
        database: report.database.clone(),
        minutes: minutes(report),
        checks: report.checks.clone(),
        ..wire::Report::default()
    };
    (wire, unfit)
}

/// The minutes with their tenants' positions; those of others go nowhere.
fn minutes(report: &CollectedReport) -> Vec<wire::TenantMinute> {
    if report.minutes.is_empty() {
        return Vec::new();
    }
    let at: HashMap<_, u32> = report.tenants.iter().map(|(id, _)| *id).zip(0..).collect();
    let minutes = report.minutes.iter();
    minutes.filter_map(|(id, told)| Some(at_position(told, *at.get(id)?))).collect()
}

fn at_position(told: &wire::TenantMinute, tenant: u32) -> wire::TenantMinute {
    wire::TenantMinute { tenant, ..told.clone() }
}

fn column(column: &CollectedColumn) -> wire::Column {
    let all = column.values.iter().all(Option::is_some);
    let mut present = Vec::new();
    if !all {
        present = vec![0_u8; column.values.len().div_ceil(8)];
        for (at, _) in column.values.iter().enumerate().filter(|(_, value)| value.is_some()) {
            if let Some(byte) = present.get_mut(at / 8) {
                *byte |= 1 << (at % 8);
            }
        }
    }
    wire::Column {
        metric: column.metric.into(),
        basis: column.basis.into(),
        present,
        values: column.values.iter().flatten().copied().collect(),
        bound: column.bound,
        ..wire::Column::default()
    }
}

/// What [`to_wire`] made of a report about `tenants`.
pub fn from_wire(
    report: wire::Report,
    tenants: Vec<(webhost_proto::ids::TenantId, String)>,
) -> CollectedReport {
    let columns = report
        .columns
        .into_iter()
        .chain(report.more_columns)
        .map(|column| {
            let mut values = column.values.iter().copied();
            let values = (0..tenants.len())
                .map(|at| {
                    let bit = column.present.get(at / 8).is_some_and(|b| b >> (at % 8) & 1 == 1);
                    (column.present.is_empty() || bit).then(|| values.next()).flatten()
                })
                .collect();
            CollectedColumn {
                metric: Metric::try_from(column.metric).unwrap_or(Metric::Unspecified),
                basis: Basis::try_from(column.basis).unwrap_or(Basis::Unspecified),
                bound: column.bound,
                values,
            }
        })
        .collect();
    let minutes = report.minutes.iter().filter_map(|told| {
        let (id, _) = tenants.get(told.tenant as usize)?;
        Some((*id, at_position(told, 0)))
    });
    CollectedReport {
        minutes: minutes.collect(),
        checks: report.checks,
        collected_at_us: report.collected_at_us,
        interval_ms: report.interval_ms,
        tenants,
        host: report.host.unwrap_or_default(),
        columns,
        sources: report.sources,
        mounts: report.mounts,
        database: report.database,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::merge::tests::any_report;
    use super::*;

    proptest! {
        #[test]
        fn the_way_there_and_back_changes_nothing(report in any_report()) {
            let (wire, unfit) = to_wire(&report);
            prop_assert!(unfit.is_empty());
            prop_assert_eq!(from_wire(wire, report.tenants.clone()), report);
        }
    }

    #[test]
    fn a_column_that_does_not_fit_is_left_out_and_named() {
        let column = CollectedColumn {
            metric: Metric::ApiCalls,
            basis: Basis::Measured,
            bound: 0,
            values: vec![Some(1)],
        };
        let report = CollectedReport { columns: vec![column], ..CollectedReport::default() };
        let (wire, unfit) = to_wire(&report);
        assert!(wire.columns.is_empty());
        assert_eq!(unfit, [Metric::ApiCalls]);
    }
}
