//! The rights that a node needs of a Redis with access control.

use crate::config::{AdapterMode, Config, NamespacePath};
use adapter::{Participation, Subscribe};

/// Commands of every connection and of the registry of nodes.
const COMMANDS: [&str; 18] = [
    "+hello",
    "+auth",
    "+select",
    "+ping",
    "+unwatch",
    "+client|info",
    "+client|kill",
    "+cluster|info",
    "+cluster|slots",
    "+pubsub",
    "+eval",
    "+set",
    "+get",
    "+del",
    "+zadd",
    "+zrem",
    "+zrangebyscore",
    "+zremrangebyscore",
];

/// Commands of the mode `redis`.
const CLASSIC: [&str; 5] =
    ["+publish", "+subscribe", "+unsubscribe", "+psubscribe", "+punsubscribe"];

/// Commands of the mode `redis-sharded`.
const SHARDED: [&str; 3] = ["+spublish", "+ssubscribe", "+sunsubscribe"];

/// One `ACL SETUSER` with all that this configuration needs and nothing else, for `redis-cli`. Lines
/// with `#` say what it could not express. The password is left for the operator to fill in.
pub fn acl(config: &Config) -> String {
    let mut notes = Vec::new();
    let mut rights: Vec<String> =
        ["reset", "on", ">PASSWORD"].iter().map(ToString::to_string).collect();
    if config.cluster.adapter == AdapterMode::Memory {
        return "# no Redis is configured, so there is nothing to permit\n".to_owned();
    }
    let prefix = escape_glob(&config.cluster.prefix);
    rights.push(format!("~{prefix}-carillon:*"));
    rights.extend(channels(config, &prefix, &mut notes));
    let commands = match config.cluster.adapter {
        AdapterMode::RedisSharded => &SHARDED[..],
        AdapterMode::Redis | AdapterMode::Memory => &CLASSIC[..],
    };
    rights.extend(COMMANDS.iter().chain(commands).map(ToString::to_string));
    let rights: Vec<String> = rights.iter().map(|right| quoted(right)).collect();
    let notes: String = notes.iter().map(|note| format!("# {note}\n")).collect();
    format!("{notes}ACL SETUSER carillon {}\n", rights.join(" "))
}

/// The channels. Redis lets somebody subscribe to a pattern only if that very pattern is granted, so
/// those stand there one by one.
fn channels(config: &Config, prefix: &str, notes: &mut Vec<String>) -> Vec<String> {
    let cluster = &config.cluster;
    let mut channels = vec![format!("&{prefix}#*"), format!("&{prefix}-carillon#*")];
    if cluster.adapter == AdapterMode::RedisSharded {
        return channels;
    }
    channels.push(format!("&{prefix}-request#*"));
    channels.push(format!("&{prefix}-response#*"));
    let tag = config.server.node_tag.map(|tag| tag.to_string());
    let suffix = match (cluster.subscribe, tag) {
        (Subscribe::All, _) => "*".to_owned(),
        (Subscribe::Interest, Some(tag)) => format!("{tag}*"),
        (Subscribe::Interest, None) => {
            notes.push(
                "with `subscribe = \"interest\"` a node subscribes to a pattern with its tag: set `node_tag`, or all channels have to be permitted"
                    .to_owned(),
            );
            return vec!["allchannels".to_owned()];
        }
    };
    for namespace in &config.namespaces {
        let NamespacePath::Exact(name) = &namespace.path else {
            notes.push(format!(
                "the names that `{}` stands for are not known, and patterns are permitted one by one: all channels are",
                namespace.path
            ));
            return vec!["allchannels".to_owned()];
        };
        let name = escape_glob(name);
        channels.push(format!("&{prefix}#{name}#{suffix}"));
        if cluster.participation != Participation::Broadcasts {
            channels.push(format!("&{prefix}-request#{name}#"));
        }
    }
    channels
}

/// The glob characters of Redis lose their meaning, exactly as the adapter writes its patterns.
fn escape_glob(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// An argument as `redis-cli` reads it.
fn quoted(argument: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if argument.bytes().all(plain) {
        return argument.to_owned();
    }
    let mut quoted = String::from('"');
    for character in argument.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}
