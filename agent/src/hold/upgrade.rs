//! Connections that were upgraded: WebSockets, mostly.
//!
//! While the tenant is parked, what its clients send waits in the kernel, and
//! what the application says goes on. When requests then go another way, the
//! connection ends: a WebSocket between two frames with 1012, "service
//! restart", upon which clients dial again and reach the new place; any other
//! protocol without a word. What a client had sent but nobody had answered, it
//! sends again there, as after any reconnect. When the requests stay, the
//! connection just goes on.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::{COME_AGAIN, Frames};
use super::phase::Way;
use super::tenant::Tenant;

/// How long a frame may take to end before it is cut.
const LAST_FRAME: Duration = Duration::from_millis(250);
/// How long a client may take to agree to the end.
const GOODBYE: Duration = Duration::from_secs(1);
const BUFFER: usize = 16 * 1024;

/// Carries bytes both ways until one side ends, or until the requests of
/// `watched`'s tenant go another way.
pub(super) async fn join(
    client: Upgraded,
    server: Upgraded,
    websocket: bool,
    watched: Option<(&Arc<Tenant>, Way)>,
) {
    run(TokioIo::new(client), TokioIo::new(server), websocket, watched).await;
}

async fn run(
    client: impl AsyncRead + AsyncWrite + Unpin,
    server: impl AsyncRead + AsyncWrite + Unpin,
    websocket: bool,
    watched: Option<(&Arc<Tenant>, Way)>,
) {
    let _counted = watched.map(|(tenant, _)| tenant.upgraded());
    let (client_read, client_write) = tokio::io::split(client);
    let (server_read, server_write) = tokio::io::split(server);
    let mut up = Pipe::new(client_read, server_write);
    let mut down = Pipe::new(server_read, client_write);
    let both = async {
        tokio::join!(up.all(watched.map(|(tenant, _)| tenant)), down.all(None));
    };
    let leaves = async {
        match watched {
            Some((tenant, way)) => tenant.leaves(way).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = both => return,
        () = leaves => {}
    }
    if !websocket {
        return;
    }
    // Until the frame that is under way is through.
    let whole = async { while !down.between_frames() && down.step().await {} };
    if tokio::time::timeout(LAST_FRAME, whole).await.is_err() || !down.between_frames() {
        return;
    }
    let goodbye = async {
        down.writer.write_all(&COME_AGAIN).await?;
        down.writer.shutdown().await?;
        // Closing with bytes unread would reset the connection, and the
        // client might never see why.
        let mut sink = [0; 1024];
        while up.reader.read(&mut sink).await? > 0 {}
        std::io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(GOODBYE, goodbye).await {
        tracing::debug!(%error, "hold point: a goodbye");
    }
}

/// One direction. Both awaits of [`Pipe::step`] may be dropped without losing
/// a byte: what was read stays in the buffer, what was written is counted.
struct Pipe<R, W> {
    reader: R,
    writer: W,
    buffer: Box<[u8]>,
    /// What is read and not yet written.
    from: usize,
    to: usize,
    frames: Frames,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pipe<R, W> {
    fn new(reader: R, writer: W) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { reader, writer, buffer, from: 0, to: 0, frames: Frames::default() }
    }

    /// Everything that was read is written, and it ended with a frame.
    fn between_frames(&self) -> bool {
        self.from == self.to && self.frames.at_boundary()
    }

    /// Writes what there is, else reads more. False at the end.
    async fn step(&mut self) -> bool {
        self.one().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "hold point: an upgraded connection broke");
            false
        })
    }

    async fn one(&mut self) -> std::io::Result<bool> {
        if self.from == self.to {
            let read = self.reader.read(&mut self.buffer).await?;
            (self.from, self.to) = (0, read);
            return Ok(read > 0);
        }
        let rest = self.buffer.get(self.from..self.to).unwrap_or_default();
        let written = self.writer.write(rest).await?;
        self.frames.feed(rest.get(..written).unwrap_or_default());
        self.from += written;
        if self.from == self.to {
            self.writer.flush().await?;
        }
        Ok(written > 0)
    }

    /// To the end of the stream; then the other side learns of it. Nothing
    /// more is read while `gate` is parked.
    async fn all(&mut self, gate: Option<&Arc<Tenant>>) {
        loop {
            if let Some(tenant) = gate {
                tenant.open().await;
            }
            if !self.step().await {
                break;
            }
        }
        if let Err(error) = self.writer.shutdown().await {
            tracing::debug!(%error, "hold point: an upgraded connection's end");
        }
    }
}
