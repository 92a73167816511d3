//! What a proxy may and may not pass on (RFC 9110, 7.6), and the names under
//! which a request is known.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode, Version};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The host name that a request is for, in lower case, without port and
/// without the root's dot; none where it names none.
pub(super) fn host<B>(request: &Request<B>) -> Option<String> {
    let named = request.uri().host().map(str::to_owned);
    let named = named.or_else(|| {
        let value = request.headers().get(header::HOST)?.to_str().ok()?;
        value.parse::<http::uri::Authority>().ok().map(|authority| authority.host().to_owned())
    })?;
    let name = named.trim_end_matches('.').to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

/// The protocol that a request wants to change to; HTTP/2 knows none.
pub(super) fn upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let asked = request.version() == Version::HTTP_11
        && tokens(request.headers()).any(|token| token.eq_ignore_ascii_case("upgrade"));
    request.headers().get(header::UPGRADE).filter(|_| asked).cloned()
}

/// Makes a request's headers those of the next hop: what concerned this
/// connection alone is taken out, `Upgrade` stays where one is asked for, and
/// who asked is written down where nobody before us did.
pub(super) fn onward(headers: &mut HeaderMap, peer: IpAddr, upgrade: Option<&HeaderValue>) {
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|part| {
                part.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case("trailers"))
            })
        })
    });
    connection_only(headers);
    // Our own server has answered it already.
    headers.remove(header::EXPECT);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    // nginx stands before us and says it; what it said stays as it is, so that
    // the application sees the same with us in the way as without.
    if !headers.contains_key(&FORWARDED_FOR)
        && let Ok(value) = HeaderValue::from_str(&peer.to_string())
    {
        headers.insert(FORWARDED_FOR, value);
    }
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(&FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Makes an answer's headers those of the previous hop.
pub(super) fn back(headers: &mut HeaderMap, status: StatusCode) {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let protocol = headers.get(header::UPGRADE).cloned();
        connection_only(headers);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            headers.insert(header::UPGRADE, protocol);
        }
    } else {
        connection_only(headers);
    }
}

/// Takes out what concerns one connection alone. `Trailer` stays: it describes
/// the message.
fn connection_only(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tokens(headers).filter_map(|token| token.parse::<HeaderName>().ok()).collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri(uri).version(Version::HTTP_11);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request")
    }

    #[test]
    fn the_host_is_read_as_names_are_compared() {
        for (uri, fields, wanted) in [
            ("/", &[("host", "Acme.Example.net")][..], Some("acme.example.net")),
            ("/", &[("host", "acme.example.net:8443")], Some("acme.example.net")),
            ("/", &[("host", "acme.example.net.")], Some("acme.example.net")),
            ("http://a.example/x", &[("host", "b.example")], Some("a.example")),
            ("/", &[("host", "[::1]:80")], Some("[::1]")),
            ("/", &[("host", "a b")], None),
            ("/", &[("host", "")], None),
            ("/", &[], None),
        ] {
            assert_eq!(host(&request(uri, fields)).as_deref(), wanted, "{uri} {fields:?}");
        }
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let fields = [
            ("host", "acme.example"),
            ("connection", "keep-alive, X-Ours"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("x-ours", "1"),
            ("te", "gzip, trailers;q=0.5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-connection", "keep-alive"),
            ("expect", "100-continue"),
            ("trailer", "x-sum"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "203.0.113.9"),
        ];
        let mut request = request("/", &fields);
        assert_eq!(upgrade(&request), None, "Connection doesn't name it");
        onward(request.headers_mut(), [127, 0, 0, 1].into(), None);
        let mut left: Vec<_> = request
            .headers()
            .iter()
            .map(|(k, v)| (k.as_str(), v.to_str().expect("text")))
            .collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                ("cookie", "a=b"),
                ("host", "acme.example"),
                ("te", "trailers"),
                ("trailer", "x-sum"),
                ("x-forwarded-for", "203.0.113.9"),
                ("x-forwarded-host", "acme.example"),
                ("x-forwarded-proto", "http"),
            ]
        );
    }

    #[test]
    fn an_upgrade_is_asked_for_and_granted_anew() {
        let fields = [("connection", "Keep-Alive, Upgrade"), ("upgrade", "websocket")];
        let mut request = request("/", &fields);
        let wanted = upgrade(&request).expect("asked for");
        onward(request.headers_mut(), [192, 0, 2, 7].into(), Some(&wanted));
        assert_eq!(request.headers()["connection"], "upgrade");
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert_eq!(request.headers()["x-forwarded-for"], "192.0.2.7");

        let mut answer = HeaderMap::new();
        answer.insert("connection", HeaderValue::from_static("upgrade, x-hop"));
        answer.insert("upgrade", HeaderValue::from_static("websocket"));
        answer.insert("x-hop", HeaderValue::from_static("1"));
        let mut refused = answer.clone();
        back(&mut answer, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer["upgrade"], "websocket");
        assert!(!answer.contains_key("x-hop"));
        back(&mut refused, StatusCode::OK);
        assert!(refused.is_empty());
    }
}
