//! What other servers are told about a socket.

use serde::Serialize;
use serde_json::{Map, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// Headers that other servers never see.
const SECRET_HEADERS: [&str; 2] = ["authorization", "cookie"];
const SECONDS_PER_DAY: u64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

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

impl Handshake {
    /// What the first request of a client tells: its URL, its headers without `authorization` and `cookie`, and
    /// when it came. The address and what the client presented are not in there.
    ///
    /// ```
    /// use adapter::socketioxide::Handshake;
    /// use std::time::{Duration, UNIX_EPOCH};
    ///
    /// let headers = [("host", "example.org"), ("cookie", "secret")];
    /// let came = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    /// let handshake = Handshake::of_request("/socket.io/?EIO=4&name=A%20b", headers, came);
    /// assert_eq!(handshake.headers.len(), 1);
    /// assert_eq!(handshake.query["name"], "A b");
    /// assert_eq!(handshake.time, "Tue Nov 14 2023 22:13:20 GMT+0000 (Coordinated Universal Time)");
    /// ```
    pub fn of_request<'a>(
        url: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        came: SystemTime,
    ) -> Self {
        let issued = came.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut handshake = Self {
            time: time_text(issued.as_secs()),
            issued_ms: u64::try_from(issued.as_millis()).unwrap_or(u64::MAX),
            url: url.to_owned(),
            ..Self::default()
        };
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            if !SECRET_HEADERS.contains(&name.as_str()) {
                handshake.headers.insert(name, value.into());
            }
        }
        handshake.xdomain = handshake.headers.contains_key("origin");
        let query = url.split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            handshake.query.insert(unescape(name), unescape(value).into());
        }
        handshake
    }
}

/// A parameter of a URL as text. What is no escape stays as it is.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, behind @ ..] = rest {
        let escaped = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                out.push(escaped);
                rest = &behind[2..];
            }
            (b'+', _) => {
                out.push(b' ');
                rest = behind;
            }
            _ => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A time since 1970 as JavaScript's `Date` prints it in a process without time zone.
fn time_text(seconds: u64) -> String {
    let (days, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    // 1970 began on a Thursday.
    let weekday = WEEKDAYS[((days + 4) % 7) as usize];
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{weekday} {} {day:02} {year} {hour:02}:{minute:02}:{second:02} GMT+0000 (Coordinated Universal Time)",
        MONTHS[month]
    )
}

/// The year, the month from 0 and the day from 1.
fn date(mut days: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    for (month, length) in
        [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate()
    {
        if days < length {
            return (year, month, days + 1);
        }
        days -= length;
    }
    unreachable!("a year has no more days")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_on_node() {
        let at = |seconds| time_text(seconds).replace(" GMT+0000 (Coordinated Universal Time)", "");
        assert_eq!(at(0), "Thu Jan 01 1970 00:00:00");
        assert_eq!(at(951_782_399), "Mon Feb 28 2000 23:59:59");
        assert_eq!(at(951_782_400), "Tue Feb 29 2000 00:00:00");
        assert_eq!(at(4_107_542_399), "Sun Feb 28 2100 23:59:59");
        assert_eq!(at(4_107_542_400), "Mon Mar 01 2100 00:00:00");
        assert_eq!(at(1_798_761_599), "Thu Dec 31 2026 23:59:59");
    }

    #[test]
    fn parameters_are_unescaped_as_far_as_they_are_escaped() {
        assert_eq!(unescape("%C3%A9+%2f%"), "é /%");
        assert_eq!(unescape("%zz%4"), "%zz%4");
    }

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
