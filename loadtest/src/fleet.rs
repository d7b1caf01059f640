//! What is measured: one server, or the nodes of a cluster with the Redis between them.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::redis::Redis;
use crate::server::{Places, Program, Server};

/// Running servers of one program. Dropping it kills them.
pub struct Fleet {
    nodes: Vec<Server>,
    redis: Option<Redis>,
}

impl Fleet {
    /// Starts `n_nodes` servers, all on the server's core; more than one share a Redis. Only the first is
    /// started in the `wrapper`, since two profilers would wait for each other.
    pub fn start(
        program: Program,
        n_nodes: usize,
        places: &Places,
        core: Option<usize>,
        wrapper: &[String],
    ) -> Result<Fleet> {
        ensure!(n_nodes > 0, "a fleet has at least one node");
        let redis = if n_nodes > 1 { Some(Redis::start(core)?) } else { None };
        let mut nodes = Vec::new();
        for node in 0..n_nodes {
            let wrapper = if node == 0 { wrapper } else { &[] };
            nodes.push(Server::start(program, places, core, wrapper, redis.as_ref())?);
        }
        redis.as_ref().map_or(Ok(()), |redis| redis.joined_by(n_nodes))?;
        Ok(Fleet { nodes, redis })
    }

    /// Where clients connect to, node by node.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Server::address).collect()
    }

    /// The process ids of the nodes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Server::pid).collect()
    }

    /// The Redis between the nodes.
    pub fn redis(&self) -> Option<&Redis> {
        self.redis.as_ref()
    }
}
