//! One scrape of the application's page, summed per tenant. Nothing of it
//! counts before the whole page has been read: half a page would look like
//! counters that fell.

use std::collections::BTreeMap;

use webhost_proto::ids::TenantId;

use super::names::{Family, Names, Series};
use super::text;

/// Values by [`COUNTERS`]' order, then the gauges.
pub(super) const COUNTERS: usize = 8;
pub(super) const GPS_POINTS: usize = 0;
pub(super) const API_CALLS: usize = 1;
pub(super) const API_ERRORS: usize = 2;
pub(super) const BATCH_OPERATIONS: usize = 3;
pub(super) const REALTIME_OPERATIONS: usize = 4;
pub(super) const DURATION_US: usize = 5;
pub(super) const DURATION_COUNT: usize = 6;
pub(super) const QUERIES: usize = 7;

/// The most tenants and histogram bounds that a page may speak of.
const MAX_TENANTS: usize = 10_000;
const MAX_BOUNDS: usize = 40;

/// 2^53: up to here a float holds every integer exactly.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The sums of one tenant's series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PageTenant {
    pub(super) counters: [Option<u64>; COUNTERS],
    pub(super) client_connections: Option<u64>,
    pub(super) vehicles: Option<u64>,
    pub(super) oldest_point: Option<u64>,
    /// By bound, in microseconds; `u64::MAX` is +Inf.
    pub(super) buckets: BTreeMap<u64, u64>,
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus's text format, 0.0.4.
    Text,
    /// OpenMetrics: nearly the same, and it says where it ends.
    OpenMetrics,
}

impl Format {
    /// By the answer's content type; what names none is the older one.
    pub(super) fn of(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or("").trim();
        if kind.eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// A page as it is read.
#[derive(Debug)]
pub(super) struct Page<'a> {
    names: &'a Names,
    label: &'a str,
    pub(super) tenants: BTreeMap<TenantId, PageTenant>,
    pub(super) bounds: Vec<u64>,
    /// `process_start_time_seconds`, in whole milliseconds.
    pub(super) started_ms: Option<u64>,
    /// Lines that could be read at all.
    pub(super) readable: u64,
    format: Format,
    ended: bool,
    refused: u64,
    first_refused: Option<String>,
}

impl<'a> Page<'a> {
    pub(super) fn new(names: &'a Names, label: &'a str, format: Format) -> Self {
        Self {
            format,
            ended: false,
            names,
            label,
            tenants: BTreeMap::new(),
            bounds: Vec::new(),
            started_ms: None,
            readable: 0,
            refused: 0,
            first_refused: None,
        }
    }

    /// Takes one line.
    pub(super) fn line(&mut self, bytes: &[u8]) {
        let Ok(line) = std::str::from_utf8(bytes) else {
            self.refuse(|| "a line that is not UTF-8".to_owned());
            return;
        };
        if self.format == Format::OpenMetrics {
            if self.ended && !line.trim().is_empty() {
                self.refuse(|| format!("{:?}: it comes after # EOF", shortened(line)));
                return;
            }
            self.ended |= line.trim_end() == "# EOF";
        }
        let sample = match text::line(line) {
            Ok(None) => return,
            Ok(Some(sample)) => sample,
            Err(why) => {
                self.refuse(|| format!("{:?}: {why}", shortened(line)));
                return;
            }
        };
        self.readable += 1;
        let found = self.names.find(sample.name).or_else(|| match self.format {
            Format::Text => None,
            // A counter that has another name elsewhere ends in this here.
            Format::OpenMetrics => self.names.find(sample.name.strip_suffix("_total")?),
        });
        let Some(series) = found else { return };
        if let Err(why) = self.take(series, &sample) {
            self.refuse(|| format!("{} = {}: {why}", shortened(line), sample.value));
        }
    }

