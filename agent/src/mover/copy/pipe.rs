//! One part, piped from the source to the target, with its line in the ledger.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};

use super::meter::Meter;
use super::parts::Part;
use super::sql_of;
use super::streams::Task;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::fence;
use crate::mover::run::Run;
use crate::mover::sql::SCHEMA;

/// Bytes that are sent at once; a row goes whole, so there may be more.
const BUFFER: usize = 64 * 1024;
const SLACK: usize = 8 * 1024;

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
        "COPY (SELECT {} FROM ONLY {} AS x WHERE {}{}) TO STDOUT (FORMAT {format})",
        selected.join(", "),
        part.relation,
        sql.of_tenant("x"),
        part.filter()
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

    let rows_out = source.client().copy_out(&from).await.map_err(|error| source.error(error))?;
    let sink = target
        .client()
        .copy_in::<_, Bytes>(&format!("COPY {into} ({columns}) FROM STDIN (FORMAT {format})"))
        .await
        .map_err(|error| target.error(error))?;
    tokio::pin!(rows_out);
    tokio::pin!(sink);
    let mut buffer = BytesMut::with_capacity(BUFFER + SLACK);
    let (mut bytes, mut rows) = (0_u64, 0_u64);
    while let Some(row) = rows_out.next().await {
        let row = row.map_err(|error| source.error(error))?;
        buffer.extend_from_slice(&row);
        rows += 1;
        if buffer.len() >= BUFFER {
            let full = std::mem::replace(&mut buffer, BytesMut::with_capacity(BUFFER + SLACK));
            let sent = full.len() as u64;
            bytes += sent;
            sink.send(full.freeze()).await.map_err(|error| target.error(error))?;
            run.fail.point("mid_copy")?;
            if let Some(until) = meter.sent(std::mem::take(&mut rows), sent) {
                tokio::time::sleep_until(until).await;
            }
        }
    }
    let sent = buffer.len() as u64;
    bytes += sent;
    if sent > 0 {
        sink.send(buffer.freeze()).await.map_err(|error| target.error(error))?;
    }
    run.fail.point("mid_copy")?;
    if let Some(until) = meter.sent(rows, sent) {
        tokio::time::sleep_until(until).await;
    }
    let rows = sink.finish().await.map_err(|error| target.error(error))?;
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
                &rows.cast_signed(),
                &bytes.cast_signed(),
            ],
        )
        .await?;
    target.batch("COMMIT").await
}
