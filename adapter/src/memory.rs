//! The mode of a node that is alone: its own sockets are everybody.

use crate::{
    Acks, AdapterConfig, Flags, LinkState, Local, NodeRecord, RequestCause, RequestError, RoomName,
    Selection, SocketDetail, registry, request::size,
};
use futures_util::StreamExt;
use protocol::socket::EventData;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::watch;

pub(crate) struct Memory<L> {
    local: Arc<L>,
    link: watch::Sender<LinkState>,
    node: Option<registry::Identity>,
    response_bytes_max: usize,
}

impl<L: Local> Memory<L> {
    pub(crate) fn new(local: Arc<L>, config: &AdapterConfig) -> Self {
        Self {
            local,
            link: watch::Sender::new(LinkState::Memory),
            node: registry::Identity::new(config, crate::random_id()),
            response_bytes_max: config.response_bytes_max,
        }
    }

    pub(crate) fn link(&self) -> &watch::Sender<LinkState> {
        &self.link
    }

    pub(crate) async fn broadcast_with_ack(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
        timeout: Duration,
    ) -> Result<Acks, RequestError<Acks>> {
        ask_local(&*self.local, ns, selection, flags, data, timeout, self.response_bytes_max).await
    }

    pub(crate) async fn fetch_sockets(&self, ns: &str, selection: &Selection) -> Vec<SocketDetail> {
        self.local.sockets(ns, selection).await
    }

    pub(crate) async fn sockets(&self, ns: &str, rooms: &[RoomName]) -> BTreeSet<RoomName> {
        ids(self.local.sockets(ns, &selection_of(rooms)).await)
    }

    pub(crate) async fn all_rooms(&self, ns: &str) -> BTreeSet<RoomName> {
        self.local.rooms(ns).await.into_iter().collect()
    }

    pub(crate) async fn join(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        self.local.join(ns, selection, rooms).await;
    }

    pub(crate) async fn leave(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        self.local.leave(ns, selection, rooms).await;
    }

    pub(crate) async fn disconnect(&self, ns: &str, selection: &Selection, close: bool) {
        self.local.disconnect(ns, selection, close).await;
    }

    pub(crate) fn nodes(&self) -> Vec<NodeRecord> {
        let (Some(node), Some(tag)) = (&self.node, self.local.tag()) else { return Vec::new() };
        vec![node.record(tag, self.local.n_sockets())]
    }
}

/// The sockets in any of the rooms, all if there are none.
pub(crate) fn selection_of(rooms: &[RoomName]) -> Selection {
    Selection { rooms: rooms.to_vec(), except: Vec::new() }
}

pub(crate) fn ids(sockets: Vec<SocketDetail>) -> BTreeSet<RoomName> {
    sockets.into_iter().map(|socket| socket.id).collect()
}

/// Asks only the sockets of this node.
pub(crate) async fn ask_local<L: Local>(
    local: &L,
    ns: &str,
    selection: &Selection,
    flags: Flags,
    data: &EventData,
    timeout: Duration,
    bytes_max: usize,
) -> Result<Acks, RequestError<Acks>> {
    let mut acks = Acks::default();
    let mut bytes = 0;
    let asking = async {
        let mut asked = local.ask(ns, selection, flags, data.clone(), timeout).await;
        acks.n_asked = asked.n_asked as u64;
        while let Some(answer) = asked.answers.next().await {
            bytes += size(&answer.args);
            if bytes > bytes_max {
                return Some(RequestCause::Overload);
            }
            acks.answers.push(answer);
        }
        None
    };
    let cause = match tokio::time::timeout(timeout, asking).await {
        Ok(Some(cause)) => cause,
        // Who has left without an answer did not answer, as on Node.
        _ if acks.is_complete() => return Ok(acks),
        _ => RequestCause::Timeout,
    };
    Err(RequestError { cause, arrived: acks, received: 0, expected: Some(0) })
}
