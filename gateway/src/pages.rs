//! What a browser may fetch from the public listener besides Engine.IO: the Socket.IO client and
//! the demo chat.
//!
//! Both are part of the binary. `make client` puts the client's files into `client/dist`; a build
//! without them works and answers 404 with that hint. The chat page is one response: its style
//! and script are inline and allowed by their hash, so that its content security policy can
//! forbid everything else.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use rust_embed::{EmbeddedFile, RustEmbed};

/// The files of the browser client that Node's `serveClient` offers, as `client/dist` has them.
#[derive(RustEmbed)]
#[folder = "client/dist"]
struct Client;

/// The demo chat, in the pieces it is written in.
#[derive(RustEmbed)]
#[folder = "src/pages"]
struct Chat;

/// File names that are answered here. Anything else below the path belongs to Engine.IO.
const CLIENT_FILES: [&str; 8] = [
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.esm.min.js",
    "socket.io.esm.min.js.map",
    "socket.io.msgpack.min.js",
    "socket.io.msgpack.min.js.map",
];

const CLIENT_MISSING: &str = "This build of Carillon does not contain the Socket.IO client.\n\
     Run `make client` and build again, or load the client from your own site.\n";

/// Answers a request for a file of the Socket.IO client, by the last segment of `path`; the caller
/// has checked that `path` lies below the Engine.IO path.
///
/// `None` means that the name is not one of the client's files.
#[must_use]
pub fn client_file(path: &str, if_none_match: Option<&HeaderValue>) -> Option<Response<Body>> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = CLIENT_FILES.into_iter().find(|known| *known == name)?;
    Some(file_response(name, Client::get(name), if_none_match))
}

fn file_response(
    name: &str,
    file: Option<EmbeddedFile>,
    if_none_match: Option<&HeaderValue>,
) -> Response<Body> {
    let Some(file) = file else {
        let text = "text/plain; charset=utf-8";
        return respond(StatusCode::NOT_FOUND, text, Bytes::from_static(CLIENT_MISSING.as_bytes()));
    };
    let etag = entity_tag(&file.metadata.sha256_hash());
    let matches = if_none_match.is_some_and(|condition| is_match(condition, &etag));
    let (status, body) = if matches {
        (StatusCode::NOT_MODIFIED, Bytes::new())
    } else {
        (StatusCode::OK, into_bytes(file.data))
    };
    let content_type = if name.ends_with(".map") {
        "application/json; charset=utf-8"
    } else {
        "application/javascript; charset=utf-8"
    };
    let mut response = respond(status, content_type, body);
    // The name carries no version, so a browser asks each time and gets a 304: as Node does.
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    response
}

/// The demo chat page.
#[must_use]
pub fn demo_page() -> Response<Body> {
    static PAGE: LazyLock<(Bytes, HeaderValue)> = LazyLock::new(assemble_page);
    let (page, policy) = &*PAGE;
    let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", page.clone());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Puts style and script into the page and their hashes into its policy.
fn assemble_page() -> (Bytes, HeaderValue) {
    let style = chat_part("chat.css");
    let script = chat_part("chat.js");
    let page = text_of(&chat_part("chat.html"))
        .replace("{{chat.css}}", &text_of(&style))
        .replace("{{chat.js}}", &text_of(&script));
    let policy = format!(
        "default-src 'none'; script-src 'self' {}; style-src {}; img-src data:; \
         connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        policy_hash(&script),
        policy_hash(&style),
    );
    let policy = HeaderValue::try_from(policy).expect("base64 is valid in a header");
    (Bytes::from(page), policy)
}

fn chat_part(name: &str) -> EmbeddedFile {
    Chat::get(name).expect("the parts of the page are compiled in")
}

fn text_of(file: &EmbeddedFile) -> String {
    String::from_utf8_lossy(&file.data).into_owned()
}

fn policy_hash(file: &EmbeddedFile) -> String {
    format!("'sha256-{}'", STANDARD.encode(file.metadata.sha256_hash()))
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A strong entity tag: 128 bits of the content's hash.
fn entity_tag(hash: &[u8; 32]) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash[..16]))
}

