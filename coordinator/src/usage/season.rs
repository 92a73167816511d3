//! How a tenant's work is spread over the week and the year. Pure, but for the
//! reading.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_postgres::GenericClient;
use webhost_proto::ids::TenantId;

use super::series::{API_CALLS, GPS};
use crate::store::StoreError;
use crate::store::history::{self, Grain};

/// The weekdays are taken from so many last days: twelve weeks.
const WEEKS_DAYS: i64 = 84;
/// Each weekday must be known so many times.
const WEEKDAY_TIMES: u64 = 4;
/// The months are taken from so many last days.
const YEAR_DAYS: i64 = 365;
/// Each month must be known for so many days.
const MONTH_TIMES: u64 = 20;

/// Shares of a tenant's work (GPS points and API calls), in thousandths. Each
/// is a mean day's, so that short months and missing days don't count as quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Season {
    /// Monday to Sunday, UTC, of the last twelve weeks; each is known at least
    /// four times.
    pub weekdays: [u16; 7],
    /// January to December, of the last 365 days; null while one of them is
    /// known for less than 20 days.
    pub months: Option<[u16; 12]>,
}

/// What the days before `today` show; both are days since the Unix epoch, and a
/// day comes with all its work. None while four weeks are not known, and where
/// nothing was done.
pub fn season(days: &BTreeMap<i64, u64>, today: i64) -> Option<Season> {
    // The epoch was a Thursday.
    let weekday = |day: i64| (day + 3).rem_euclid(7);
    let month = |day: i64| {
        let at = Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or(Timestamp::MIN);
        i64::from(TimeZone::UTC.to_datetime(at).month()) - 1
    };
    let weekdays = shares(days, (today - WEEKS_DAYS, today), WEEKDAY_TIMES, weekday)?;
    let months = shares(days, (today - YEAR_DAYS, today), MONTH_TIMES, month);
    Some(Season { weekdays, months })
}

/// The share of each of `N` kinds of day among the mean days of all kinds; none
/// where one is known less than `times`.
fn shares<const N: usize>(
    days: &BTreeMap<i64, u64>,
    (from, to): (i64, i64),
    times: u64,
    kind: impl Fn(i64) -> i64,
) -> Option<[u16; N]> {
    let (mut sums, mut counts) = ([0_u128; N], [0_u64; N]);
    for (day, work) in days.range(from..to) {
        let at = usize::try_from(kind(*day)).ok().filter(|at| *at < N)?;
        sums[at] += u128::from(*work);
        counts[at] += 1;
    }
    if counts.iter().any(|count| *count < times) {
        return None;
    }
    // In thousandths, so that a quiet tenant's means are not rounded away.
    let means: [u128; N] = std::array::from_fn(|at| sums[at] * 1000 / u128::from(counts[at]));
    let all: u128 = means.iter().sum();
    let share = |mean: u128| u16::try_from((mean * 1000 + all / 2) / all).unwrap_or(1000);
    (all > 0).then(|| means.map(share))
}

