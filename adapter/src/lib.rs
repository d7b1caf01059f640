//! The cluster side of a node that serves Socket.IO clients: what one server emits reaches the sockets of all.
//!
//! An [`Adapter`] sees the sockets of its node through the trait [`Local`] and knows nothing else of the node, so
//! any server can use it. In mode [`Mode::Memory`] a node is alone. In the modes [`Mode::Redis`] and
//! [`Mode::RedisSharded`] nodes talk over Redis exactly as Node.js servers with `@socket.io/redis-adapter` do
//! (`createAdapter`, "classic", and `createShardedAdapter`), so nodes of this crate, such servers, and with the
//! classic protocol anything that uses `@socket.io/redis-emitter`, may sit in one cluster.
//!
//! ```
//! use adapter::{Adapter, AdapterConfig, AdapterMetrics, Asked, Flags, GapCause, Local, Published};
//! use adapter::{RoomName, Selection, SocketDetail};
//! use protocol::{id::NodeTag, socket::EventData};
//! use std::{sync::Arc, time::Duration};
//! use tokio_util::sync::CancellationToken;
//!
//! /// The sockets of a node that has none. A real one selects, delivers, and describes.
//! struct Nobody;
//!
//! impl Local for Nobody {
//!     fn has_room(&self, _ns: &str, _room: &str) -> bool { false }
//!     async fn ready(&self) {}
//!     fn deliver(&self, _ns: &str, _to: &Selection, _flags: Flags, _data: EventData) {}
//!     async fn join(&self, _ns: &str, _who: &Selection, _rooms: &[RoomName]) {}
//!     async fn leave(&self, _ns: &str, _who: &Selection, _rooms: &[RoomName]) {}
//!     async fn disconnect(&self, _ns: &str, _who: &Selection, _close: bool) {}
//!     async fn rooms(&self, _ns: &str) -> Vec<RoomName> { Vec::new() }
//!     async fn sockets(&self, _ns: &str, _who: &Selection) -> Vec<SocketDetail> { Vec::new() }
//!     async fn ask(
//!         &self, _ns: &str, _who: &Selection, _flags: Flags, _data: EventData, _timeout: Duration,
//!     ) -> Asked {
//!         Asked { n_asked: 0, answers: Box::pin(futures_util::stream::empty()) }
//!     }
//!     async fn server_event(&self, _ns: &str, _event: EventData, _is_answered: bool) -> EventData {
//!         EventData { json: "[null]".into(), attachments: Vec::new() }
//!     }
//!     fn n_sockets(&self) -> usize { 0 }
//!     fn tag(&self) -> Option<NodeTag> { None }
//!     fn change_tag(&self) -> bool { false }
//!     fn gap(&self, _ns: &str, _room: Option<&str>, _cause: GapCause) {}
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! // With a Redis: mode: Mode::Redis, redis: Some(RedisConfig::new("redis://127.0.0.1".into()))
//! let config = AdapterConfig::default();
//! let metrics = AdapterMetrics::register(&prometheus::Registry::new()).expect("no name is taken");
//! let adapter = Adapter::new(Arc::new(Nobody), config, metrics).expect("a valid configuration");
//! adapter.open_namespace("/");
//!
//! let shutdown = CancellationToken::new();
//! let using = async {
//!     let event = EventData { json: r#"["news","of today"]"#.into(), attachments: Vec::new() };
//!     let everybody = Selection::default();
//!     // Local delivery is the caller's; this is for the sockets of the others.
//!     let published = adapter.broadcast("/", &everybody, Flags::default(), &event);
//!     assert_eq!(published, Published::LocalOnly);
//!     let sockets = adapter.fetch_sockets("/", &everybody).await.expect("everybody has answered");
//!     assert!(sockets.is_empty());
//!     shutdown.cancel();
//! };
//! tokio::join!(adapter.run(shutdown.clone()), using);
//! # });
//! ```
//!
//! # What is delivered
//!
//! - Local delivery is the caller's, before [`Adapter::broadcast`], and does not depend on Redis in any way.
//!   Joins, leaves and disconnects are applied to the own sockets first, then sent.
//! - At most once: what may have been published is never published again, a node drops its own echo, and a
//!   message that matches several subscriptions is taken for the one it belongs to.
//! - In order, per publisher and namespace: everything goes out over one connection and comes in over one
//!   connection. What concerns sockets goes through one queue per namespace and is applied one after the other,
//!   remote joins, leaves and disconnects included; of a question the first step is taken in order, and what
//!   takes time runs beside. On a Redis Cluster with [`Mode::RedisSharded`] channels live on different servers:
//!   there, order holds within a channel.
//! - Nothing is lost silently. A message that finds its queue full, or is larger than
//!   [`AdapterConfig::cluster_frame_max`], raises [`Local::gap`] with [`GapCause::Overflow`] for the room of
//!   its channel, else for the namespace, before any later message is delivered. A link that was lost raises
//!   it with [`GapCause::LinkLost`], once per open namespace, when the link is back: only then is it certain
//!   that who connects anew misses nothing more. The first time that the link comes up is no gap. Answers have
//!   a queue of their own: a lost one is no gap, who waits for it learns that it is missing.
//! - Nothing waits: [`Adapter::broadcast`] queues, or says at once that the message is [`Published::Lost`].
//! - Whatever comes out of Redis, the adapter counts it and goes on.
//!
//! # What can be asked
//!
//! [`Adapter::fetch_sockets`], [`sockets`](Adapter::sockets), [`all_rooms`](Adapter::all_rooms),
//! [`broadcast_with_ack`](Adapter::broadcast_with_ack) and
//! [`server_side_emit_with_ack`](Adapter::server_side_emit_with_ack) ask all servers. How many must answer is, as
//! on Node, the number of connections that subscribe to one channel.
//!
//! - What is not whole is an error. [`RequestError`] holds what has arrived (the own part always), how many
//!   servers answered and how many were to, and why it ended: time was over, the link was lost, too much was
//!   waiting, or the request was one that others could not bear, which is asked of nobody.
//! - What waits is bounded: [`AdapterConfig::requests_max`] requests, [`AdapterConfig::response_bytes_max`]
//!   bytes of answers to each. A caller that goes away takes everything along. Answers that come late, twice, or
//!   for somebody else are counted and meet nothing.
//! - Node counts answers without a look at who gives them. Nodes of this crate say who they are in a key that
//!   Node ignores, so their answers count once.
//! - Node's `expectSingleResponse` is a matter of who reads the answers: take the first.
//! - With the flag [`local`](Flags::local) only the own sockets are asked; on Node that always times out.
//! - The sharded protocol does not know the questions for ids and rooms; they are put as a fetch of sockets.
//! - An answer of ours larger than [`AdapterConfig::cluster_frame_max`] cannot be sent in parts: the one who asks
//!   gets an empty one at once, and it is counted and logged here. What takes time to answer is bounded too; with
//!   too much of it the answer is empty, and counted.
//!
//! # Participation
//!
//! A node can join a live cluster of Node servers in stages ([`AdapterConfig::participation`]), in mode
//! [`Mode::Redis`]:
//!
//! | | counted, answers | applies join, leave, disconnect, server-side events | delivers broadcasts | asks |
//! |---|---|---|---|---|
//! | [`Broadcasts`](Participation::Broadcasts) | no | no | yes | yes |
//! | [`Commands`](Participation::Commands) | no | yes | yes | yes |
//! | [`Full`](Participation::Full) | yes | yes | yes | yes |
//!
//! Broadcasts with acknowledgement are questions: with [`Commands`](Participation::Commands) they are delivered
//! and nobody is told what clients answer, with [`Broadcasts`](Participation::Broadcasts) they are not received.
//!
//! # Channels
//!
//! With `P` for the prefix ([`AdapterConfig::key`]), `N` for the namespace, `U` for the uid of a server, which is
//! new with each start, `R` for a room and `T` for the node's tag.
//!
//! | Channel, classic | Carries | Subscription of this crate |
//! |---|---|---|
//! | `P#N#` | broadcasts to everyone or to several rooms | `PSUBSCRIBE P#N#*`; by interest `SUBSCRIBE` |
//! | `P#N#R#` | broadcasts to one room; dropped undecoded if nobody here is in it | the same; by interest `SUBSCRIBE` for rooms with members here, and `PSUBSCRIBE P#N#T*` for ids |
//! | `P-request#N#` | what emitters and servers ask; **counted** | `Full`: `SUBSCRIBE`, after all others; `Commands`: `PSUBSCRIBE` of a pattern that matches nothing else, which is not counted |
//! | `P-response#N#` | answers | `SUBSCRIBE` |
//! | `P-response#N#U#` | answers to one server | `SUBSCRIBE` of the own one |
//! | `P-carillon#` | probes of nodes of this crate; Node does not listen | `SUBSCRIBE` |
//!
//! | Channel, sharded | Carries | Subscription of this crate |
//! |---|---|---|
//! | `P#N#` | requests, and broadcasts without a channel of their own; **counted** | `SSUBSCRIBE`, after all others |
//! | `P#N#R#` | broadcasts to one room, by [`ShardedMode`] | `SSUBSCRIBE` for rooms with members here |
//! | `P#N#U#` | answers to one server | `SSUBSCRIBE` of the own one |
//!
//! Glob characters in prefix and namespace are escaped. A user of an ACL needs each pattern granted literally
//! (`&P#N#*`), and `&P-response#N#*` for the channel whose name nobody knows before. Redis pub/sub knows no
//! databases: a database number isolates nothing, a prefix does.
//!
//! # Channels that follow rooms
//!
//! With [`Subscribe::Interest`] and the dynamic [`ShardedMode`]s a node receives the channel of a room only while
//! it has members. The node says so by [`Adapter::room_opened`] and [`Adapter::room_closed`], for the rooms that
//! [`Adapter::follows`] names, and acknowledges a join from [`Adapter::when_followed`]. A channel is kept for
//! [`AdapterConfig::follow_linger`] after the last member left.
//!
//! Who lets sockets elsewhere join a room and then emits to it would be too early: the others subscribe only when
//! they are told. So for five seconds after [`Adapter::join`] broadcasts to these rooms go to the base channel,
//! which all receive. Node servers and emitters do not do that, which is why [`Subscribe::All`] is the default.
//!
//! One name can mean two things: the base channel of the namespace `/#x` is that of the room `x` in `/`. A node
//! that needs it for both hands each message to both, and the namespace in the message says whose it is.
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
//! # The way of a question
//!
//! ```text
//!      node A                              Redis                       servers B and C
//!  Adapter::fetch_sockets
//!   Local::sockets, meanwhile:
//!   how many? ──── PUBSUB NUMSUB P-request#N# ──►│
//!        │◄─────── 3, one of which is A ─────────┤
//!   table of requests: id, waits for 2           │
//!   publish queue ── PUBLISH P-request#N# ──────►├──► queue of the namespace
//!        │                                       │    Local::sockets, its first step in order
//!        │◄── P-response#N#A# ───────────────────┤◄── B: its sockets
//!   1 of 2                                       │
//!        │◄── P-response#N#A# ───────────────────┤◄── C: none, which is an answer too
//!   2 of 2: whole                                │
//! ```
//!
//! # The way of a broadcast with acknowledgements
//!
//! ```text
//!      node A                              Redis                          server B
//!  Adapter::broadcast_with_ack
//!   publish queue ── PUBLISH P-request#N# ──────►├──► queue of the namespace
//!   Local::ask, meanwhile                        │    Local::ready, Local::ask: 2 clients
//!   how many? ──── PUBSUB NUMSUB P-request#N# ──►│
//!        │◄─────── 2, one of which is A ─────────┤
//!        │◄── count of clients: 2 ───────────────┤◄── at once
//!        │◄── answer of a client ────────────────┤◄── as it comes; a task waits for them,
//!        │◄── answer of a client ────────────────┤◄── the queue goes on
//!   1 of 1 server, 2 of 2 clients, own clients: whole
//! ```
//!
//! # The link
//!
//! One task keeps two connections, one that publishes and one that receives; on a Redis Cluster with
//! [`Mode::RedisSharded`] there is such a link to each master. A link is up when both connections talk to a master
//! over RESP3, every subscription is confirmed, and a probe has made the whole way. A probe goes out every
//! [`AdapterConfig::probe_interval`]; two missed in a row or the end of either connection take both down, and
//! attempts to connect follow after random pauses that grow from [`AdapterConfig::reconnect_delay_min`] to
//! [`AdapterConfig::reconnect_delay_max`], forever.
//!
//! # Who is there
//!
//! A node with a [`NodeDescription`] keeps the key `P-carillon:node:T` in Redis, which expires after 15 seconds
//! and is refreshed every 5, and its tag in the index `P-carillon:nodes`; [`Adapter::nodes`] reads them. A node
//! that finds its tag taken takes another one while it can ([`Local::change_tag`]).
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