/// Whether an `If-None-Match` names `etag`. The comparison is the weak one that RFC 9110 asks for
/// here: proxies that compress mark our tag as weak.
fn is_match(condition: &HeaderValue, etag: &str) -> bool {
    let Ok(condition) = condition.to_str() else { return false };
    condition.split(',').map(str::trim).any(|candidate| {
        candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag
    })
}

fn into_bytes(data: Cow<'static, [u8]>) -> Bytes {
    match data {
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => Bytes::from(data),
    }
}

#[cfg(test)]
mod tests {
    use rust_embed::Metadata;

    use super::*;

    fn file() -> Option<EmbeddedFile> {
        let metadata = Metadata::__rust_embed_new([7; 32], None, None);
        Some(EmbeddedFile { data: Cow::Borrowed(b"let io;"), metadata })
    }

    async fn body_of(response: Response<Body>) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    fn header(response: &Response<Body>, name: http::HeaderName) -> &str {
        response.headers().get(name).expect("the header").to_str().expect("text")
    }

    #[tokio::test]
    async fn a_client_file_has_a_type_and_a_strong_tag() {
        let response = file_response("socket.io.js", file(), None);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, CONTENT_TYPE), "application/javascript; charset=utf-8");
        assert_eq!(header(&response, CACHE_CONTROL), "public, max-age=0");
        assert_eq!(header(&response, X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(header(&response, ETAG), "\"BwcHBwcHBwcHBwcHBwcHBw\"");
        assert_eq!(body_of(response).await, "let io;");
    }

    #[test]
    fn a_source_map_is_json() {
        let response = file_response("socket.io.js.map", file(), None);
        assert_eq!(header(&response, CONTENT_TYPE), "application/json; charset=utf-8");
    }

    #[tokio::test]
    async fn a_known_tag_is_answered_without_a_body() {
        let tag = "\"BwcHBwcHBwcHBwcHBwcHBw\"";
        for condition in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
            let condition = HeaderValue::try_from(condition).expect("a header value");
            let response = file_response("socket.io.js", file(), Some(&condition));
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{condition:?}");
            assert_eq!(header(&response, ETAG), tag);
            assert_eq!(body_of(response).await, "");
        }
    }

    #[test]
    fn another_tag_gets_the_file() {
        for condition in ["\"x\"", "", "BwcHBwcHBwcHBwcHBwcHBw"] {
            let condition = HeaderValue::from_static(condition);
            let response = file_response("socket.io.js", file(), Some(&condition));
            assert_eq!(response.status(), StatusCode::OK, "{condition:?}");
        }
    }

    #[tokio::test]
    async fn a_build_without_the_client_names_the_command() {
        let response = file_response("socket.io.js", None, None);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(body_of(response).await.contains("make client"));
    }

    #[test]
    fn only_the_names_of_the_client_are_answered() {
        for name in CLIENT_FILES {
            assert!(client_file(&format!("/socket.io/{name}"), None).is_some(), "{name}");
        }
        for path in ["/socket.io/", "/socket.io/socket.io.js/", "/socket.io/other.js", ""] {
            assert!(client_file(path, None).is_none(), "{path}");
        }
    }

    #[tokio::test]
    async fn the_chat_page_allows_only_its_own_style_and_script() {
        let response = demo_page();
        let policy = header(&response, CONTENT_SECURITY_POLICY).to_owned();
        let page = body_of(response).await;
        assert!(policy.starts_with("default-src 'none'; script-src 'self' 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!page.contains("{{"), "a part of the page was not put in");
        assert_eq!(page.matches("<script src=").count(), 1);
        assert!(page.contains("<script src=\"/socket.io/socket.io.js\"></script>"));
        // The hash covers exactly what stands between the tags.
        for (name, open, close) in
            [("chat.css", "<style>", "</style>"), ("chat.js", "<script>", "</script>")]
        {
            let inline = page.split(open).nth(1).and_then(|rest| rest.split(close).next());
            assert_eq!(inline, Some(&*text_of(&chat_part(name))), "{name}");
        }
    }
}
