//! The tunnel: how a mover reaches the database beside another agent.
//!
//! TLS 1.3 between two node certificates, then one length-delimited
//! `TunnelHello` with the move's ticket, one `TunnelWelcome`, and from there
//! the bytes of PostgreSQL's protocol, which end at the target's local socket:
//! no database password travels, and no database port is opened. The local
//! role must be let in without a password (peer or trust on the socket). The
//! same door takes a moved tenant's HTTP requests from the other node's hold
//! point to this one's, where the hello says so.
//!
//! A ticket is good for one move, one source node and a time. It is kept as a
//! hash, and survives a restart of the agent.

mod dial;
mod idle;
mod serve;
mod tickets;

pub use dial::{Through, TunnelIdentity};
pub use serve::{Behind, Database, serve};
pub use tickets::{Ticket, Tickets};

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest hello or welcome, in bytes.
const MAX_GREETING: u64 = 4096;

/// Reads one length-delimited message, and not a byte more.
async fn read<M: Message + Default>(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<M> {
    let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let mut length = 0_u64;
    for shift in (0..=14).step_by(7) {
        let byte = stream.read_u8().await?;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            if length > MAX_GREETING {
                break;
            }
            let mut body = vec![0; usize::try_from(length).unwrap_or_default()];
            stream.read_exact(&mut body).await?;
            return M::decode(body.as_slice()).map_err(|error| invalid(error.to_string()));
        }
    }
    Err(invalid(format!("a greeting of more than {MAX_GREETING} bytes")))
}

async fn write<M: Message>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &M,
) -> std::io::Result<()> {
    stream.write_all(&message.encode_length_delimited_to_vec()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests;
