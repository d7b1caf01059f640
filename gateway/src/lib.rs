//! The Carillon gateway node.
//!
//! A node holds client sockets and nothing else: what is shared with other nodes travels through
//! the [`adapter`], what an event does is decided by [`rules`]. The modules in reading order:
//!
//! - [`app`] builds everything and owns every task, [`drain`] ends it in order.
//! - [`server`] accepts connections; [`engine`] holds Engine.IO sessions on them.
//! - [`socket`] is the Socket.IO edge: packets in, decisions of [`rules`], packets out by [`codec`].
//! - [`hub`] owns sockets and rooms, in lanes; whoever sends to sockets goes through it.
//! - [`config`], [`cli`], [`telemetry`], [`metrics`], [`readiness`], [`limit`], [`hash`], [`pages`], [`tag`] and [`task`]
//!   serve all of them.

pub mod app;
pub mod cli;
pub mod codec;
pub mod config;
pub mod drain;
pub mod engine;
pub mod hash;
pub mod hub;
pub mod limit;
pub mod metrics;
pub mod pages;
pub mod readiness;
pub mod rules;
pub mod server;
pub mod socket;
pub mod tag;
pub mod task;
pub mod telemetry;
