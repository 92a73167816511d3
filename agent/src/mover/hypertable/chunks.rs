//! Where a hypertable's chunks begin and end, as text under the pinned
//! settings: exact, and the same on both sides.

use super::Hypertable;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::sql;

/// The bounds of chunks of the hypertable `$1` (quoted, with its schema). A
/// bound in time is printed as the column's type prints it; `timestamp` and
/// `date` columns have bounds that are meant as UTC, which the session is in.
const BOUNDS: &str = "
select case when c.range_start is null then c.range_start_integer::text
            when c.primary_dimension_type::text = 'timestamp with time zone' then c.range_start::text
            else (c.range_start at time zone 'UTC')::text end as starts,
       case when c.range_end is null then c.range_end_integer::text
            when c.primary_dimension_type::text = 'timestamp with time zone' then c.range_end::text
            else (c.range_end at time zone 'UTC')::text end as ends,
       c.is_compressed as compressed
from timescaledb_information.chunks c
where format('%I.%I', c.hypertable_schema, c.hypertable_name) = $1";

/// Where chunks begin, in order. In a snapshot: every row that it shows is in
/// a chunk that it shows.
pub(in crate::mover) async fn starts(
    conn: &Conn,
    table: &str,
    hypertable: &Hypertable,
) -> Result<Vec<String>, MoveError> {
    let rows = conn
        .query(
            &format!(
                "select b.starts from ({BOUNDS}) b where b.starts is not null \
                 group by 1 order by (b.starts)::{}",
                hypertable.cast
            ),
            &[&table],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Where the newest compressed chunk ends: below it, statements that change
/// rows name them one by one. None where no chunk is compressed.
pub(in crate::mover) async fn cold_until(
    conn: &Conn,
    table: &str,
    hypertable: &Hypertable,
) -> Result<Option<String>, MoveError> {
    if !hypertable.compression {
        return Ok(None);
    }
    let rows = conn
        .query(
            &format!(
                "select b.ends from ({BOUNDS}) b where b.compressed and b.ends is not null \
                 order by (b.ends)::{} desc limit 1",
                hypertable.cast
            ),
            &[&table],
        )
        .await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// A range of time: from (inclusive) and until (exclusive); none is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mover) struct Range {
    pub(in crate::mover) from: Option<String>,
    pub(in crate::mover) until: Option<String>,
}

impl Range {
    /// `AND x."recorded_at" >= … AND x."recorded_at" < …`
    pub(in crate::mover) fn filter(&self, hypertable: &Hypertable, alias: &str) -> String {
        let bound = |operator: &str, value: &Option<String>| {
            value.as_ref().map_or_else(String::new, |value| {
                format!(
                    " AND {alias}.{} {operator} {}::{}",
                    hypertable.time,
                    sql::literal(value),
                    hypertable.cast
                )
            })
        };
        format!("{}{}", bound(">=", &self.from), bound("<", &self.until))
    }
}

/// The whole axis cut where chunks begin; open at both ends, so that no row
/// is outside, whatever the chunks are.
pub(in crate::mover) fn ranges(starts: &[String]) -> Vec<Range> {
    let cuts = starts.iter().skip(1).cloned().map(Some);
    let froms = std::iter::once(None).chain(cuts.clone());
    froms.zip(cuts.chain([None])).map(|(from, until)| Range { from, until }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_whole_axis_and_meet() {
        let starts: Vec<String> = ["1", "2", "5"].iter().map(ToString::to_string).collect();
        let hypertable = Hypertable {
            time: "\"at\"".into(),
            cast: "bigint".into(),
            compression: false,
            segment_by: Vec::new(),
        };
        for (upto, want) in [
            (0, vec![""]),
            (1, vec![""]),
            (2, vec![" AND x.\"at\" < '2'::bigint", " AND x.\"at\" >= '2'::bigint"]),
            (
                3,
                vec![
                    " AND x.\"at\" < '2'::bigint",
                    " AND x.\"at\" >= '2'::bigint AND x.\"at\" < '5'::bigint",
                    " AND x.\"at\" >= '5'::bigint",
                ],
            ),
        ] {
            let starts = starts.get(..upto).expect("a part");
            let got: Vec<String> =
                ranges(starts).iter().map(|range| range.filter(&hypertable, "x")).collect();
            assert_eq!(got, want, "{upto}");
        }
    }
}
