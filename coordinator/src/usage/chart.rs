//! One column of one tenant over time, as the history has it, with the running
//! minutes as the book has them.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_postgres::GenericClient;
use webhost_proto::ids::TenantId;

use super::book::Book;
use super::record::{Retention, join};
use super::series::{ALL, COLUMNS, Values, coarser};
use crate::store::StoreError;
use crate::store::history::{self, Grain, parts};

/// By then an hour is made of its minutes, and more.
const TAIL: SignedDuration = SignedDuration::from_hours(3);
/// The longest time that a chart shows.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(2 * 366 * 24);

/// Values over time. Null: nothing was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Chart {
    /// The column's name.
    pub metric: String,
    /// What the values are in; counts are of one step.
    pub unit: String,
    /// When the first value's step begins.
    #[schema(value_type = String)]
    pub from: Timestamp,
    /// Seconds from one value to the next: 60, 300 or 3600.
    pub step_s: i64,
    pub values: Values,
}

/// The finest history that has all of a time and shows it in at most a month of
/// five minutes.
pub fn grain(from: Timestamp, to: Timestamp, now: Timestamp, retention: &Retention) -> Grain {
    let span = to.duration_since(from);
    let kept = |grain| now.duration_since(from) <= retention.of(grain);
    if span <= SignedDuration::from_hours(24) && kept(Grain::Minutes) {
        Grain::Minutes
    } else if span <= SignedDuration::from_hours(31 * 24) && kept(Grain::Fives) {
        Grain::Fives
    } else {
        Grain::Hours
    }
}

/// Reads a chart of `from..to`, at most [`LONGEST`], as of `now`. `column` is a
/// position in [`ALL`].
///
/// # Errors
/// [`StoreError`].
pub async fn read(
    client: &impl GenericClient,
    book: &Book,
    retention: &Retention,
    tenant: TenantId,
    column: usize,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> Result<Chart, StoreError> {
    let grain = grain(from, to, now, retention);
    let mut chart = Drawn::new(grain, from, to);
    let early = |at: Timestamp, by| at.saturating_sub(by).unwrap_or(Timestamp::MIN);
    // A row begins up to its own length before what it shows.
    let before = |grain: Grain| {
        let values = i64::try_from(grain.values()).unwrap_or(0);
        early(from, SignedDuration::from_secs(grain.step_s() * values))
    };
    let fold = ALL[column].fold;
    if grain != Grain::Minutes {
        let rows = history::of_tenant(client, grain, tenant, column, before(grain), to);
        for (at, values) in rows.await? {
            chart.draw(at, &values);
        }
    }
    if grain == Grain::Hours {
        // A day has hours when it is over; until then it has five minutes.
        let since = early(now, SignedDuration::from_hours(48)).max(before(grain));
        let rows = history::of_tenant(client, Grain::Fives, tenant, column, since, to).await?;
        for (at, values) in rows {
            chart.draw(at, &coarser(&values, values.len(), fold));
        }
    }
    let since = match grain {
        Grain::Minutes => from,
        // An hour has five minutes a while after it is over.
        Grain::Fives | Grain::Hours => early(now, TAIL).max(before(Grain::Fives)),
    };
    if to > since {
        let (at, minutes) = minutes(client, book, tenant, (since, to)).await?;
        let step = usize::try_from(grain.step_s() / Grain::Minutes.step_s()).unwrap_or(1);
        chart.draw(at, &coarser(&minutes[column], step, fold));
    }
    Ok(Chart {
        metric: ALL[column].name.to_owned(),
        unit: ALL[column].unit.to_owned(),
        from: chart.from,
        step_s: grain.step_s(),
        values: chart.values,
    })
}

/// The minutes of a tenant in the whole hours of `from` to `to`, and when they
/// begin.
async fn minutes(
    client: &impl GenericClient,
    book: &Book,
    tenant: TenantId,
    (from, to): (Timestamp, Timestamp),
) -> Result<(Timestamp, [Values; COLUMNS]), StoreError> {
    let hour = |at: Timestamp| at.as_second().div_euclid(3600);
    let (first, last) = (hour(from), hour(to) + 1);
    let time = |hour: i64, else_at| Timestamp::from_second(hour * 3600).unwrap_or(else_at);
    let (from, to) = (time(first, from), time(last, to));
    let count = usize::try_from((last - first) * 60).unwrap_or(0);
    let mut minutes = std::array::from_fn(|_| vec![None; count]);
    // Before what is stored, so that few are in neither: those that are being
    // written at this moment.
    let unwritten = book.unwritten(tenant);
    let stored = parts::parts_of_tenant(client, tenant, from, to).await?;
    for part in stored.iter().chain(&unwritten) {
        part.draw(first * 60, &mut minutes);
    }
    Ok((from, minutes))
}

struct Drawn {
    from: Timestamp,
    step_s: i64,
    values: Values,
}

impl Drawn {
    fn new(grain: Grain, from: Timestamp, to: Timestamp) -> Self {
        let step_s = grain.step_s();
        let first = from.as_second().div_euclid(step_s);
        let last = (to.as_second() + step_s - 1).div_euclid(step_s);
        let from = Timestamp::from_second(first * step_s).unwrap_or(from);
        let count = usize::try_from(last - first).unwrap_or(0);
        Self { from, step_s, values: vec![None; count] }
    }

    fn draw(&mut self, at: Timestamp, values: &[Option<i32>]) {
        let first = (at.as_second() - self.from.as_second()).div_euclid(self.step_s);
        let skipped = usize::try_from(-first).unwrap_or(0).min(values.len());
        let begin = usize::try_from(first).unwrap_or(0).min(self.values.len());
        let mut there = self.values.split_off(begin);
        join(&mut there, &values[skipped..]);
        self.values.append(&mut there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_where_they_belong_and_cut_at_both_ends() {
        let at = |minute: i64| Timestamp::from_second(1_000_000 * 60 + minute * 60).expect("time");
        let mut chart = Drawn::new(Grain::Minutes, at(2), at(6));
        let row: Values = (0..4).map(Some).collect();
        chart.draw(at(0), &row);
        assert_eq!(chart.values, [Some(2), Some(3), None, None]);
        chart.draw(at(4), &row);
        assert_eq!(chart.values, [Some(2), Some(3), Some(0), Some(1)]);
        chart.draw(at(9), &row);
        chart.draw(at(-9), &row);
        assert_eq!(chart.values, [Some(2), Some(3), Some(0), Some(1)]);
    }

    #[test]
    fn the_finest_history_that_has_it_all() {
        let days = |days: i64| SignedDuration::from_hours(days * 24);
        let retention = Retention { minutes: days(1), fives: days(31), hours: days(730) };
        let now = Timestamp::from_second(1_000_000_000).expect("a time");
        let check = |ago: i64, span: i64, expected| {
            let from = now - days(ago);
            assert_eq!(grain(from, from + days(span), now, &retention), expected, "{ago} {span}");
        };
        check(1, 1, Grain::Minutes);
        check(2, 1, Grain::Fives);
        check(31, 31, Grain::Fives);
        check(32, 1, Grain::Hours);
        check(400, 400, Grain::Hours);
    }
}
