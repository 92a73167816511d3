//! Rows from one session into another, as COPY prints them.
//!
//! What the one prints the other reads, in chunks of a good size: memory is
//! bounded by a few of them, however many rows there are.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;

use super::connect::Conn;
use super::error::MoveError;

/// Bytes that are sent at once; a row goes whole, so there may be more.
const CHUNK: usize = 64 * 1024;
const SLACK: usize = 8 * 1024;

/// What went over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pumped {
    /// As the reading session counted them.
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// Pumps what the statement `out` prints on `from` into the statement `into`
/// on `to`. After each chunk `told` gets its rows and bytes, and answers until
/// when to pause.
///
/// # Errors
/// What a database said, or `told`.
pub(super) async fn pump(
    (from, out): (&Conn, &str),
    (to, into): (&Conn, &str),
    told: &mut (dyn FnMut(u64, u64) -> Result<Option<Instant>, MoveError> + Send),
) -> Result<Pumped, MoveError> {
    // In the order in which they are polled: both are prepared in one round
    // trip of the slower side.
    let (rows, sink) = futures_util::future::join(
        from.client().copy_out(out),
        to.client().copy_in::<_, Bytes>(into),
    )
    .await;
    let rows = rows.map_err(|error| from.error(error))?;
    let sink = sink.map_err(|error| to.error(error))?;
    tokio::pin!(rows);
    tokio::pin!(sink);
    let mut buffer = BytesMut::with_capacity(CHUNK + SLACK);
    let (mut bytes, mut count) = (0_u64, 0_u64);
    loop {
        let row = rows.next().await.transpose().map_err(|error| from.error(error))?;
        let last = row.is_none();
        if let Some(row) = row {
            buffer.extend_from_slice(&row);
            count += 1;
        }
        if !last && buffer.len() < CHUNK {
            continue;
        }
        let full = std::mem::replace(&mut buffer, BytesMut::with_capacity(CHUNK + SLACK));
        let sent = full.len() as u64;
        bytes += sent;
        if sent > 0 {
            sink.send(full.freeze()).await.map_err(|error| to.error(error))?;
        }
        let pause = told(std::mem::take(&mut count), sent)?;
        if last {
            let rows = sink.finish().await.map_err(|error| to.error(error))?;
            return Ok(Pumped { rows, bytes });
        }
        if let Some(until) = pause {
            tokio::time::sleep_until(until).await;
        }
    }
}
