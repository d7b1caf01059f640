//! Which pages may talk to this node: the Origin check and the CORS headers that follow from it.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

use super::error::Response;
use crate::config::{EngineConfig, Origins};

/// What the Origin of a request means.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No Origin, or the page's own host: nothing to say.
    SameSite,
    /// Another site that is allowed: the browser must be told.
    Allowed(HeaderValue),
    /// Not allowed.
    Refused,
}

/// Judges a request. Without configured origins a page may talk to the host it came from, and
/// programs without an Origin may connect: that is what is safe and works.
pub fn check(config: &EngineConfig, headers: &HeaderMap) -> Verdict {
    let Some(origin) = headers.get(ORIGIN) else { return Verdict::SameSite };
    let Ok(text) = origin.to_str() else { return Verdict::Refused };
    let own_host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if own_host.is_some_and(|host| same_host(text, host)) {
        return Verdict::SameSite;
    }
    match &config.origins {
        Origins::Any => Verdict::Allowed(HeaderValue::from_static("*")),
        Origins::List(patterns) if patterns.iter().any(|pattern| pattern.matches(text)) => {
            Verdict::Allowed(origin.clone())
        }
        Origins::SameHost | Origins::List(_) => Verdict::Refused,
    }
}

fn same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_ascii_lowercase();
    bare(authority) == bare(host)
}

/// Adds the headers by which a browser lets the page read the response.
pub fn apply(config: &EngineConfig, verdict: &Verdict, response: &mut Response) {
    let Verdict::Allowed(origin) = verdict else { return };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if config.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// The answer to a browser that asks first.
pub fn preflight(requested_headers: Option<&HeaderValue>) -> Response {
    let mut response = super::error::status_response(http::StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET,POST"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(requested) = requested_headers {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, requested.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(config: &EngineConfig, origin: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("header"));
        headers.insert(HOST, HeaderValue::from_str(host).expect("header"));
        check(config, &headers) != Verdict::Refused
    }

    #[test]
    fn the_own_host_is_allowed_with_or_without_its_default_port() {
        let config = EngineConfig::default();
        assert!(allowed(&config, "http://chat.example:3000", "chat.example:3000"));
        assert!(allowed(&config, "https://Chat.example", "chat.example:443"));
        assert!(!allowed(&config, "http://chat.example:3000", "chat.example:3001"));
        assert!(!allowed(&config, "null", "chat.example"));
        assert!(!allowed(&config, "https://chat.example.evil", "chat.example"));
    }

    #[test]
    fn any_origin_is_allowed_where_that_is_configured() {
        let config = EngineConfig { origins: Origins::Any, ..EngineConfig::default() };
        assert!(allowed(&config, "https://anything.example", "gateway"));
    }
}
