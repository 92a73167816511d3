//! The book after a restart, and what it learns from history once an hour.

use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use tokio_util::sync::CancellationToken;
use webhost_proto::ids::{NodeId, TenantId};

use super::book::Book;
use super::sample::{Metric, Sample};
use super::tenant::HOUR_US;
use crate::store::usage::{self, HourKey, Hourly};
use crate::store::{Store, StoreError};

/// The roll-up that one sample adds to.
pub fn hourly(tenant: TenantId, node: NodeId, sample: &Sample, at_us: i64) -> (HourKey, Hourly) {
    let start = at_us.div_euclid(HOUR_US) * HOUR_US;
    // Times are clamped to the clock before they come here, so they are in
    // jiff's range.
    let hour = Timestamp::from_microsecond(start).unwrap_or(Timestamp::UNIX_EPOCH);
    let row = Hourly {
        cpu_us: sample.or_zero(Metric::CpuUs),
        gps_points: sample.or_zero(Metric::GpsPoints),
        api_calls: sample.or_zero(Metric::ApiCalls),
        api_errors: sample.or_zero(Metric::ApiErrors),
        request_duration_us: sample.or_zero(Metric::RequestDurationUs),
        batch_operations: sample.or_zero(Metric::BatchOperations),
        realtime_operations: sample.or_zero(Metric::RealtimeOperations),
        memory_bytes_max: sample.or_zero(Metric::MemoryBytes),
        storage_bytes: sample.or_zero(Metric::StorageBytes),
        db_connections_max: sample.or_zero(Metric::DbConnections),
        client_connections_max: sample.or_zero(Metric::ClientConnections),
        vehicles: sample.or_zero(Metric::Vehicles),
        attributed: sample.any_attributed(),
    };
    (HourKey { tenant, node, hour }, row)
}

/// Fills an empty book from the roll-ups of the last 7 days.
///
/// # Errors
/// [`StoreError`]; the book may be half full then.
pub async fn reload(store: &Store, book: &Book, now: Timestamp) -> Result<usize, StoreError> {
    let client = store.client().await?;
    let since = now - (7 * 24).hours();
    let rows = usage::since(&**client, since).await?;
    book.restore(&rows);
    book.set_months(&usage::months(&**client, now).await?);
    Ok(rows.len())
}

/// Once an hour: growth from history, tenants that are gone forgotten.
pub async fn keep(store: Store, book: Arc<Book>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
        let now = Timestamp::now();
        book.forget(now.as_microsecond() - 8 * 24 * HOUR_US);
        let months = async {
            let client = store.client().await?;
            usage::months(&**client, now).await
        };
        match months.await {
            Ok(months) => book.set_months(&months),
            Err(error) => tracing::warn!(%error, "growth was not computed; again in an hour"),
        }
    }
}
