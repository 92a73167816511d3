//! GPS points without the application's metrics: a fallback.
//!
//! The application's counter is the truth, since it counts what was accepted
//! when it was accepted. Where there is none, the database can tell how many
//! stored points bear a time of theirs within a window: an index by
//! (customer_id, time) counts a window of seconds without touching the rest of
//! the series. A window is counted once, some time after its end. What devices
//! deliver later than that is missed, and what a move copies is not counted
//! for a tenant that does not live here yet. So the figure is a lower bound,
//! and is marked `attributed` like every estimate.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::catalog::{Points, unsigned};
use super::session::describe;

const WINDOW_S: u64 = 10;

/// How long after its end a window is counted.
const SETTLE_S: u64 = 20;

/// A window that was missed for longer is given up: after an absence of the
/// database one count must not read an hour of points.
const MAX_WINDOWS: u64 = 30;

/// The points of closed windows so far.
#[derive(Debug, Default)]
pub(super) struct PointsCounter {
    /// Counted up to here, in whole windows of Unix time.
    counted_to: Option<u64>,
    pub(super) totals: BTreeMap<TenantId, u64>,
}

/// The windows to count now: from the first to before the second; `None` when
/// none has closed.
fn due(counted_to: Option<u64>, now_s: u64) -> (u64, Option<(u64, u64)>) {
    let closed = now_s.saturating_sub(SETTLE_S) / WINDOW_S;
    match counted_to {
        // The first look only sets the mark to count from.
        None => (closed, None),
        Some(done) if done >= closed => (done, None),
        Some(done) => (closed, Some((done.max(closed.saturating_sub(MAX_WINDOWS)), closed))),
    }
}

impl PointsCounter {
    /// Counts the windows that have closed. `now_s`: Unix time.
    pub(super) async fn take(
        &mut self,
        client: &Client,
        table: &Points,
        tenants: &[Uuid],
        now_s: u64,
    ) -> Result<(), String> {
        let (mark, windows) = due(self.counted_to, now_s);
        if let Some((from, to)) = windows {
            let time = &table.time;
            let statement = format!(
                "select customer_id, count(*) from {} where customer_id = any($1)
                 and {time} >= to_timestamp($2::float8) and {time} < to_timestamp($3::float8)
                 group by customer_id",
                table.sql
            );
            // Seconds of our age are exact in a float.
            #[allow(clippy::cast_precision_loss)]
            let bounds = ((from * WINDOW_S) as f64, (to * WINDOW_S) as f64);
            let rows = client
                .query(&statement, &[&tenants, &bounds.0, &bounds.1])
                .await
                .map_err(|error| describe(&error))?;
            for row in rows {
                *self.totals.entry(TenantId(row.get(0))).or_default() += unsigned(row.get(1));
            }
        }
        self.counted_to = Some(mark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted_once_and_late() {
        assert_eq!(due(None, 1_000), (98, None), "the first look counts nothing");
        assert_eq!(due(Some(98), 1_009), (98, None));
        assert_eq!(due(Some(98), 1_010), (99, Some((98, 99))));
        assert_eq!(due(Some(98), 10_000), (998, Some((968, 998))), "at most five minutes back");
        assert_eq!(due(Some(98), 10), (98, None), "a clock that was set back counts nothing twice");
    }
}
