//! One part, piped from the source to the target, with its line in the ledger.

use super::meter::Meter;
use super::parts::Part;
use super::sql_of;
use super::streams::Task;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::fence;
use crate::mover::pump::pump;
use crate::mover::run::Run;
use crate::mover::sql::SCHEMA;

/// When this returns, the rows of `part` and its line in the ledger are
/// committed on the target.
pub(super) async fn copy_part(
    run: &Run,
    (source, target): (&Conn, &Conn),
    task: &Task<'_>,
    part: &Part,
    meter: &Meter<'_>,
) -> Result<(), MoveError> {
    let Task { tab, table, begun, .. } = task;
    let spec = &run.spec;
    let sql = sql_of(run, table);
    let columns = table.copied().join(", ");
    let format = if table.binary() { "binary" } else { "text" };
    let selected: Vec<String> = table.copied().iter().map(|name| format!("x.{name}")).collect();
    let from = format!(
        "COPY (SELECT {} FROM {} AS x WHERE {}{}) TO STDOUT (FORMAT {format})",
        selected.join(", "),
        part.from,
        sql.in_scope("x"),
        part.filter
    );
    target.batch("BEGIN; SET LOCAL session_replication_role = replica").await?;
    fence::standby(&run.spec, target, "FOR SHARE").await?;
    let into = if *begun {
        target
            .batch(&format!(
                "CREATE TEMP TABLE webhost_fleet_part ON COMMIT DROP AS SELECT {columns} FROM {} WITH NO DATA",
                table.name
            ))
            .await?;
        "pg_temp.webhost_fleet_part".to_owned()
    } else {
        table.name.clone()
    };

    let into = format!("COPY {into} ({columns}) FROM STDIN (FORMAT {format})");
    let mut told = |rows, bytes| {
        run.fail.point("mid_copy")?;
        Ok(meter.sent(rows, bytes))
    };
    let pumped = pump((source, &from), (target, &into), &mut told).await?;
    if *begun {
        let key: Vec<&str> = table.key_columns().map(|column| column.name.as_str()).collect();
        target
            .batch(&format!(
                "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} \
                 FROM pg_temp.webhost_fleet_part ON CONFLICT ({}) DO NOTHING",
                table.name,
                key.join(", ")
            ))
            .await?;
    }
    target
        .execute(
            &format!(
                "insert into {SCHEMA}.copied (move_id, tab, part, rows, bytes) values ($1, $2, $3, $4, $5)"
            ),
            &[
                &spec.move_id.0,
                tab,
                &part.id,
                &pumped.rows.cast_signed(),
                &pumped.bytes.cast_signed(),
            ],
        )
        .await?;
    target.batch("COMMIT").await
}
