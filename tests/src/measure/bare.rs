//! What a copy is held against: the same rows through a bare
//! `COPY … TO STDOUT | COPY … FROM STDIN`.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;
use uuid::Uuid;
use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::error::Side;
use webhost_coordinator::embedded::binaries;

use super::town::{Sides, socket};
use crate::writers::session;

/// Microseconds of `psql | psql`, socket to socket.
///
/// # Errors
/// When either fails.
pub async fn psql(sides: &Sides, tenant: Uuid) -> anyhow::Result<u64> {
    let psql = binaries()?.join("psql");
    let end = |config: &tokio_postgres::Config| {
        let dir = socket(config)?.parent().context("a directory")?.to_path_buf();
        anyhow::Ok((dir, config.get_dbname().context("a database")?.to_owned()))
    };
    let (from, to) = (end(&sides.source)?, end(&sides.target)?);
    let started = Instant::now();
    tokio::task::spawn_blocking(move || {
        let mut out = Command::new(&psql)
            .args(["-qX", "-U", "postgres", "-h"])
            .arg(&from.0)
            .args(["-d", &from.1, "-c"])
            .arg(out_of(tenant))
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = out.stdout.take().context("a pipe")?;
        let status = Command::new(&psql)
            .env("PGOPTIONS", "-c session_replication_role=replica")
            .args(["-qX", "-U", "postgres", "-h"])
            .arg(&to.0)
            .args(["-d", &to.1, "-c", INTO])
            .stdin(pipe)
            .status()?;
        ensure!(out.wait()?.success() && status.success(), "psql | psql failed");
        anyhow::Ok(())
    })
    .await??;
    Ok(u64::try_from(started.elapsed().as_micros())?)
}

/// Microseconds of the least that a client can do: every message of the one
/// session handed to the other, over the same transport as a move.
///
/// # Errors
/// When either fails.
pub async fn handed_over(source: Endpoint, target: Endpoint, tenant: Uuid) -> anyhow::Result<u64> {
    let worker = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let from = source.connect(Side::Source, "bare copy").await?;
            let to = target.connect(Side::Target, "bare copy").await?;
            to.batch("SET session_replication_role = replica").await?;
            let started = Instant::now();
            let rows = from.client().copy_out(&out_of(tenant)).await?;
            let sink = to.client().copy_in::<_, Bytes>(INTO).await?;
            tokio::pin!(rows);
            tokio::pin!(sink);
            while let Some(row) = rows.next().await {
                sink.feed(row?).await?;
            }
            sink.finish().await?;
            anyhow::Ok(u64::try_from(started.elapsed().as_micros())?)
        })
    });
    worker.await?
}

fn out_of(tenant: Uuid) -> String {
    format!(
        "copy (select * from gps_positions where customer_id = '{tenant}') to stdout (format binary)"
    )
}

const INTO: &str = "copy gps_positions from stdin (format binary)";

/// Microseconds to build what [`without_indexes`] dropped.
///
/// # Errors
/// What the database says.
pub async fn build_indexes(sides: &Sides) -> anyhow::Result<u64> {
    let (client, _driver) = session(&sides.target).await?;
    let started = Instant::now();
    client
        .batch_execute(
            "set maintenance_work_mem = '256MB'; alter table gps_positions add primary key (id); \
             create index gps_positions_customer_time on gps_positions (customer_id, recorded_at desc); \
             create index gps_positions_vehicle_time on gps_positions (vehicle_id, recorded_at desc)",
        )
        .await?;
    Ok(u64::try_from(started.elapsed().as_micros())?)
}

/// Drops the indexes of the target's positions.
///
/// # Errors
/// What the database says.
pub async fn without_indexes(sides: &Sides) -> anyhow::Result<()> {
    let (client, _driver) = session(&sides.target).await?;
    client
        .batch_execute(
            "alter table gps_positions drop constraint gps_positions_pkey; \
             drop index gps_positions_customer_time, gps_positions_vehicle_time",
        )
        .await?;
    Ok(())
}
