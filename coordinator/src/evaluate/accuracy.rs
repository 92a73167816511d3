//! How decisions turned out, from what is stored of them.

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::GenericClient;

use crate::decide::accuracy::{Accuracy, accuracy};
use crate::decide::plans::Thresholds;
use crate::store::{StoreError, accuracy as stored};

/// Of the `days` before `now`.
///
/// # Errors
/// [`StoreError`].
pub async fn of_days(
    client: &impl GenericClient,
    thresholds: &Thresholds,
    days: u32,
    now: Timestamp,
) -> Result<Accuracy, StoreError> {
    let back = SignedDuration::from_hours(i64::from(days) * 24);
    let since = now.saturating_sub(back).unwrap_or(Timestamp::MIN);
    let stays = stored::stays(client, since).await?;
    let changes = stored::changes(client, since).await?;
    Ok(accuracy(&stays, changes, thresholds, now))
}
