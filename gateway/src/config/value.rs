//! How values are written: durations, sizes, addresses, lists, and the closed sets.

use super::section::{Codec, Form};
use adapter::{ClusterParser, Participation, ShardedMode, Subscribe};
use http::{
    HeaderName,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION},
};
use ipnet::IpNet;
use protocol::id::NodeTag;
use secrecy::SecretString;
use std::{
    net::{SocketAddr, ToSocketAddrs},
    num::NonZeroUsize,
    thread,
    time::Duration,
};

/// The most workers a node may have: more lanes cost more than they carry.
pub const WORKERS_MAX: usize = 64;

/// `true` or `false`.
pub struct Bool;

impl Codec for Bool {
    type Value = bool;
    const FORM: Form = Form::Bool;
    fn parse(text: &str) -> Result<bool, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        }
    }
    fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// A number of at least one.
pub struct Count;

impl Codec for Count {
    type Value = usize;
    const FORM: Form = Form::Number;
    fn parse(text: &str) -> Result<usize, String> {
        match number(text)? {
            0 => Err("must be at least 1".to_owned()),
            count => Ok(count),
        }
    }
    fn show(value: &usize) -> String {
        value.to_string()
    }
}

/// A limit that is off while it is zero.
pub struct Unlimited;

impl Codec for Unlimited {
    type Value = Option<usize>;
    const FORM: Form = Form::Number;
    fn parse(text: &str) -> Result<Option<usize>, String> {
        Ok(Some(number(text)?).filter(|limit| *limit > 0))
    }
    fn show(value: &Option<usize>) -> String {
        value.unwrap_or(0).to_string()
    }
}

/// Worker threads; zero is one for each core.
pub struct Workers;

impl Codec for Workers {
    type Value = usize;
    const FORM: Form = Form::Number;
    fn parse(text: &str) -> Result<usize, String> {
        match number(text)? {
            0 => Ok(thread::available_parallelism().map_or(1, NonZeroUsize::get).min(WORKERS_MAX)),
            workers if workers <= WORKERS_MAX => Ok(workers),
            workers => Err(format!("{workers} is not within 1 to {WORKERS_MAX}")),
        }
    }
    fn show(value: &usize) -> String {
        value.to_string()
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

/// The longest duration: no timer of a gateway has a use for more, and sums never overflow.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A duration for people: "750ms", "25s", "1m 30s".
pub struct Human;

/// A duration above zero.
pub struct Period;

impl Codec for Period {
    type Value = Duration;
    const FORM: Form = Form::Text;
    fn parse(text: &str) -> Result<Duration, String> {
        match Human::parse(text)? {
            Duration::ZERO => Err("must be more than 0".to_owned()),
            period => Ok(period),
        }
    }
    fn show(value: &Duration) -> String {
        Human::show(value)
    }
}

impl Codec for Human {
    type Value = Duration;
    const FORM: Form = Form::Text;
    fn parse(text: &str) -> Result<Duration, String> {
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= DURATION_MAX => Ok(duration),
            Ok(_) => Err(format!("`{text}` is more than a day")),
            Err(_) => Err(format!("`{text}` is not a duration such as \"750ms\" or \"25s\"")),
        }
    }
    fn show(value: &Duration) -> String {
        match (value.as_nanos() % 1_000_000_000, value.as_nanos() % 1_000_000) {
            (0, _) => format!("{}s", value.as_secs()),
            (_, 0) => format!("{}ms", value.as_millis()),
            _ => format!("{}ns", value.as_nanos()),
        }
    }
}

/// A number of bytes: "1MB" (10^6), "1MiB" (2^20), or a plain number.
pub struct Bytes;

const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("", 1),
];

