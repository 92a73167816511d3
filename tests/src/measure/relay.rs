//! A way to a database that takes its time: what is said arrives later, in
//! order and unchanged. (The kernel here has no netem.)

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Chunks that are under way in one direction; more stop the sender.
const UNDER_WAY: usize = 256;

/// A relay on loopback; ends with this value.
pub struct Relay {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens, and passes every connection on to the socket `to`, half of
    /// `round_trip` later in each direction.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn start(to: PathBuf, round_trip: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((outside, _)) = listener.accept().await {
                let to = to.clone();
                open.spawn(async move {
                    if let Ok(inside) = UnixStream::connect(to).await {
                        carry(outside, inside, round_trip / 2).await;
                    }
                });
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

async fn carry(outside: TcpStream, inside: UnixStream, delay: Duration) {
    if outside.set_nodelay(true).is_err() {
        return;
    }
    let (from_outside, to_outside) = outside.into_split();
    let (from_inside, to_inside) = inside.into_split();
    // Either end closing ends both, as a broken line would.
    tokio::select! {
        () = later(from_outside, to_inside, delay) => {}
        () = later(from_inside, to_outside, delay) => {}
    }
}

async fn later(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reading = async move {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            match from.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    chunk.truncate(length);
                    if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_arrives_whole_and_later() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("echo");
        let listener = tokio::net::UnixListener::bind(&path).expect("binds");
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.expect("reads");
            stream.write_all(&said).await.expect("writes");
            stream.read_u8().await.ok();
        });
        let round_trip = Duration::from_millis(20);
        let relay = Relay::start(path, round_trip).await.expect("listens");
        let mut stream = TcpStream::connect(relay.address).await.expect("connects");
        let began = Instant::now();
        stream.write_all(b"hello").await.expect("writes");
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.expect("reads");
        assert_eq!(&heard, b"hello");
        assert!(began.elapsed() >= round_trip, "{:?}", began.elapsed());
    }
}
