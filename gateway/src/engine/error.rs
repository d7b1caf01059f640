//! The one place that turns refusals of Engine.IO requests into HTTP.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};

use super::close::CloseReason;

/// An HTTP response of the engine.
pub type Response = http::Response<Body>;

/// Why a request was refused. The codes and texts are those of Node's `engine.io`; a closed set,
/// because it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The `transport` parameter is missing or not enabled.
    UnknownTransport,
    /// The session id is not known here.
    UnknownSession,
    /// A handshake by another method than GET.
    HandshakeMethod,
    /// The request does not fit the session or the transport.
    BadRequest,
    /// The Origin is not allowed.
    Forbidden,
    /// Not Engine.IO protocol version 4.
    ProtocolVersion,
    /// Not a valid WebSocket handshake.
    WebSocketHandshake,
    /// A method that Engine.IO does not use.
    Method,
    /// A body above `max_payload`.
    TooLarge,
    /// A body that took too long.
    BodyTimeout,
    /// A body with a content encoding.
    Encoded,
    /// A body that is not an Engine.IO payload.
    InvalidPayload,
    /// Too many sessions, of the node or of one address.
    Limit,
    /// The packets of a POST were refused.
    Refused(CloseReason),
}

impl RequestError {
    /// Every label, for metrics.
    pub const LABELS: [&'static str; 14] = [
        "unknown_transport",
        "unknown_session",
        "handshake_method",
        "bad_request",
        "forbidden",
        "protocol_version",
        "websocket_handshake",
        "method",
        "too_large",
        "body_timeout",
        "encoded",
        "invalid_payload",
        "limit",
        "refused",
    ];

    /// The label of metrics and logs.
    pub fn as_str(self) -> &'static str {
        Self::LABELS[match self {
            Self::UnknownTransport => 0,
            Self::UnknownSession => 1,
            Self::HandshakeMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::ProtocolVersion => 5,
            Self::WebSocketHandshake => 6,
            Self::Method => 7,
            Self::TooLarge => 8,
            Self::BodyTimeout => 9,
            Self::Encoded => 10,
            Self::InvalidPayload => 11,
            Self::Limit => 12,
            Self::Refused(_) => 13,
        }]
    }

    /// How a session ends whose POST was refused with this error.
    pub fn close_reason(self) -> CloseReason {
        match self {
            Self::Refused(reason) => reason,
            Self::InvalidPayload => CloseReason::ParseError,
            _ => CloseReason::TransportError,
        }
    }

    fn parts(self) -> (StatusCode, Option<(u8, &'static str)>) {
        let bad = StatusCode::BAD_REQUEST;
        match self {
            Self::UnknownTransport => (bad, Some((0, "Transport unknown"))),
            Self::UnknownSession => (bad, Some((1, "Session ID unknown"))),
            Self::HandshakeMethod => (bad, Some((2, "Bad handshake method"))),
            Self::BadRequest => (bad, Some((3, "Bad request"))),
            Self::Forbidden => (StatusCode::FORBIDDEN, Some((4, "Forbidden"))),
            Self::ProtocolVersion => (bad, Some((5, "Unsupported protocol version"))),
            Self::WebSocketHandshake => (bad, Some((3, "Bad request"))),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, Some((3, "Bad request"))),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, None),
            Self::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, None),
            Self::InvalidPayload | Self::Refused(_) => (bad, None),
            Self::Limit => {
                (StatusCode::SERVICE_UNAVAILABLE, Some((3, "Too many connections, try again")))
            }
        }
    }

    /// The HTTP response.
    pub fn response(self) -> Response {
        let (status, error) = self.parts();
        let body = error.map_or_else(Body::empty, |(code, message)| {
            Body::from(format!(r#"{{"code":{code},"message":"{message}"}}"#))
        });
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if error.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match self {
            Self::Limit => {
                headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Method => {
                headers.insert(http::header::ALLOW, HeaderValue::from_static("GET, POST, OPTIONS"));
            }
            // What follows such a request on the connection cannot be trusted.
            Self::WebSocketHandshake | Self::TooLarge | Self::BodyTimeout | Self::Encoded => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// A polling payload.
pub fn payload_response(payload: String) -> Response {
    let mut response = text_response(payload);
    let text = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

/// The answer to a POST.
pub fn text_response(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A status without a body.
pub fn status_response(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
