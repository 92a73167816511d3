//! One entry of the log, as `systemd/nginx.conf` has nginx write it.

use std::borrow::Cow;

use serde::Deserialize;

/// What is read of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The host name that was asked for.
    pub host: Cow<'a, str>,
    pub status: u16,
    pub duration_us: u64,
    /// Sent to the client.
    pub bytes: u64,
    /// An address, or whatever tells clients apart; may be empty.
    pub client: Cow<'a, str>,
    pub country: Cow<'a, str>,
}

/// The keys, with their nginx variables: `$host`, `$status`, `$request_time`
/// (seconds), `$bytes_sent`, `$remote_addr`, a country. Others are passed over.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    host: Cow<'a, str>,
    status: u16,
    time: f64,
    #[serde(default)]
    bytes: u64,
    #[serde(borrow, default)]
    client: Cow<'a, str>,
    #[serde(borrow, default)]
    country: Cow<'a, str>,
}

/// Reads an entry.
///
/// # Errors
/// What is wrong with it.
pub fn entry(text: &[u8]) -> Result<Entry<'_>, String> {
    let written: Written<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !(written.time.is_finite() && (0.0..1e9).contains(&written.time)) {
        return Err(format!("time {} is no duration in seconds", written.time));
    }
    // Checked above: not negative, below 10^15.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let duration_us = (written.time * 1e6).round() as u64;
    Ok(Entry {
        host: written.host,
        status: written.status,
        duration_us,
        bytes: written.bytes,
        client: written.client,
        country: written.country,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_by_table() {
        let text = br#"{"host":"a.example","status":200,"time":0.013,"bytes":5,"client":"::1","country":"DE","more":[1]}"#;
        let read = entry(text).expect("reads");
        assert_eq!((read.host.as_ref(), read.status, read.duration_us), ("a.example", 200, 13_000));
        assert_eq!((read.bytes, read.client.as_ref(), read.country.as_ref()), (5, "::1", "DE"));
        let least = entry(br#"{"host":"a","status":499,"time":0}"#).expect("reads");
        assert_eq!((least.bytes, least.country.as_ref()), (0, ""));
        for wrong in [
            &b""[..],
            b"GET / HTTP/1.1",
            br#"{"host":"a","status":200}"#,
            br#"{"host":"a","status":200,"time":-1}"#,
            br#"{"host":"a","status":200,"time":1e300}"#,
            br#"{"host":"a","status":200,"time":0.1"#,
            b"{\"host\":\"\xff\",\"status\":200,\"time\":0.1}",
        ] {
            assert!(entry(wrong).is_err(), "{:?}", String::from_utf8_lossy(wrong));
        }
    }
}
