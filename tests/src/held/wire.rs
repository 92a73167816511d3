//! A client's HTTP/1.1, byte by byte, so that nothing is retried unseen.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One kept-alive connection; made when it is needed.
pub struct Connection {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    /// Connections that ended under a request without a byte of an answer.
    pub reopened: u64,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

enum Lost {
    /// No byte of an answer came.
    Silent(std::io::Error),
    Midway(std::io::Error),
}

impl Connection {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, reopened: 0 }
    }

    /// Sends a request and reads the answer. `parts` are sent one by one.
    ///
    /// # Errors
    /// In words, whatever a client would call an error of the connection.
    pub async fn exchange(&mut self, parts: &[&[u8]]) -> Result<Answer, String> {
        for used_before in [self.stream.is_some(), false] {
            match self.once(parts).await {
                Ok(answer) => return Ok(answer),
                Err(lost) => {
                    self.stream = None;
                    match lost {
                        Lost::Silent(_) if used_before => self.reopened += 1,
                        Lost::Silent(error) => return Err(format!("no answer: {error}")),
                        Lost::Midway(error) => return Err(format!("half an answer: {error}")),
                    }
                }
            }
        }
        Err("no answer on a second connection".into())
    }

    async fn once(&mut self, parts: &[&[u8]]) -> Result<Answer, Lost> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address).await.map_err(Lost::Silent)?;
            stream.set_nodelay(true).map_err(Lost::Silent)?;
            self.stream = Some(BufReader::new(stream));
        }
        let Some(stream) = &mut self.stream else {
            return Err(Lost::Silent(std::io::ErrorKind::NotConnected.into()));
        };
        for part in parts {
            stream.write_all(part).await.map_err(Lost::Silent)?;
        }
        stream.flush().await.map_err(Lost::Silent)?;
        let first = stream.fill_buf().await.map_err(Lost::Silent)?;
        if first.is_empty() {
            return Err(Lost::Silent(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let (answer, close) = read(stream).await.map_err(Lost::Midway)?;
        if close {
            self.stream = None;
        }
        Ok(answer)
    }
}

/// Reads one answer; true when its connection ends with it.
async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<(Answer, bool)> {
    let mut line = String::new();
    next(stream, &mut line).await?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {line:?}")))?;
    let (mut length, mut chunked, mut close) = (0_usize, false, false);
    loop {
        next(stream, &mut line).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line.as_str(), ""));
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse().unwrap_or(0),
            ("transfer-encoding", value) => chunked = value.eq_ignore_ascii_case("chunked"),
            ("connection", value) => close = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            next(stream, &mut line).await?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            let from = body.len();
            body.resize(from + size, 0);
            stream.read_exact(&mut body[from..]).await?;
            next(stream, &mut line).await?;
            if size == 0 {
                break;
            }
        }
    } else {
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
    }
    Ok((Answer { status, body }, close))
}

async fn next(stream: &mut BufReader<TcpStream>, line: &mut String) -> std::io::Result<()> {
    line.clear();
    if stream.read_line(line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(())
}