impl Codec for Bytes {
    type Value = usize;
    const FORM: Form = Form::Text;
    fn parse(text: &str) -> Result<usize, String> {
        let size: bytesize::ByteSize = text
            .parse()
            .map_err(|_| format!("`{text}` is not a size such as \"1MB\" or \"64KiB\""))?;
        match usize::try_from(size.as_u64()) {
            Ok(0) => Err("must be at least 1 byte".to_owned()),
            Ok(bytes) => Ok(bytes),
            Err(_) => Err(format!("`{text}` is more than this machine can address")),
        }
    }
    fn show(value: &usize) -> String {
        let bytes = *value as u64;
        SIZE_UNITS
            .iter()
            .find(|(_, unit)| bytes.is_multiple_of(*unit))
            .map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
    }
}

/// An address to listen on; a host name is looked up once, here.
pub struct Listen;

impl Codec for Listen {
    type Value = SocketAddr;
    const FORM: Form = Form::Text;
    fn parse(text: &str) -> Result<SocketAddr, String> {
        let shape = || format!("`{text}` is not `host:port` (port 0 takes a free one)");
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(shape());
        }
        let mut found =
            text.to_socket_addrs().map_err(|error| format!("cannot look up `{host}`: {error}"))?;
        found.next().ok_or_else(|| format!("`{host}` has no address"))
    }
    fn show(value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// Text that may not be empty.
pub struct Text;

impl Codec for Text {
    type Value = String;
    const FORM: Form = Form::Text;
    fn parse(text: &str) -> Result<String, String> {
        if text.is_empty() { Err("may not be empty".to_owned()) } else { Ok(text.to_owned()) }
    }
    fn show(value: &String) -> String {
        value.clone()
    }
}

/// Text; none is written as the empty string.
pub struct OptionalText;

impl Codec for OptionalText {
    type Value = Option<String>;
    const FORM: Form = Form::Text;
    fn parse(text: &str) -> Result<Option<String>, String> {
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    }
    fn show(value: &Option<String>) -> String {
        value.clone().unwrap_or_default()
    }
}

/// One or more addresses that may hold passwords, separated by commas, never shown.
pub struct SecretUrls;

impl Codec for SecretUrls {
    type Value = Vec<SecretString>;
    const FORM: Form = Form::Secret;
    fn parse(text: &str) -> Result<Vec<SecretString>, String> {
        let mut urls: Vec<String> = Vec::new();
        for item in items(text) {
            match urls.last_mut() {
                // One address of Sentinels names several hosts, with commas between them as well.
                Some(url) if !item.contains("://") => {
                    url.push(',');
                    url.push_str(item);
                }
                _ => urls.push(item.to_owned()),
            }
        }
        Ok(urls.into_iter().map(SecretString::from).collect())
    }
    fn show(value: &Vec<SecretString>) -> String {
        if value.is_empty() { String::new() } else { "***".to_owned() }
    }
}

/// The node's part of every id.
pub struct Tag;

impl Codec for Tag {
    type Value = Option<NodeTag>;
    const FORM: Form = Form::Text;
    fn parse(text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let tag = NodeTag::parse(text);
        tag.map(Some).ok_or_else(|| {
            format!("`{text}` is not four base64url characters (letters, digits, `-`, `_`)")
        })
    }
    fn show(value: &Self::Value) -> String {
        value.as_ref().map_or_else(String::new, |tag| tag.as_str().to_owned())
    }
}

/// Networks, or single addresses, which are networks of one.
pub struct Nets;

impl Codec for Nets {
    type Value = Vec<IpNet>;
    const FORM: Form = Form::List;
    fn parse(text: &str) -> Result<Vec<IpNet>, String> {
        items(text)
            .map(|item| {
                item.parse::<IpNet>()
                    .or_else(|_| item.parse::<std::net::IpAddr>().map(IpNet::from))
                    .map_err(|_| {
                        format!("`{item}` is neither a network such as `10.0.0.0/8` nor an address")
                    })
            })
            .collect()
    }
    fn show(value: &Vec<IpNet>) -> String {
        join(value)
    }
}

/// Headers that may be shown to other servers.
pub struct HeaderNames;

/// What a client proves itself with; whoever reads it can pass for the client.
const SECRET_HEADERS: [HeaderName; 3] = [COOKIE, AUTHORIZATION, PROXY_AUTHORIZATION];

impl Codec for HeaderNames {
    type Value = Vec<HeaderName>;
    const FORM: Form = Form::List;
    fn parse(text: &str) -> Result<Vec<HeaderName>, String> {
        items(text)
            .map(|item| match item.to_ascii_lowercase().parse() {
                Ok(name) if SECRET_HEADERS.contains(&name) => {
                    Err(format!("`{item}` holds secrets of the client and is never shared"))
                }
                Ok(name) => Ok(name),
                Err(_) => Err(format!("`{item}` is not the name of a header")),
            })
            .collect()
    }
    fn show(value: &Vec<HeaderName>) -> String {
        join(value)
    }
}

/// The entries of a list as the environment and flags write it.
pub fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn join<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Modes that are planned and known by name, so that nobody takes them for a typing error.
const LATER_WORDS: [&str; 1] = ["redis-streams"];

fn unknown_word(text: &str, words: &[&str]) -> String {
    if LATER_WORDS.contains(&text) {
        return format!("`{text}` comes with a later release");
    }
    format!("`{text}` is none of {}", words.join(", "))
}

/// Declares a closed set of words and its codec.
macro_rules! words {
    ($(#[$attribute:meta])* pub enum $name:ident {
        $($(#[$variant_attribute:meta])* $variant:ident = $word:literal $(| $other:literal)*,)*
    }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[$variant_attribute])* $variant,)* }

        impl $name {
            /// The word for it in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl Codec for $name {
            type Value = Self;
            const FORM: Form = Form::Text;
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word $(| $other)* => Ok(Self::$variant),)*
                    _ => Err(unknown_word(text, &[$(concat!("`", $word, "`")),*])),
                }
            }
            fn show(value: &Self) -> String {
                value.as_str().to_owned()
            }
        }
    };
}