    fn take(&mut self, series: Series, sample: &text::Sample<'_>) -> Result<(), &'static str> {
        if series == Series::ProcessStart {
            self.started_ms = Some(whole(sample.value * 1000.0)?);
            return Ok(());
        }
        // A series without the label is the application's own sum; the
        // tenants' series are what we are after.
        let Some(label) = sample.label(self.label) else { return Ok(()) };
        let tenant: TenantId = label.parse().map_err(|_| "the label is not a tenant's id")?;
        // Checked before the tenant is entered, so that a page of garbage
        // values makes no tenants.
        let seconds = matches!(series, Series::DurationSum);
        let value = whole(if seconds { sample.value * 1e6 } else { sample.value })?;
        if self.tenants.len() >= MAX_TENANTS && !self.tenants.contains_key(&tenant) {
            return Err("more tenants than an agent takes");
        }
        let bound = match series {
            Series::DurationBucket => {
                let bound = bound(sample.label("le").ok_or("a bucket without le")?)?;
                if let Err(at) = self.bounds.binary_search(&bound) {
                    if self.bounds.len() >= MAX_BOUNDS {
                        return Err("more histogram bounds than an agent takes");
                    }
                    self.bounds.insert(at, bound);
                }
                bound
            }
            _ => 0,
        };
        let entry = self.tenants.entry(tenant).or_default();
        let slot = match series {
            Series::Plain(Family::GpsPoints) => &mut entry.counters[GPS_POINTS],
            Series::Plain(Family::ApiCalls) => &mut entry.counters[API_CALLS],
            Series::Plain(Family::ApiErrors) => &mut entry.counters[API_ERRORS],
            Series::Plain(Family::BatchOperations) => &mut entry.counters[BATCH_OPERATIONS],
            Series::Plain(Family::RealtimeOperations) => &mut entry.counters[REALTIME_OPERATIONS],
            Series::Plain(Family::Queries) => &mut entry.counters[QUERIES],
            Series::Plain(Family::OldestPoint) => {
                // Several series of one tenant (by table): the oldest of all. An
                // empty table says 0.
                if value > 0 {
                    let known = entry.oldest_point.unwrap_or(value);
                    entry.oldest_point = Some(known.min(value));
                }
                return Ok(());
            }
            Series::DurationSum => &mut entry.counters[DURATION_US],
            Series::DurationCount => &mut entry.counters[DURATION_COUNT],
            Series::Plain(Family::ClientConnections) => &mut entry.client_connections,
            Series::Plain(Family::Vehicles) => &mut entry.vehicles,
            Series::DurationBucket => {
                let sum = entry.buckets.entry(bound).or_default();
                *sum = sum.saturating_add(value);
                return Ok(());
            }
            Series::Plain(Family::RequestDuration) | Series::ProcessStart => return Ok(()),
        };
        // Several series of one tenant (by route, by method) are summed.
        *slot = Some(slot.unwrap_or(0).saturating_add(value));
        Ok(())
    }

    /// Whether a page that says where it ends has ended before that.
    pub(super) fn is_cut(&self) -> bool {
        self.format == Format::OpenMetrics && !self.ended
    }

    pub(super) fn refuse(&mut self, what: impl FnOnce() -> String) {
        self.refused += 1;
        if self.first_refused.is_none() {
            self.first_refused = Some(what());
        }
    }

    /// What was refused, in a sentence; `None` when nothing was.
    pub(super) fn refusals(&self) -> Option<String> {
        let first = self.first_refused.as_ref()?;
        Some(match self.refused {
            1 => format!("refused {first}"),
            count => format!("refused {count} values or lines, the first: {first}"),
        })
    }
}

/// A count from a float: finite, not negative, exact.
fn whole(value: f64) -> Result<u64, &'static str> {
    if value.is_nan() {
        return Err("not a number");
    }
    if value < 0.0 {
        return Err("negative");
    }
    if value > MAX_EXACT {
        return Err("too large to be exact");
    }
    // Checked above: no sign, no NaN, and within 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(value.round() as u64)
}

/// A histogram's `le`, in microseconds.
fn bound(le: &str) -> Result<u64, &'static str> {
    if le == "+Inf" || le == "Inf" {
        return Ok(u64::MAX);
    }
    let seconds: f64 = le.parse().map_err(|_| "le is not a number")?;
    if seconds == f64::INFINITY { Ok(u64::MAX) } else { whole(seconds * 1e6) }
}

fn shortened(line: &str) -> &str {
    let end = line.char_indices().nth(60).map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or(line)
}
