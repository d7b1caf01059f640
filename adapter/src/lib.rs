//! The cluster side of a Carillon node: what one node emits reaches the sockets of all others.
//!
//! An [`Adapter`] sees the sockets of its node through the trait [`Local`] and knows nothing else of the node.
//! In mode [`Mode::Memory`] a node is alone. In mode [`Mode::Redis`] nodes talk over Redis pub/sub exactly as
//! Node.js servers with `@socket.io/redis-adapter` ("classic") do, so Carillon nodes, such servers and
//! anything that uses `@socket.io/redis-emitter` may sit in one cluster.
//!
//! # What is delivered
//!
//! - Local delivery is the caller's, before [`Adapter::broadcast`], and does not depend on Redis in any way.
//! - At most once: what may have been published is never published again, a node drops its own echo, and a
//!   message that matches several subscriptions is taken for the one it belongs to.
//! - In order, per publisher and namespace: everything goes out over one connection, comes in over one
//!   connection and through one queue per namespace, and is applied one after the other, remote joins, leaves
//!   and disconnects included.
//! - Nothing is lost silently. A message that finds its queue full, or is larger than
//!   [`AdapterConfig::cluster_frame_max`], raises [`Local::gap`] with [`GapCause::Overflow`] for the room of
//!   its channel, else for the namespace, before any later message is delivered. A link that was lost raises
//!   it with [`GapCause::LinkLost`], once per open namespace, when the link is back: only then is it certain
//!   that who connects anew misses nothing more. The first time that the link comes up is no gap.
//! - Nothing waits: [`Adapter::broadcast`] queues, or says at once that the message is [`Published::Lost`].
//! - Whatever comes out of Redis, the adapter counts it and goes on.
//!
//! # Channels
//!
//! With `P` for the prefix ([`AdapterConfig::key`]) and `N` for the namespace:
//!
//! | Channel | Carries | Subscription of this crate |
//! |---|---|---|
//! | `P#N#` | broadcasts to everyone or to several rooms | `PSUBSCRIBE P#N#*` |
//! | `P#N#room#` | broadcasts to one room; dropped undecoded if nobody here is in it | the same |
//! | `P-request#N#` | what emitters and servers ask: join, leave, disconnect | `PSUBSCRIBE`, a pattern that matches nothing else |
//! | `P-carillon#` | probes of Carillon nodes; Node does not listen | `SUBSCRIBE` |
//!
//! Glob characters in prefix and namespace are escaped. Node servers count the `SUBSCRIBE`s of the request
//! channel to know how many answers to wait for; patterns are not counted, so nobody waits for this crate as
//! long as it answers nothing. A user of an ACL needs each pattern granted literally, `&P#N#*` and so on.
//! Redis pub/sub knows no databases: a database number isolates nothing, a prefix does.
//!
//! # The way of a broadcast
//!
//! ```text
//!      node A                              Redis                            node B
//!  hub: local sockets
//!        │
//!  Adapter::broadcast
//!   wire: encode
//!   publish queue ──── PUBLISH P#N#room# ───►│
//!        │◄─────────── :2 ───────────────────┤
//!        │                                   ├── pmessage P#N#* ──► bus: route by pattern
//!        │◄── pmessage (own echo) ───────────┤                      queue of the namespace
//!   own uid: dropped                         │                      room of nobody here: dropped
//!                                            │                      wire: own uid? namespace? decode
//!                                            │                      Local::ready, Local::deliver
//! ```
//!
//! # The link
//!
//! One task keeps two connections, one that publishes and one that receives. The link is up when both talk to
//! a master over RESP3, every subscription is confirmed, and a probe has made the whole way. A probe goes out
//! every [`AdapterConfig::probe_interval`]; two missed in a row or the end of either connection take
//! both down, and attempts to connect follow after random pauses that grow from
//! [`AdapterConfig::reconnect_delay_min`] to [`AdapterConfig::reconnect_delay_max`], forever.
//!
//! # Features
//!
//! | Feature | What needs it |
//! |---|---|
//! | `socketioxide` (off unless asked for) | the module `socketioxide`: an application on that library as a part of the cluster |
#![forbid(unsafe_code)]

mod adapter;
mod bus;
mod cluster;
mod config;
mod error;
mod local;
mod memory;
pub mod metrics;
mod registry;
mod request;
#[cfg(feature = "socketioxide")]
pub mod socketioxide;
mod wire;

pub use crate::{
    adapter::{Adapter, Follow, LinkState, LostReason, Published},
    config::{
        AdapterConfig, ClusterParser, Mode, NodeDescription, Participation, RedisConfig,
        ShardedMode, Subscribe,
    },
    error::AdapterError,
    local::{Asked, ClientAnswer, Flags, GapCause, Local, RoomName, Selection, SocketDetail},
    metrics::AdapterMetrics,
    registry::NodeRecord,
    request::{Acks, RequestCause, RequestError},
};

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use crate::wire::fuzzing;

/// Characters of a random id. Node takes 6; with 12 no two are the same by accident.
const RANDOM_ID_LEN: usize = 12;

fn random_id() -> String {
    use rand::distr::{Alphanumeric, SampleString};
    Alphanumeric.sample_string(&mut rand::rng(), RANDOM_ID_LEN)
}
