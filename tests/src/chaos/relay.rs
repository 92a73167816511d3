//! A way between two processes that can be cut or fall silent: a unix socket
//! in front of a server's.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How it flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Open,
    /// Nothing is carried, nothing is closed.
    Silent,
    /// Everything is closed, and new connections end at once.
    Cut,
}

/// The way; it ends with this value.
pub struct Relay {
    dir: tempfile::TempDir,
    flow: watch::Sender<Flow>,
    _carrier: JoinSet<()>,
}

/// What a server's socket is called in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

impl Relay {
    /// Opens a way to the server whose socket is in `server`.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn open(server: &Path) -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("relay").tempdir()?;
        let listener = UnixListener::bind(dir.path().join(SOCKET))?;
        let (flow, flowing) = watch::channel(Flow::Open);
        let mut carrier = JoinSet::new();
        carrier.spawn(carry(listener, server.join(SOCKET), flowing));
        Ok(Self { dir, flow, _carrier: carrier })
    }

    /// The directory to connect to.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Changes how it flows, for what is open too.
    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn carry(listener: UnixListener, server: PathBuf, flow: watch::Receiver<Flow>) {
    let mut connections = JoinSet::new();
    while let Ok((outside, _)) = listener.accept().await {
        if *flow.borrow() == Flow::Cut {
            continue;
        }
        let (server, flow) = (server.clone(), flow.clone());
        connections.spawn(async move {
            let Ok(inside) = UnixStream::connect(server).await else { return };
            let (outside_read, outside_write) = outside.into_split();
            let (inside_read, inside_write) = inside.into_split();
            // Either direction's end is the connection's.
            tokio::select! {
                () = one_way(outside_read, inside_write, flow.clone()) => {}
                () = one_way(inside_read, outside_write, flow) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<Flow>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match flow.wait_for(|flow| *flow != Flow::Silent).await {
            Ok(flow) if *flow == Flow::Open => {}
            _ => return,
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _changed = flow.changed() => continue,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
