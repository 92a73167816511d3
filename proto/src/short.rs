//! Reports that leave out what the one before said.
//!
//! At one report a second most of what is said was said a second ago: a
//! tenant's storage, its vehicles, how each source is. So within a session a
//! gauge is sent as the difference to its last value, a column that did not
//! change as one bit, and the sources and file systems only when one of them
//! changes. Counters are increases already.
//!
//! Both ends keep a [`Memory`] of the stream and pass every report through
//! it, in the order of the stream: the agent [`shorten`](Memory::shorten)s,
//! the coordinator [`restore`](Memory::restore)s. Nothing beyond this module
//! sees a short report.
//!
//! **Invariant:** `restore` after `shorten`, with two memories that began
//! together, is the identity. A report that carries a dictionary is never
//! relative to an earlier one's columns, so a lost dictionary heals both.

use std::collections::BTreeMap;

use crate::wire::{Column, Metric, Mount, Report, SourceHealth};

/// The most columns of a report whose memory is kept.
pub const MAX_COLUMNS: usize = 128;
/// The most file systems of a report that are remembered.
pub const MAX_MOUNTS: usize = 32;

/// What the stream said so far, at either end of one session.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    version: u32,
    tenants: usize,
    /// Gauges alone: a counter is compared with zero.
    columns: BTreeMap<Key, Kept>,
    sources: Option<Vec<SourceHealth>>,
    mounts: Option<Vec<Mount>>,
}

type Key = (i32, i32, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    present: Vec<u8>,
    values: Vec<u64>,
}

fn key(column: &Column) -> Key {
    (column.metric, column.basis, column.bound)
}

/// Whether a metric is among those that came later, which travel apart: a
/// coordinator that doesn't know them ends a session that has them among the
/// others.
pub fn is_later(metric: Metric) -> bool {
    let number = metric as i32;
    (Metric::CpuThrottledUs as i32..Metric::MemoryBytes as i32).contains(&number)
        || number > Metric::Vehicles as i32
}

/// Whether a metric is a gauge; the wire numbers them from 20 on.
fn is_gauge(metric: i32) -> bool {
    metric >= Metric::MemoryBytes as i32
}

impl Memory {
    /// The agent's end: leaves out of `report` what the coordinator knows.
    pub fn shorten(&mut self, report: &mut Report) {
        self.turn_to(report);
        for column in report.columns.iter_mut().chain(&mut report.more_columns) {
            if is_gauge(column.metric) {
                self.shorten_gauge(column);
            } else if !column.values.is_empty() && column.values.iter().all(|value| *value == 0) {
                column.values = Vec::new();
                column.unchanged = true;
            }
        }
        if self.sources.as_ref() == Some(&report.sources) {
            report.sources = Vec::new();
            report.sources_unchanged = true;
        } else {
            self.sources = Some(report.sources.clone());
        }
        if self.mounts.as_ref() == Some(&report.mounts) {
            report.mounts = Vec::new();
            report.mounts_unchanged = true;
        } else {
            self.mounts = Some(report.mounts.clone());
        }
    }

    fn shorten_gauge(&mut self, column: &mut Column) {
        let known = self.columns.get_mut(&key(column));
        let known = known.filter(|kept| {
            kept.present == column.present && kept.values.len() == column.values.len()
        });
        let Some(kept) = known else {
            let kept = Kept { present: column.present.clone(), values: column.values.clone() };
            self.columns.insert(key(column), kept);
            return;
        };
        if kept.values == column.values {
            column.unchanged = !column.values.is_empty();
            column.values = Vec::new();
            return;
        }
        // Below 2^63 either way: values are within 2^53.
        let changes: Vec<i64> = column
            .values
            .iter()
            .zip(&kept.values)
            .map(|(now, before)| now.wrapping_sub(*before).cast_signed())
            .collect();
        kept.values.clone_from(&column.values);
        let zigzag = |change: &i64| length(((change << 1) ^ (change >> 63)).cast_unsigned());
        let short: usize = changes.iter().map(zigzag).sum();
        if short < column.values.iter().map(|value| length(*value)).sum::<usize>() {
            column.values = Vec::new();
            column.changes = changes;
        }
    }

