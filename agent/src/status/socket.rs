//! The unix socket of the status: whoever connects is sent one document, and
//! the connection ends. Who may connect is said by the socket's permissions.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::Board;

/// A reader that takes no more than this long.
const LIMIT: Duration = Duration::from_secs(5);

/// Readers at a time; more have to wait in the socket's queue.
const READERS: usize = 16;

/// Why there is no status socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("{0}: another agent is running with this status socket; stop it, or set status_socket")]
    InUse(PathBuf),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A bound socket; removed when dropped.
pub struct StatusSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl StatusSocket {
    /// Binds `path` (mode 0660), over a socket that a dead agent left.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |source| SocketError::Io { path: path.into(), source };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        match UnixStream::connect(path).await {
            Ok(_) => return Err(SocketError::InUse(path.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(io)?;
        Ok(Self { listener, path: path.into() })
    }

    /// Serves `board` until `stop`.
    pub async fn serve(self, board: Board, stop: CancellationToken) {
        let mut readers = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = readers.join_next() => continue,
                accepted = self.listener.accept(), if readers.len() < READERS => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    readers.spawn(send(stream, board.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the status socket takes no connection");
                    // Out of descriptors, most likely: not at once again.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // Gone already, or left for the next agent to remove: both are fine.
        let _gone = std::fs::remove_file(&self.path);
    }
}

async fn send(mut stream: UnixStream, board: Board) {
    let document = board.document();
    let mut text = match serde_json::to_vec(&document) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(%error, "the status can't be written as JSON");
            return;
        }
    };
    text.push(b'\n');
    let sent = tokio::time::timeout(LIMIT, async {
        stream.write_all(&text).await?;
        stream.shutdown().await
    });
    if !matches!(sent.await, Ok(Ok(()))) {
        tracing::debug!("a reader of the status went away before its end");
    }
}
