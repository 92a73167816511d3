//! The last 24 hours of a tenant, as they are shown: read from the stored sums
//! when somebody asks, because nothing is decided by them.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_postgres::GenericClient;
use webhost_proto::ids::TenantId;

use super::tenant::HOUR_US;
use crate::store::{StoreError, usage};

/// One UTC hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Hour {
    /// Hours since the Unix epoch.
    pub index: i64,
    pub cpu_us: u64,
    pub gps_points: u64,
    pub api_calls: u64,
    pub memory_bytes_max: u64,
    pub client_connections_max: u64,
}

/// The 24 UTC hours up to `now`, oldest first, the running one last; what a
/// tenant did on several nodes is added up.
///
/// # Errors
/// [`StoreError`].
pub async fn read(
    client: &impl GenericClient,
    tenant: TenantId,
    now: Timestamp,
) -> Result<[Hour; 24], StoreError> {
    let last = now.as_microsecond().div_euclid(HOUR_US);
    let mut hours: [Hour; 24] = std::array::from_fn(|at| Hour {
        index: last - 23 + i64::try_from(at).unwrap_or(0),
        ..Hour::default()
    });
    let since = now.saturating_sub(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MIN);
    for (key, row) in usage::of_tenant(client, tenant, since).await? {
        let index = key.hour.as_microsecond().div_euclid(HOUR_US);
        let Some(hour) = hours.iter_mut().find(|hour| hour.index == index) else { continue };
        hour.cpu_us = hour.cpu_us.saturating_add(row.cpu_us);
        hour.gps_points = hour.gps_points.saturating_add(row.gps_points);
        hour.api_calls = hour.api_calls.saturating_add(row.api_calls);
        hour.memory_bytes_max = hour.memory_bytes_max.max(row.memory_bytes_max);
        hour.client_connections_max = hour.client_connections_max.max(row.client_connections_max);
    }
    Ok(hours)
}

/// The hours of the day (0 to 23, UTC) that reach four fifths of the busiest
/// one's work, ascending; none where nothing was done.
pub fn peak_hours(hours: &[Hour; 24]) -> Vec<u32> {
    let work = |hour: &Hour| hour.api_calls.saturating_add(hour.gps_points);
    let busiest = hours.iter().map(work).max().unwrap_or(0);
    let mut peaks: Vec<u32> = hours
        .iter()
        .filter(|hour| busiest > 0 && u128::from(work(hour)) * 5 >= u128::from(busiest) * 4)
        .filter_map(|hour| u32::try_from(hour.index.rem_euclid(24)).ok())
        .collect();
    peaks.sort_unstable();
    peaks
}