words! {
    /// How this node reaches the others.
    pub enum AdapterMode {
        /// Not at all.
        Memory = "memory" | "",
        /// Over Redis publish and subscribe, as Node's classic adapter.
        Redis = "redis",
        /// Over sharded publish and subscribe of Redis 7, as Node's sharded adapter.
        RedisSharded = "redis-sharded",
    }
}

/// Declares the words for a closed set that another crate declares.
macro_rules! words_of {
    ($(#[$attribute:meta])* pub struct $name:ident for $set:ident {
        $($variant:ident = $word:literal,)*
    }) => {
        $(#[$attribute])*
        pub struct $name;

        impl Codec for $name {
            type Value = $set;
            const FORM: Form = Form::Text;
            fn parse(text: &str) -> Result<$set, String> {
                match text {
                    $($word => Ok($set::$variant),)*
                    _ => Err(unknown_word(text, &[$(concat!("`", $word, "`")),*])),
                }
            }
            fn show(value: &$set) -> String {
                match value { $($set::$variant => $word,)* }.to_owned()
            }
        }
    };
}

words_of! {
    /// How far this node takes part in its cluster.
    pub struct ParticipationWord for Participation {
        Broadcasts = "broadcasts",
        Commands = "commands",
        Full = "full",
    }
}

words_of! {
    /// What is received of the broadcasts to single rooms.
    pub struct SubscribeWord for Subscribe {
        All = "all",
        Interest = "interest",
    }
}

words_of! {
    /// Which channels the sharded adapter has.
    pub struct ShardedModeWord for ShardedMode {
        Static = "static",
        Dynamic = "dynamic",
        DynamicPrivate = "dynamic-private",
    }
}

words_of! {
    /// How broadcasts between nodes are encoded.
    pub struct ClusterParserWord for ClusterParser {
        MessagePack = "msgpack",
        Json = "json",
    }
}

words! {
    /// What happens to sockets that may have missed something.
    pub enum OnGap {
        /// They stay, as with Node.
        Keep = "keep",
        /// They are closed and reconnect.
        Close = "close",
    }
}

words! {
    /// How Socket.IO packets are encoded.
    pub enum Parser {
        /// `socket.io-parser`.
        Json = "json",
        /// `socket.io-msgpack-parser`.
        Msgpack = "msgpack",
    }
}

words! {
    /// The least severe level that is logged.
    pub enum LogLevel {
        /// A person must act.
        Error = "error",
        /// Something is degraded.
        Warn = "warn",
        /// The life of the node.
        Info = "info",
        /// The life of connections.
        Debug = "debug",
        /// Every message.
        Trace = "trace",
    }
}

words! {
    /// How log lines look.
    pub enum LogFormat {
        /// Text on a terminal, else JSON.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

/// The transports that are served; at least one is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transports {
    /// HTTP long polling.
    pub polling: bool,
    /// WebSocket.
    pub websocket: bool,
}

impl Codec for Transports {
    type Value = Self;
    const FORM: Form = Form::List;
    fn parse(text: &str) -> Result<Self, String> {
        let mut transports = Self { polling: false, websocket: false };
        for item in items(text) {
            match item {
                "polling" => transports.polling = true,
                "websocket" => transports.websocket = true,
                _ => return Err(format!("`{item}` is none of `polling`, `websocket`")),
            }
        }
        if !transports.polling && !transports.websocket {
            return Err("names no transport, so nobody could connect".to_owned());
        }
        Ok(transports)
    }
    fn show(value: &Self) -> String {
        let names = [(value.polling, "polling"), (value.websocket, "websocket")];
        join(&names.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect::<Vec<_>>())
    }
}

/// Who may connect from a page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origins {
    /// Pages of the host that was asked.
    SameHost,
    /// Every page.
    Any,
    /// Pages of these origins.
    List(Vec<OriginPattern>),
}

/// An origin, or all subdomains of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OriginPattern {
    /// `scheme://`, in lower case.
    scheme: String,
    /// What the host ends with: for a wildcard it begins with a dot.
    host: String,
    wildcard: bool,
}

