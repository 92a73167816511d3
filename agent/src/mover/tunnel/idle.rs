//! A connection that nothing goes through any more is ended.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

/// When a byte last went by.
#[derive(Clone)]
pub(super) struct Seen {
    last: watch::Sender<Instant>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { last: watch::Sender::new(Instant::now()) }
    }

    fn now(&self) {
        self.last.send_replace(Instant::now());
    }

    /// Returns when nothing went by for `limit`.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let due = *self.last.borrow() + limit;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

pub(super) struct Watched<S> {
    inner: S,
    seen: Seen,
    first: Option<u8>,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S, seen: &Seen) -> Self {
        Self { inner, seen: seen.clone(), first: None }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Waits for the first byte, or for the end or error of the stream; what
    /// came is read by whoever reads next.
    pub(super) async fn first_byte(&mut self) {
        let mut byte = [0];
        if let Ok(1) = self.inner.read(&mut byte).await {
            self.seen.now();
            self.first = Some(byte[0]);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if let Some(byte) = this.first.take() {
            if buffer.remaining() > 0 {
                buffer.put_slice(&[byte]);
            } else {
                this.first = Some(byte);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.seen.now();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
