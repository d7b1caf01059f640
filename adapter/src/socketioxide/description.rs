//! What other servers are told about a socket.

use serde::Serialize;
use serde_json::{Map, Value};

/// What other servers are told about a socket, beside its id and rooms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// How it came.
    pub handshake: Handshake,
    /// What the application attached to it.
    pub data: Map<String, Value>,
}

/// How a socket came, with the keys that Node's `handshake` has.
///
/// Whatever is put here, every server of the cluster can read: credentials do not belong into it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Handshake {
    /// Headers of the request, names in lower case.
    pub headers: Map<String, Value>,
    /// When it came, as text.
    pub time: String,
    /// The address of the client.
    pub address: String,
    /// Whether the page came from elsewhere.
    pub xdomain: bool,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// When it came, in milliseconds since 1970.
    #[serde(rename = "issued")]
    pub issued_ms: u64,
    /// The path and query of the request.
    pub url: String,
    /// The parameters of the request.
    pub query: Map<String, Value>,
    /// What the client presented.
    pub auth: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_has_the_keys_that_node_has() {
        let handshake = serde_json::to_value(Handshake::default()).expect("a map of strings");
        let keys: Vec<_> = handshake.as_object().expect("a map").keys().cloned().collect();
        let mut expected =
            ["headers", "time", "address", "xdomain", "secure", "issued", "url", "query", "auth"];
        expected.sort_unstable();
        let mut keys: Vec<_> = keys.iter().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, expected);
    }
}
