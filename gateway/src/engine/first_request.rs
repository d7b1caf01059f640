//! What is kept of the request that opened a session, for whoever asks who the client is.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName, Request};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Longest URL that is kept, in bytes; of a longer one the last parameters are left out.
const URL_BYTES_MAX: usize = 1024;

/// Longest header that is kept, in bytes.
const HEADER_BYTES_MAX: usize = 1024;

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub struct Requester {
    /// The client's address, as resolved behind trusted proxies.
    pub address: IpAddr,
    /// Whether the client came over TLS, as trusted proxies say.
    pub secure: bool,
}

/// The request that opened a session, in few bytes: it stays as long as the session. It names no
/// session id, because it came before there was one.
#[derive(Debug)]
pub struct FirstRequest {
    requester: Requester,
    /// Whether a page of another origin may have made it: it had an `Origin`.
    xdomain: bool,
    url_len: u16,
    /// The URL, then the headers as a JSON object, or nothing if there are none.
    text: Box<str>,
}

/// The shape in which Node's servers describe a handshake.
#[derive(Serialize)]
struct Handshake<'a> {
    headers: &'a RawValue,
    time: String,
    address: IpAddr,
    xdomain: bool,
    secure: bool,
    issued: u64,
    url: &'a str,
    query: Map<String, Value>,
    auth: &'a RawValue,
}

impl FirstRequest {
    /// Keeps what is worth keeping; of the headers only those in `shared`.
    pub fn new<B>(request: &Request<B>, requester: Requester, shared: &[HeaderName]) -> Self {
        let uri = request.uri();
        let mut text = match uri.path_and_query() {
            Some(url) => shorten(url.as_str()).to_owned(),
            None => String::new(),
        };
        let url_len = text.len() as u16;
        let headers = shared_headers(request.headers(), shared);
        if !headers.is_empty() {
            text.push_str(&Value::from(headers).to_string());
        }
        let xdomain = request.headers().contains_key(ORIGIN);
        Self { requester, xdomain, url_len, text: text.into() }
    }

    /// The client's address, as resolved behind trusted proxies.
    pub fn address(&self) -> IpAddr {
        self.requester.address
    }

    /// The JSON object that Node calls `handshake`, of a socket that connected at `issued_ms` with
    /// `auth`, a JSON object.
    pub fn handshake(&self, issued_ms: u64, auth: &str) -> Box<str> {
        let (url, headers) = self.text.split_at(usize::from(self.url_len));
        let raw = |text| serde_json::from_str::<&RawValue>(text).unwrap_or(RawValue::NULL);
        let handshake = Handshake {
            headers: raw(if headers.is_empty() { "{}" } else { headers }),
            time: javascript_time(issued_ms),
            address: self.requester.address,
            xdomain: self.xdomain,
            secure: self.requester.secure,
            issued: issued_ms,
            url,
            query: query_object(url),
            auth: raw(auth),
        };
        serde_json::to_string(&handshake).unwrap_or_else(|_| "{}".to_owned()).into()
    }
}

/// Cuts a URL between two parameters.
fn shorten(url: &str) -> &str {
    if url.len() <= URL_BYTES_MAX {
        return url;
    }
    let head = &url.as_bytes()[..=URL_BYTES_MAX];
    let end = head.iter().rposition(|byte| matches!(byte, b'&' | b'?')).unwrap_or(0);
    &url[..end]
}

/// The headers that may be shared, as Node has them: names in lower case, repeated ones joined.
fn shared_headers(headers: &HeaderMap, shared: &[HeaderName]) -> Map<String, Value> {
    let mut kept = Map::new();
    for name in shared {
        // Node reads headers as Latin-1.
        let values = headers.get_all(name).iter();
        let values = values.map(|value| value.as_bytes().iter().map(|byte| char::from(*byte)));
        let texts: Vec<String> = values.map(Iterator::collect).collect();
        if !texts.is_empty() {
            let mut text = texts.join(", ");
            text.truncate(text.floor_char_boundary(HEADER_BYTES_MAX));
            kept.insert(name.as_str().to_owned(), text.into());
        }
    }
    kept
}

