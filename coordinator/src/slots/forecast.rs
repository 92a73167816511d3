//! The forecast of the fleet, from the days of the last four weeks.

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::GenericClient;

use super::Slots;
use crate::fleet::Policy;
use crate::fleet::forecast::{Forecast, Took, forecast};
use crate::store::{StoreError, history};

/// The same weekday of so many weeks before the last day that is known.
const WEEKS: i64 = 4;
const DAY_S: i64 = 86_400;

impl Slots {
    /// When the room of each shared node and of each place ends, as of `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forecast(
        &self,
        client: &impl GenericClient,
        now: Timestamp,
    ) -> Result<Forecast, StoreError> {
        let snapshot = self.survey(client, now).await?;
        let mut past = Vec::new();
        if let Some(last) = history::last_day(client).await? {
            let week = |back: i64| last.saturating_sub(SignedDuration::from_hours(back * 7 * 24));
            let days: Vec<Timestamp> = (0..=WEEKS).filter_map(|back| week(back).ok()).collect();
            for (tenant, at, peaks) in history::peaks_of_days(client, &days).await? {
                let [cpu, memory, disk, connections, gps] = peaks.map(i32::unsigned_abs);
                let figures = [cpu, memory, disk, connections, gps, 1];
                past.push(Took { tenant, day: at.as_second().div_euclid(DAY_S), figures });
            }
        }
        Ok(forecast(&snapshot, &Policy::of(&self.catalog), &self.catalog.shapes, &past))
    }
}
