//! The application's WebSocket: a device sends ids of points, each is written
//! and then answered with the same id. Just enough of RFC 6455 for that.

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use super::http::Shared;
use super::wire::Point;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a server answers to a client's key.
pub fn accept(key: &str) -> String {
    let algorithm = &ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
    STANDARD.encode(ring::digest::digest(algorithm, format!("{key}{GUID}").as_bytes()))
}

/// Upgrades, and serves the socket as a task of the application.
pub async fn upgrade(
    State(shared): State<Shared>,
    Path((customer, vehicle)): Path<(Uuid, Uuid)>,
    mut request: Request,
) -> Response {
    let key = request.headers().get("sec-websocket-key").and_then(|key| key.to_str().ok());
    let Some(accept) = key.map(accept) else {
        return (StatusCode::BAD_REQUEST, "no WebSocket").into_response();
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let database = shared.database().clone();
    shared.tasks().spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut stream = TokioIo::new(upgraded);
        while let Ok(Some((1, text))) = frame(&mut stream).await {
            let answer = match String::from_utf8_lossy(&text).parse::<Uuid>() {
                Ok(id) => {
                    let point = Point {
                        id,
                        vehicle_id: vehicle,
                        recorded_at: Timestamp::now(),
                        latitude: 52.5,
                        longitude: 13.4,
                        speed: 1.0,
                        heading: 1.0,
                    };
                    match database.insert_points(customer, &[point]).await {
                        Ok(()) => id.to_string(),
                        Err(error) => format!("error: {error}"),
                    }
                }
                Err(error) => format!("error: {error}"),
            };
            if say(&mut stream, &answer, None).await.is_err() {
                return;
            }
        }
    });
    let headers = [
        (header::CONNECTION, "upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// One frame: its opcode and payload, unmasked; none at the end.
///
/// # Errors
/// When the stream breaks.
pub async fn frame(
    stream: &mut (impl AsyncRead + Unpin),
) -> std::io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 2];
    match stream.read_exact(&mut head).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let length = match head[1] & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; usize::try_from(length.min(1 << 20)).unwrap_or_default()];
    stream.read_exact(&mut payload).await?;
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
    Ok(Some((head[0] & 0x0f, payload)))
}

/// Sends one text frame of at most 65,535 bytes; clients mask theirs.
///
/// # Errors
/// When the stream breaks.
pub async fn say(
    stream: &mut (impl AsyncWrite + Unpin),
    text: &str,
    mask: Option<[u8; 4]>,
) -> std::io::Result<()> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(short @ 0..=125) => bytes.push(masked | short),
        _ => {
            bytes.push(masked | 126);
            bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
    bytes.extend(text.bytes().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    stream.write_all(&bytes).await?;
    stream.flush().await
}
