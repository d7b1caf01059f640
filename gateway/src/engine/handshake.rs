//! Reading what a request asks for, and the words with which a session begins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use protocol::engine::OpenPacket;
use protocol::id::Id;
use sha1::{Digest, Sha1};

use super::error::{RequestError, Response, status_response};
use crate::config::EngineConfig;

/// The constant of RFC 6455, section 1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the query string of a request says.
pub struct Query {
    pub sid: Option<String>,
    pub websocket: bool,
}

impl Query {
    /// Reads the query in the order in which Node's server checks it, so that a request with
    /// several faults gets the same answer.
    pub fn parse<B>(request: &Request<B>, config: &EngineConfig) -> Result<Self, RequestError> {
        let mut transport = None;
        let mut version = None;
        let mut sid = None;
        for (key, value) in parameters(request.uri().query().unwrap_or_default()) {
            let place = match key {
                "transport" => &mut transport,
                "EIO" => &mut version,
                "sid" => &mut sid,
                _ => continue,
            };
            // A repeated parameter would mean different things to different readers.
            if place.replace(value).is_some() {
                return Err(RequestError::BadRequest);
            }
        }
        let websocket = match transport {
            Some("polling") if config.transports.polling => false,
            Some("websocket") if config.transports.websocket => true,
            _ => return Err(RequestError::UnknownTransport),
        };
        if sid.is_none() {
            if request.method() != Method::GET {
                return Err(RequestError::HandshakeMethod);
            }
            if version != Some("4") {
                return Err(RequestError::ProtocolVersion);
            }
        }
        Ok(Self { sid: sid.map(str::to_owned), websocket })
    }
}

/// The pairs of a query. Values that matter here never need an escape, so none is undone.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The packets that open sessions, but for the session id: all the rest is the same for all.
pub struct OpenPackets {
    polling: OpenTail,
    websocket: OpenTail,
}

/// What follows the session id.
struct OpenTail(String);

impl OpenPackets {
    /// Writes the packets once.
    pub fn new(config: &EngineConfig) -> Self {
        let upgrades = config.allow_upgrades && config.transports.websocket;
        Self {
            polling: OpenTail::new(config, if upgrades { vec!["websocket"] } else { Vec::new() }),
            websocket: OpenTail::new(config, Vec::new()),
        }
    }

    /// The packet for a session that begins with polling.
    pub fn polling(&self, id: Id) -> String {
        self.polling.packet(id)
    }

    /// The packet for a session that begins with WebSocket.
    pub fn websocket(&self, id: Id) -> String {
        self.websocket.packet(id)
    }
}

/// The packet's type digit and its text up to the session id.
const OPEN_HEAD: &str = r#"0{"sid":""#;

impl OpenTail {
    fn new(config: &EngineConfig, upgrades: Vec<&str>) -> Self {
        let packet = OpenPacket {
            sid: "",
            upgrades,
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            max_payload: config.max_payload as u64,
        };
        let json = packet.to_json();
        let tail = json.strip_prefix(&OPEN_HEAD[1..]);
        Self(tail.expect("the session id comes first").to_owned())
    }

    fn packet(&self, id: Id) -> String {
        [OPEN_HEAD, id.as_str(), &self.0].concat()
    }
}

/// Sets the session cookie, if one is configured. It is for balancers only: this node never reads it.
pub fn set_cookie(config: &EngineConfig, id: Id, response: &mut Response) {
    let Some(name) = &config.cookie else { return };
    let cookie = format!("{name}={id}; Path=/; HttpOnly; SameSite=Lax");
    let cookie = HeaderValue::try_from(cookie).expect("cookie names are checked at start");
    response.headers_mut().insert(SET_COOKIE, cookie);
}

/// Checks a WebSocket handshake and computes the accept key. Whatever is not exactly a handshake is
/// refused before a 101: a proxy that trusts the 101 would tunnel what follows.
pub fn websocket_accept<B>(request: &Request<B>) -> Result<HeaderValue, RequestError> {
    let headers = request.headers();
    let no_body = !headers.contains_key(TRANSFER_ENCODING)
        && headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    let valid = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && no_body
        && has_token(headers, &UPGRADE, "websocket")
        && has_token(headers, &CONNECTION, "upgrade")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
    let key_bytes = STANDARD.decode(key).unwrap_or_default();
    if !valid || key_bytes.len() != 16 {
        return Err(RequestError::WebSocketHandshake);
    }
    let digest = Sha1::new().chain_update(key).chain_update(WEBSOCKET_GUID).finalize();
    Ok(HeaderValue::try_from(STANDARD.encode(digest)).expect("base64 is a header value"))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The 101. Of the subprotocols a client offers, which mean nothing to Engine.IO, the first is taken
/// as Node's server does: a client that offered some gives up without one.
pub fn switching_protocols(accept: &HeaderValue, offered: &HeaderMap) -> Response {
    let mut response = status_response(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
    let protocols = offered.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let first = protocols.and_then(|protocols| protocols.split(',').next()).map(str::trim);
    if let Some(Ok(protocol)) = first.map(HeaderValue::from_str) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offered_subprotocol_is_taken() {
        let accept = HeaderValue::from_static("key");
        let answered = |offered: &HeaderMap| {
            switching_protocols(&accept, offered).headers().get(SEC_WEBSOCKET_PROTOCOL).cloned()
        };
        let mut offered = HeaderMap::new();
        assert_eq!(answered(&offered), None);
        offered.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat.v2 , chat.v1"));
        assert_eq!(answered(&offered), Some(HeaderValue::from_static("chat.v2")));
    }
}
