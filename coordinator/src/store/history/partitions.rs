//! Partitions of the history: made before something is written into them, and
//! dropped as a whole when their time is over. Minutes and five minutes have one
//! a day, hours one a month. A partition's name says what it holds.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tokio_postgres::{GenericClient, Transaction};

use super::Grain;
use crate::store::StoreError;
use crate::store::locks::Lock;

/// The partition of `grain` that holds a time: its name, its first day and the
/// first day after it.
fn partition(grain: Grain, at: Timestamp) -> (String, Date, Date) {
    let day = TimeZone::UTC.to_datetime(at).date();
    let (name, first, next) = match grain {
        Grain::Hours => {
            let first = day.first_of_month();
            (first.strftime("%Y%m"), first, first.saturating_add(1.month()))
        }
        Grain::Minutes | Grain::Fives => (day.strftime("%Y%m%d"), day, day.saturating_add(1.day())),
    };
    (format!("{}_p{name}", grain.table()), first, next)
}

/// Makes the partitions for each of `times`, where they are not there yet.
pub async fn prepare(
    tx: &Transaction<'_>,
    grain: Grain,
    times: impl IntoIterator<Item = Timestamp>,
) -> Result<(), StoreError> {
    let mut wanted: Vec<_> = times.into_iter().map(|at| partition(grain, at)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    for (name, first, next) in wanted {
        let known = tx.query_one("select to_regclass($1) is not null", &[&name]).await?;
        if known.try_get(0)? {
            continue;
        }
        tx.execute("select pg_advisory_xact_lock($1)", &[&Lock::Partitions.key()]).await?;
        let table = grain.table();
        tx.batch_execute(&format!(
            "create table if not exists {name} partition of {table}
             for values from ('{first} 00:00+00') to ('{next} 00:00+00')"
        ))
        .await?;
    }
    Ok(())
}

/// Drops the partitions whose last moment is before `before`; answers their
/// names.
pub async fn drop_before(
    tx: &Transaction<'_>,
    grain: Grain,
    before: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let (oldest, _, _) = partition(grain, before);
    let all = names(tx, grain).await?;
    // Names of one grain sort by time.
    let over: Vec<String> = all.into_iter().filter(|name| *name < oldest).collect();
    if !over.is_empty() {
        tx.execute("select pg_advisory_xact_lock($1)", &[&Lock::Partitions.key()]).await?;
    }
    for name in &over {
        tx.batch_execute(&format!("drop table if exists {name}")).await?;
    }
    Ok(over)
}

/// The first UTC day of the partitions of a grain with a partition a day that
/// have something after `after`; none where there is none.
pub(super) async fn first_day(
    client: &impl GenericClient,
    grain: Grain,
    after: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let (oldest, ..) = partition(grain, after);
    let all = names(client, grain).await?;
    let day = all.iter().find(|name| **name >= oldest).and_then(|name| {
        let day = Date::strptime("%Y%m%d", name.rsplit("_p").next()?).ok()?;
        Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    Ok(day)
}

/// The partitions that there are, oldest first.
async fn names(client: &impl GenericClient, grain: Grain) -> Result<Vec<String>, StoreError> {
    let rows = client
        .query(
            "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
             where i.inhparent = to_regclass($1) and c.relname ~ '_p[0-9]+$' order by 1",
            &[&grain.table()],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_a_day_or_a_month() {
        let at: Timestamp = "2026-12-31T23:59:59Z".parse().expect("a time");
        let check = |grain, name: &str, first: &str, next: &str| {
            let (found, from, to) = partition(grain, at);
            assert_eq!(
                (found.as_str(), from.to_string(), to.to_string()),
                (name, first.to_owned(), next.to_owned())
            );
        };
        check(Grain::Minutes, "usage_minutes_p20261231", "2026-12-31", "2027-01-01");
        check(Grain::Fives, "usage_fives_p20261231", "2026-12-31", "2027-01-01");
        check(Grain::Hours, "usage_hours_p202612", "2026-12-01", "2027-01-01");
    }
}
