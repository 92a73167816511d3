//! A relay that counts bytes: what two ends say to each other, as the socket
//! carries it, TLS records and framing included (IP and TCP headers not).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes so far, over all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From whoever dialled.
    pub there: u64,
    pub back: u64,
}

#[derive(Default)]
struct Counts {
    there: AtomicU64,
    back: AtomicU64,
}

/// A counting relay on loopback; ends with this value.
pub struct Meter {
    pub address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Meter {
    /// Listens, and passes every connection on to `to`.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn start(to: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counts = Arc::<Counts>::default();
        let mut tasks = JoinSet::new();
        let counted = Arc::clone(&counts);
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((outside, _)) = listener.accept().await {
                let counts = Arc::clone(&counted);
                open.spawn(async move {
                    if let Ok(inside) = TcpStream::connect(to).await {
                        carry(outside, inside, &counts).await;
                    }
                });
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, counts, _tasks: tasks })
    }

    /// What was carried so far.
    pub fn carried(&self) -> Carried {
        Carried {
            there: self.counts.there.load(Ordering::Relaxed),
            back: self.counts.back.load(Ordering::Relaxed),
        }
    }
}

async fn carry(outside: TcpStream, inside: TcpStream, counts: &Counts) {
    if outside.set_nodelay(true).is_err() || inside.set_nodelay(true).is_err() {
        return;
    }
    let (from_outside, to_outside) = outside.into_split();
    let (from_inside, to_inside) = inside.into_split();
    // Either end closing ends both, as a broken line would.
    tokio::select! {
        () = pass(from_outside, to_inside, &counts.there) => {}
        () = pass(from_inside, to_outside, &counts.back) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let meter = Meter::start(listener.local_addr().expect("bound")).await.expect("listens");
        let mut outside = TcpStream::connect(meter.address).await.expect("connects");
        let (mut inside, _) = listener.accept().await.expect("accepts");
        outside.write_all(b"hello").await.expect("writes");
        let mut heard = [0; 5];
        inside.read_exact(&mut heard).await.expect("reads");
        inside.write_all(b"hi").await.expect("writes");
        let mut heard = [0; 2];
        outside.read_exact(&mut heard).await.expect("reads");
        assert_eq!(meter.carried(), Carried { there: 5, back: 2 });
    }
}
