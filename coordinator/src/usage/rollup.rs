//! The book after a restart, and what it learns from history once an hour.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use tokio_postgres::GenericClient;
use tokio_util::sync::CancellationToken;
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::units::{Bytes, MilliCpu};

use super::book::Book;
use super::metrics::{self, BLEND_DAYS};
use super::profile::percentiles;
use super::record::join;
use super::sample::{Metric, Sample};
use super::series::{CONNECTIONS, CPU};
use super::tenant::{DAY_US, HOUR_US};
use crate::fleet::{Amounts, MilliConnections, MilliPoints};
use crate::store::history::{self, Percentiles, parts};
use crate::store::usage::{self, HourKey, Hourly};
use crate::store::{Store, StoreError, tenants};

/// So many days teach a tenant's usual day after a restart: what is older has
/// faded.
const PROFILE_DAYS: i64 = 28;
/// A plan has a class when so many of its tenants are known.
const CLASS_OF: usize = 10;

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

/// Fills an empty book from the roll-ups of the last 7 days, and the usual days
/// from the history; answers how many roll-ups there were. All of it is read in
/// small parts.
///
/// # Errors
/// [`StoreError`]; the book may be half full then.
pub async fn reload(store: &Store, book: &Book, now: Timestamp) -> Result<usize, StoreError> {
    let client = store.client().await?;
    // Of the last 24 hours each is needed; of a day before its sums.
    let yesterday = now.as_microsecond().div_euclid(DAY_US) - 1;
    let day = |day: i64| Timestamp::from_microsecond(day * DAY_US).unwrap_or(now);
    let (since, whole) = (day(yesterday - 6), day(yesterday));
    let rows = usage::each_since(&**client, since, whole, |some| book.restore(some)).await?;
    book.set_months(&usage::months(&**client, now).await?);
    let since = now - (PROFILE_DAYS * 24).hours();
    let mut next = since;
    history::percentiles_since(&**client, since, |(tenant, at, rows)| {
        book.teach(tenant, hour_of(at), &rows, false);
        next = next.max(at + 24.hours());
    })
    .await?;
    book.set_learned(next);
    book.learn(&**client).await?;
    book.set_classes(classes(&**client, book, now).await?);
    Ok(rows)
}

impl Book {
    /// Learns from every hour that was made since it learned last, whoever made
    /// it.
    ///
    /// # Errors
    /// [`StoreError`]; some tenants learn the hour of the error again then.
    pub async fn learn(&self, client: &impl GenericClient) -> Result<(), StoreError> {
        let Some(made) = parts::made_before(client).await? else { return Ok(()) };
        let since = self.learned();
        if made <= since {
            return Ok(());
        }
        let mut last: Option<Percentiles> = None;
        history::fives_between(client, since, made, |row| match &mut last {
            // Several wrote what they saw of this hour.
            Some((tenant, at, fives)) if (*tenant, *at) == (row.0, row.1) => {
                fives.iter_mut().zip(&row.2).for_each(|(known, more)| join(known, more));
            }
            _ => {
                let at = row.1;
                if let Some(before) = last.replace(row) {
                    let is_over = before.1 < at;
                    self.learn_hour(before, false);
                    if is_over {
                        self.set_learned(at);
                    }
                }
            }
        })
        .await?;
        if let Some(last) = last {
            self.learn_hour(last, false);
        }
        self.set_learned(made);
        Ok(())
    }

    /// Learns from the five minutes of one hour of a tenant.
    pub(super) fn learn_hour(&self, (tenant, at, fives): Percentiles, again: bool) {
        let hour = percentiles(|column| match column {
            CPU => &fives[0],
            CONNECTIONS => &fives[1],
            _ => &fives[2],
        });
        self.teach(tenant, hour_of(at), &hour.map(|value| vec![value.map(i32::from)]), again);
    }
}

fn hour_of(at: Timestamp) -> i64 {
    at.as_microsecond().div_euclid(HOUR_US)
}

/// What tenants take as a rule, by the plan that they bought: new ones are
/// charged with that, and with less of it every day.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    plans: HashMap<String, Amounts>,
    /// The plans of tenants that were reported.
    bought: HashMap<TenantId, String>,
}

impl Classes {
    /// Of one plan; none where fewer than [`CLASS_OF`] tenants are known.
    pub fn of_plan(&self, plan: &str) -> Option<Amounts> {
        self.plans.get(plan).copied()
    }

    /// Of a tenant's plan.
    pub fn of_tenant(&self, tenant: TenantId) -> Option<Amounts> {
        self.of_plan(self.bought.get(&tenant)?)
    }

    /// The 90th percentile, dimension by dimension, of what the tenants that
    /// are known for a week take.
    fn of(bought: HashMap<TenantId, String>, known: Vec<(TenantId, Amounts)>) -> Self {
        let mut by_plan: HashMap<&str, Vec<Amounts>> = HashMap::new();
        for (tenant, takes) in known {
            if let Some(plan) = bought.get(&tenant) {
                by_plan.entry(plan).or_default().push(takes);
            }
        }
        by_plan.retain(|_, all| all.len() >= CLASS_OF);
        let plans = by_plan.into_iter().map(|(plan, all)| (plan.to_owned(), p90(&all))).collect();
        Self { plans, bought }
    }
}

fn p90(all: &[Amounts]) -> Amounts {
    let arrays: Vec<_> = all.iter().map(|takes| takes.to_array()).collect();
    let of = |dimension: usize| {
        let mut values: Vec<u64> = arrays.iter().map(|array| array[dimension]).collect();
        values.sort_unstable();
        let rank = (values.len() * 9).div_ceil(10).max(1);
        values.get(rank - 1).copied().unwrap_or(0)
    };
    Amounts {
        cpu: MilliCpu(of(0)),
        memory: Bytes(of(1)),
        disk: Bytes(of(2)),
        db_connections: MilliConnections(of(3)),
        gps: MilliPoints(of(4)),
    }
}

async fn classes(
    client: &impl GenericClient,
    book: &Book,
    now: Timestamp,
) -> Result<Classes, StoreError> {
    let bought = tenants::plans(client).await?;
    let mut known = Vec::new();
    book.each(now.as_microsecond(), |usage| {
        if usage.history_days >= BLEND_DAYS {
            known.push((usage.tenant, metrics::amounts(&usage, Amounts::default())));
        }
    });
    Ok(Classes::of(bought, known))
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
        let learned = async {
            let client = store.client().await?;
            book.set_months(&usage::months(&**client, now).await?);
            book.set_classes(classes(&**client, &book, now).await?);
            Ok::<_, StoreError>(())
        };
        if let Err(error) = learned.await {
            tracing::warn!(%error, "growth and classes were not computed; again in an hour");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_90th_percentile_of_its_plan_once_ten_are_known() {
        let takes =
            |n: u64| Amounts { cpu: MilliCpu(n), disk: Bytes(100 - n), ..Amounts::default() };
        let ids: Vec<TenantId> = (0..11).map(|_| TenantId::generate()).collect();
        let bought =
            |count: usize| ids[..count].iter().map(|id| (*id, "hobby".to_owned())).collect();
        let known = || ids.iter().zip(1..).map(|(id, n)| (*id, takes(n))).collect();
        assert_eq!(Classes::of(bought(9), known()).of_plan("hobby"), None);
        let classes = Classes::of(bought(10), known());
        let class = classes.of_tenant(ids[0]).expect("a class");
        assert_eq!((class.cpu, class.disk), (MilliCpu(9), Bytes(98)));
        assert_eq!(classes.of_tenant(ids[10]), None, "its plan is not known");
    }
}
