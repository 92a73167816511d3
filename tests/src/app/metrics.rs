//! What the application counts per customer, as a Prometheus page.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// Upper bounds of the histograms' buckets, in microseconds.
const BOUNDS_US: [u64; 11] = [
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// A session counts as connected for this long after its last request.
const CONNECTED: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Histogram {
    buckets: [u64; BOUNDS_US.len()],
    sum_us: u64,
    count: u64,
}

/// One number of a tenant's series.
type Count = fn(&Tenant) -> u64;

/// One histogram of a tenant's series.
type Durations = fn(&Tenant) -> &Histogram;

impl Histogram {
    fn observe(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS_US) {
            *bucket += u64::from(us <= bound);
        }
        self.sum_us = self.sum_us.saturating_add(us);
        self.count += 1;
    }

    fn render(&self, page: &mut String, name: &str, customer: &Uuid) {
        for (count, bound) in self.buckets.iter().zip(BOUNDS_US) {
            line(
                page,
                format_args!(
                    "{name}_bucket{{customer_id=\"{customer}\",le=\"{}\"}} {count}",
                    seconds(bound)
                ),
            );
        }
        let (sum, count) = (seconds(self.sum_us), self.count);
        line(page, format_args!("{name}_bucket{{customer_id=\"{customer}\",le=\"+Inf\"}} {count}"));
        line(page, format_args!("{name}_sum{{customer_id=\"{customer}\"}} {sum}"));
        line(page, format_args!("{name}_count{{customer_id=\"{customer}\"}} {count}"));
    }
}

#[derive(Default)]
struct Tenant {
    gps_points: u64,
    calls: u64,
    errors: u64,
    batch: u64,
    realtime: u64,
    requests: Histogram,
    uploads: Histogram,
    sessions: HashMap<String, Instant>,
}

/// All counters of one instance.
#[derive(Default)]
pub struct Metrics {
    tenants: Mutex<BTreeMap<Uuid, Tenant>>,
}

impl Metrics {
    fn with(&self, customer: Uuid, change: impl FnOnce(&mut Tenant)) {
        // A panic elsewhere leaves counters that are still whole.
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        change(tenants.entry(customer).or_default());
    }

    /// An upload of a device was accepted.
    pub fn uploaded(&self, customer: Uuid, points: u64, took: Duration) {
        self.with(customer, |tenant| {
            tenant.gps_points += points;
            tenant.realtime += 1;
            tenant.uploads.observe(took);
        });
    }

    /// History was imported; it is no live ingest and counts as a batch.
    pub fn imported(&self, customer: Uuid) {
        self.with(customer, |tenant| tenant.batch += 1);
    }

    /// An API call ended.
    pub fn called(
        &self,
        customer: Uuid,
        session: Option<&str>,
        failed: bool,
        took: Duration,
        now: Instant,
    ) {
        self.with(customer, |tenant| {
            tenant.calls += 1;
            tenant.errors += u64::from(failed);
            tenant.requests.observe(took);
            if let Some(session) = session {
                tenant.sessions.insert(session.to_owned(), now);
            }
        });
    }

    /// The Prometheus page.
    pub fn render(&self, now: Instant) -> String {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        for tenant in tenants.values_mut() {
            tenant.sessions.retain(|_, seen| now.duration_since(*seen) < CONNECTED);
        }
        let mut page = String::new();
        let series: [(&str, &str, Count); 6] = [
            ("webhost_gps_points_total", "counter", |tenant| tenant.gps_points),
            ("webhost_api_calls_total", "counter", |tenant| tenant.calls),
            ("webhost_api_errors_total", "counter", |tenant| tenant.errors),
            ("webhost_batch_operations_total", "counter", |tenant| tenant.batch),
            ("webhost_realtime_operations_total", "counter", |tenant| tenant.realtime),
            ("webhost_connected_clients", "gauge", |tenant| tenant.sessions.len() as u64),
        ];
        for (name, kind, value) in series {
            line(&mut page, format_args!("# TYPE {name} {kind}"));
            for (customer, tenant) in tenants.iter() {
                line(
                    &mut page,
                    format_args!("{name}{{customer_id=\"{customer}\"}} {}", value(tenant)),
                );
            }
        }
        let histograms: [(&str, Durations); 2] = [
            ("webhost_request_duration_seconds", |tenant| &tenant.requests),
            ("webhost_upload_duration_seconds", |tenant| &tenant.uploads),
        ];
        for (name, histogram) in histograms {
            line(&mut page, format_args!("# TYPE {name} histogram"));
            for (customer, tenant) in tenants.iter() {
                histogram(tenant).render(&mut page, name, customer);
            }
        }
        page
    }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _infallible = page.write_fmt(text);
    page.push('\n');
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_each_customer_apart() {
        let metrics = Metrics::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let now = Instant::now();
        metrics.uploaded(one, 20, Duration::from_millis(3));
        metrics.called(two, Some("s1"), true, Duration::from_millis(300), now);
        let page = metrics.render(now);
        for expected in [
            format!("webhost_gps_points_total{{customer_id=\"{one}\"}} 20"),
            format!("webhost_gps_points_total{{customer_id=\"{two}\"}} 0"),
            format!("webhost_api_errors_total{{customer_id=\"{two}\"}} 1"),
            format!("webhost_connected_clients{{customer_id=\"{two}\"}} 1"),
            format!("webhost_request_duration_seconds_sum{{customer_id=\"{two}\"}} 0.300000"),
            format!(
                "webhost_request_duration_seconds_bucket{{customer_id=\"{two}\",le=\"0.250000\"}} 0"
            ),
            format!(
                "webhost_request_duration_seconds_bucket{{customer_id=\"{two}\",le=\"0.500000\"}} 1"
            ),
            format!("webhost_request_duration_seconds_count{{customer_id=\"{one}\"}} 0"),
        ] {
            assert!(page.lines().any(|line| line == expected), "{expected} is not in\n{page}");
        }
        let later = metrics.render(now + CONNECTED);
        assert!(later.contains(&format!("webhost_connected_clients{{customer_id=\"{two}\"}} 0")));
    }
}