/// The season of a tenant at `now`, from the hours of its days.
///
/// # Errors
/// [`StoreError`].
pub async fn read(
    client: &impl GenericClient,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Option<Season>, StoreError> {
    let from = now.saturating_sub(SignedDuration::from_hours((YEAR_DAYS + 1) * 24));
    let from = from.unwrap_or(Timestamp::MIN);
    let mut days = BTreeMap::new();
    for column in [GPS, API_CALLS] {
        for (at, hours) in
            history::of_tenant(client, Grain::Hours, tenant, column, from, now).await?
        {
            let work = hours.iter().flatten().map(|value| u64::from(value.unsigned_abs()));
            *days.entry(at.as_second().div_euclid(86_400)).or_insert(0) += work.sum::<u64>();
        }
    }
    Ok(season(&days, now.as_second().div_euclid(86_400)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::history::Stretch;
    use crate::world::{World, catalog};

    /// Monday, 2026-11-16.
    const MONDAY: i64 = 20_773;

    fn days(from: i64, to: i64, work: impl Fn(i64) -> u64) -> BTreeMap<i64, u64> {
        (from..to).map(|day| (day, work(day))).collect()
    }

    #[test]
    fn four_weeks_show_the_week_and_a_year_the_months() {
        let busy = |day: i64| if (day - MONDAY).rem_euclid(7) < 5 { 190 } else { 25 };
        let week = |from| season(&days(from, MONDAY, busy), MONDAY);
        assert_eq!(week(MONDAY - 27), None, "a Monday is missing");
        let known = week(MONDAY - 28).expect("four weeks");
        assert_eq!(known.weekdays, [190, 190, 190, 190, 190, 25, 25]);
        assert_eq!(known.months, None);
        assert!(week(MONDAY - 364).expect("known").months.is_some());
        assert_eq!(season(&days(MONDAY - 400, MONDAY, |_| 0), MONDAY), None, "nothing was done");
        let old = days(MONDAY - 400, MONDAY - 90, |_| 1);
        assert_eq!(season(&old, MONDAY), None, "not of late");
    }

    #[test]
    fn a_month_is_its_mean_day() {
        // July, of 31 days and some unknown, is three times as busy as the rest.
        let july = 20_635..20_666;
        let all = days(MONDAY - 365, MONDAY, |day| if july.contains(&day) { 300 } else { 100 });
        let mut some = all.clone();
        some.retain(|day, _| !(20_640..20_645).contains(day));
        for days in [all, some] {
            let months = season(&days, MONDAY).expect("known").months.expect("a year");
            let wanted: [u16; 12] = std::array::from_fn(|at| if at == 6 { 214 } else { 71 });
            assert_eq!(months, wanted);
        }
    }

    #[tokio::test]
    async fn what_is_stored_of_a_tenants_days_is_its_season() {
        let world = World::new(catalog(7)).await;
        let now: Timestamp = "2026-11-16T09:00:00Z".parse().expect("a time");
        let (tenant, other) = (TenantId::generate(), TenantId::generate());
        let day = |back: i64| now - SignedDuration::from_hours(9 + back * 24);
        let row = |tenant, back, hour: i32| Stretch {
            tenant,
            at: day(back),
            values: std::array::from_fn(|column| match column {
                GPS | API_CALLS => vec![Some(hour); 24],
                _ => vec![None; 24],
            }),
            percentiles: Some(std::array::from_fn(|_| vec![None; 24])),
        };
        let mut client = world.store.client().await.expect("a client");
        let tx = (**client).transaction().await.expect("begins");
        history::prepare(&tx, Grain::Hours, (1..=28).map(day)).await.expect("prepares");
        // Of the four weeks, only Sundays (the first one yesterday) are busy.
        let busy = |back: i64| if back % 7 == 1 { 4 } else { 1 };
        let rows: Vec<Stretch> = (1..=28).map(|back| row(tenant, back, busy(back))).collect();
        history::copy(&tx, Grain::Hours, &rows).await.expect("copies");
        history::copy(&tx, Grain::Hours, &[row(other, 1, 9)]).await.expect("copies");
        tx.commit().await.expect("commits");
        let known = read(&**client, tenant, now).await.expect("reads").expect("four weeks");
        assert_eq!(known.weekdays, [100, 100, 100, 100, 100, 100, 400]);
        assert_eq!(read(&**client, other, now).await.expect("reads"), None);
    }

    proptest! {
        #[test]
        fn shares_are_of_one_whole_and_the_busier_day_has_more(
            work in prop::collection::vec(0_u64..1_000_000_000_000, 84),
        ) {
            let days: BTreeMap<i64, u64> = (MONDAY - 84..MONDAY).zip(work.iter().copied()).collect();
            let Some(known) = season(&days, MONDAY) else {
                prop_assert!(work.iter().all(|work| *work == 0));
                return Ok(());
            };
            let sum: u16 = known.weekdays.iter().sum();
            prop_assert!(sum.abs_diff(1000) <= 4, "{:?}", known.weekdays);
            let of = |at: usize| work.iter().skip(at).step_by(7).sum::<u64>();
            for at in 1..7 {
                if of(at) > of(at - 1) {
                    prop_assert!(known.weekdays[at] >= known.weekdays[at - 1]);
                }
            }
        }
    }
}
