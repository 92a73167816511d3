//! As much of Redis's protocol (RESP2) as asking needs: commands out, replies
//! in, every length bounded.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// How long a connection may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The longest text that is read; INFO has some kilobytes.
const MAX_BULK: usize = 256 * 1024;
const MAX_LINE: u64 = 1_024;

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// "host:port"
    Tcp(String),
    Unix(PathBuf),
}

impl Place {
    /// "host:port", or the path of a socket.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.into()))
            }
            _ => Err(format!("{text:?} is neither \"host:port\" nor the path of a socket")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What Redis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(String),
    Number(i64),
    Bulk(Vec<u8>),
    /// There is no such thing.
    Nil,
}

impl Reply {
    /// A text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(self) -> Result<String, String> {
        match self {
            Self::Status(text) => Ok(text),
            Self::Bulk(bytes) => String::from_utf8(bytes).map_err(|_| "not UTF-8".into()),
            other => Err(format!("answered {other:?} where a text belongs")),
        }
    }

    /// A number that is not negative.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(self) -> Result<u64, String> {
        match self {
            Self::Number(number) => {
                u64::try_from(number).map_err(|_| format!("{number} is negative"))
            }
            other => Err(format!("answered {other:?} where a number belongs")),
        }
    }

    /// A bulk string's bytes.
    pub fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// One connection.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
}

/// Connects, and says the password where there is one ("user password", or the
/// password alone, in the file).
///
/// # Errors
/// In a sentence, without the password.
pub async fn connect(place: &Place, password_file: Option<&Path>) -> Result<Connection, String> {
    let connecting = async {
        Ok::<Box<dyn Stream>, std::io::Error>(match place {
            Place::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            Place::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    let stream = tokio::time::timeout(CONNECT_LIMIT, connecting)
        .await
        .map_err(|_| format!("no connection within {} s", CONNECT_LIMIT.as_secs()))?
        .map_err(|error| error.to_string())?;
    let mut connection = Connection { stream: BufReader::new(stream) };
    if let Some(path) = password_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let mut command: Vec<&[u8]> = vec![b"AUTH"];
        command.extend(text.split_ascii_whitespace().map(str::as_bytes));
        connection.ask(&command).await?;
    }
    Ok(connection)
}

impl Connection {
    /// One command, its reply.
    ///
    /// # Errors
    /// Redis's own words, or those of the connection.
    pub async fn ask(&mut self, command: &[&[u8]]) -> Result<Reply, String> {
        self.send(&[command.to_vec()]).await?;
        self.reply().await?
    }

    /// Several commands at once; their replies in order. A refused one is
    /// [`Reply::Nil`].
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn ask_all(&mut self, commands: &[Vec<&[u8]>]) -> Result<Vec<Reply>, String> {
        self.send(commands).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for _ in commands {
            replies.push(self.reply().await?.unwrap_or(Reply::Nil));
        }
        Ok(replies)
    }

    async fn send(&mut self, commands: &[Vec<&[u8]>]) -> Result<(), String> {
        let mut out = Vec::new();
        for command in commands {
            out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for word in command {
                out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                out.extend_from_slice(word);
                out.extend_from_slice(b"\r\n");
            }
        }
        self.stream.write_all(&out).await.map_err(|error| error.to_string())?;
        self.stream.flush().await.map_err(|error| error.to_string())
    }

    /// One reply; the inner error is Redis's.
    async fn reply(&mut self) -> Result<Result<Reply, String>, String> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).ok_or("an empty reply")?;
        let number = || rest.parse::<i64>().map_err(|_| format!("{rest:?} is not a number"));
        match kind {
            "+" => Ok(Ok(Reply::Status(rest.to_owned()))),
            "-" => Ok(Err(rest.to_owned())),
            ":" => Ok(Ok(Reply::Number(number()?))),
            "$" => {
                let length = number()?;
                if length == -1 {
                    return Ok(Ok(Reply::Nil));
                }
                let length = usize::try_from(length).ok().filter(|length| *length <= MAX_BULK);
                let length = length.ok_or_else(|| format!("a text of {rest} bytes"))?;
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes).await.map_err(|error| error.to_string())?;
                bytes.truncate(length);
                Ok(Ok(Reply::Bulk(bytes)))
            }
            _ => Err(format!("it does not speak as Redis does: {line:?}")),
        }
    }

    async fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_LINE);
        bounded.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
        let text = line.strip_suffix(b"\r\n").ok_or("the connection ended")?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}