impl OriginPattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let at = text.find("://")? + 3;
        let (scheme, host) = text.split_at(at);
        let (host, wildcard) = match host.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => (rest, true),
            Some(_) => return None,
            None => (host, false),
        };
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b));
        (at > 3 && host.len() > usize::from(wildcard) && plain).then(|| Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            wildcard,
        })
    }

    /// Whether an `Origin` header names this origin. Schemes and hosts know no case.
    pub fn matches(&self, origin: &str) -> bool {
        let Some((scheme, host)) = origin.split_at_checked(self.scheme.len()) else { return false };
        if !scheme.eq_ignore_ascii_case(&self.scheme) {
            return false;
        }
        if !self.wildcard {
            return host.eq_ignore_ascii_case(&self.host);
        }
        // At least one character stands for the wildcard, and none that could end the host early.
        host.len() > self.host.len()
            && host.split_at_checked(host.len() - self.host.len()).is_some_and(|(sub, rest)| {
                rest.eq_ignore_ascii_case(&self.host)
                    && sub.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
            })
    }
}

impl std::fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}", self.scheme, if self.wildcard { "*" } else { "" }, self.host)
    }
}

impl Codec for Origins {
    type Value = Self;
    const FORM: Form = Form::List;
    fn parse(text: &str) -> Result<Self, String> {
        let items: Vec<&str> = items(text).collect();
        match items.as_slice() {
            [] => Ok(Self::SameHost),
            ["*"] => Ok(Self::Any),
            _ if items.contains(&"*") => Err("`*` stands alone or not at all".to_owned()),
            _ => items
                .iter()
                .map(|item| {
                    OriginPattern::parse(item).ok_or_else(|| {
                        format!("`{item}` is not an origin such as `https://example.com` or `https://*.example.com`")
                    })
                })
                .collect::<Result<_, _>>()
                .map(Self::List),
        }
    }
    fn show(value: &Self) -> String {
        match value {
            Self::SameHost => String::new(),
            Self::Any => "*".to_owned(),
            Self::List(patterns) => join(patterns),
        }
    }
}