    /// The coordinator's end: puts back what was left out. A report under a
    /// dictionary that this end doesn't hold is left as it is: it will be
    /// asked for again. `max_tenants` bounds what is kept.
    ///
    /// # Errors
    /// What refers to something that was never said; the session has to end.
    pub fn restore(&mut self, report: &mut Report, max_tenants: usize) -> Result<(), String> {
        let found = report.columns.len() + report.more_columns.len();
        if found > MAX_COLUMNS {
            return Err(format!("{found} columns, at most {MAX_COLUMNS} may be"));
        }
        if report.sources_unchanged {
            let said = self.sources.as_ref().ok_or("sources_unchanged, but none were told")?;
            report.sources.clone_from(said);
            report.sources_unchanged = false;
        } else if report.sources.len() <= MAX_COLUMNS {
            self.sources = Some(report.sources.clone());
        }
        if report.mounts_unchanged {
            let said = self.mounts.as_ref().ok_or("mounts_unchanged, but none were told")?;
            report.mounts.clone_from(said);
            report.mounts_unchanged = false;
        } else if report.mounts.len() <= MAX_MOUNTS {
            self.mounts = Some(report.mounts.clone());
        }
        self.turn_to(report);
        if self.version != report.dictionary_version || self.tenants > max_tenants {
            return Ok(());
        }
        for column in report.columns.iter_mut().chain(&mut report.more_columns) {
            self.restore_column(column, max_tenants)
                .map_err(|why| format!("metric {}: {why}", column.metric))?;
        }
        Ok(())
    }

    fn restore_column(&mut self, column: &mut Column, max_tenants: usize) -> Result<(), String> {
        let forms = usize::from(!column.values.is_empty())
            + usize::from(!column.changes.is_empty())
            + usize::from(column.unchanged);
        if forms > 1 {
            return Err("more than one of values, changes and unchanged".into());
        }
        let gauge = is_gauge(column.metric);
        if column.unchanged && !gauge {
            let ones =
                |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
            let count: usize =
                if column.present.is_empty() { self.tenants } else { ones(&column.present) };
            if count > max_tenants {
                return Err(format!("{count} values, at most {max_tenants} may be"));
            }
            column.values = vec![0; count];
        } else if column.unchanged || !column.changes.is_empty() {
            let kept = self.columns.get_mut(&key(column));
            let kept = kept.filter(|kept| gauge && kept.present == column.present);
            let kept = kept.ok_or("it refers to a column that was not told")?;
            if !column.unchanged {
                if kept.values.len() != column.changes.len() {
                    let (found, told) = (column.changes.len(), kept.values.len());
                    return Err(format!("{found} changes of {told} values"));
                }
                for (value, change) in kept.values.iter_mut().zip(&column.changes) {
                    *value = value
                        .checked_add_signed(*change)
                        .ok_or_else(|| format!("{value} changed by {change} is no value"))?;
                }
            }
            column.values.clone_from(&kept.values);
        } else if gauge && column.values.len() <= max_tenants {
            let known = self.columns.len();
            let kept = Kept { present: column.present.clone(), values: column.values.clone() };
            if known < MAX_COLUMNS || self.columns.contains_key(&key(column)) {
                self.columns.insert(key(column), kept);
            }
        }
        column.changes = Vec::new();
        column.unchanged = false;
        Ok(())
    }

    /// A dictionary, or another one's number, begins anew.
    fn turn_to(&mut self, report: &Report) {
        if let Some(dictionary) = &report.dictionary {
            self.version = dictionary.version;
            self.tenants = dictionary.tenants.len();
            self.columns.clear();
        }
    }
}

/// The bytes of a varint.
fn length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests;