/// The parameters of a URL. Of a repeated one the last counts, as with Node's engine.io since it reads
/// them by `URLSearchParams`.
fn query_object(url: &str) -> Map<String, Value> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.map(|(key, value)| (key.into_owned(), value.into_owned().into())).collect()
}

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A time as JavaScript's `Date.toString()` writes it where the clock shows UTC.
fn javascript_time(ms: u64) -> String {
    // 1 January 1970 was a Thursday.
    let day_of_week = DAYS[(ms / 86_400_000 % 7) as usize];
    let time = UNIX_EPOCH + std::time::Duration::from_millis(ms);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month - 1));
    let (month, day, year, clock) =
        (month.copied().unwrap_or_default(), part(8..10), part(0..4), part(11..19));
    format!("{day_of_week} {month} {day} {year} {clock} GMT+0000 (Coordinated Universal Time)")
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::header::{ACCEPT_LANGUAGE, COOKIE, USER_AGENT};
    use serde_json::json;

    const REQUESTER: Requester =
        Requester { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), secure: false };

    fn handshake(request: &Request<()>, shared: &[HeaderName]) -> Value {
        let first = FirstRequest::new(request, REQUESTER, shared);
        let text = first.handshake(1_700_000_000_123, r#"{"token":"t"}"#);
        serde_json::from_str(&text).expect("valid JSON")
    }

    #[test]
    fn a_handshake_has_the_keys_and_forms_of_nodes() {
        let request = Request::get(
            "http://host/socket.io/?EIO=4&transport=websocket&a=1&a=2&b=x+y%2f%E2%82%AC&c&a=3",
        )
        .header("origin", "http://host")
        .header("cookie", "io=secret")
        .header("user-agent", "test \u{fc}")
        .header("accept-language", "de")
        .header("accept-language", "en")
        .body(())
        .expect("a request");
        let shared = [USER_AGENT, ACCEPT_LANGUAGE, HeaderName::from_static("x-absent")];
        // As a Node server with TZ=UTC describes the same request.
        let expected = json!({
            "headers": { "user-agent": "test \u{c3}\u{bc}", "accept-language": "de, en" },
            "time": "Tue Nov 14 2023 22:13:20 GMT+0000 (Coordinated Universal Time)",
            "address": "127.0.0.1",
            "xdomain": true,
            "secure": false,
            "issued": 1_700_000_000_123_u64,
            "url": "/socket.io/?EIO=4&transport=websocket&a=1&a=2&b=x+y%2f%E2%82%AC&c&a=3",
            "query": {
                "EIO": "4", "transport": "websocket", "a": "3", "b": "x y/€", "c": "",
            },
            "auth": { "token": "t" },
        });
        assert_eq!(handshake(&request, &shared), expected);
    }

    #[test]
    fn little_is_kept_of_a_large_request() {
        let url = format!("/socket.io/?EIO=4&long={}", "x".repeat(5000));
        let request = Request::get(url)
            .header("user-agent", "y".repeat(5000))
            .header(COOKIE, "c".repeat(5000))
            .body(())
            .expect("a request");
        let kept = handshake(&request, &[USER_AGENT]);
        assert_eq!(kept["url"], "/socket.io/?EIO=4");
        assert_eq!(kept["query"], json!({ "EIO": "4" }));
        assert_eq!(kept["headers"]["user-agent"], "y".repeat(HEADER_BYTES_MAX));
        assert_eq!(kept["headers"].as_object().map(Map::len), Some(1));
        assert_eq!(handshake(&request, &[])["headers"], json!({}));
    }

    #[test]
    fn an_idle_session_pays_little_for_it() {
        let request =
            Request::get("/socket.io/?EIO=4&transport=websocket").body(()).expect("a request");
        let first = FirstRequest::new(&request, REQUESTER, &[]);
        assert!(size_of::<FirstRequest>() + first.text.len() <= 96);
    }
}
