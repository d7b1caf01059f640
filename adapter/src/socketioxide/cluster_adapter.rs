//! The trait with which socketioxide takes part in a cluster.

use super::{
    Cluster, ClusterError,
    namespace::{Namespace, Target, to_room_name},
    value::{from_event_data, to_event_data},
};
use crate::{Acks, Flags, Follow, RequestError, RoomName, Selection, SocketDetail};
use futures_util::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, Fuse, FusedStream},
};
use protocol::socket::EventData;
use serde::de::DeserializeOwned;
use socketioxide_core::{
    Sid, Uid,
    adapter::{
        AckStreamItem, BroadcastFlags, BroadcastOptions, CoreAdapter, CoreLocalAdapter,
        DefinedAdapter, RemoteSocketData, Room, RoomParam, SocketEmitter, errors::BroadcastError,
    },
    packet::{Packet, PacketData},
};
use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// The sockets of one namespace of a socketioxide application, as a part of a [`Cluster`].
///
/// To be named where the application is built, `SocketIo::builder().with_adapter::<ClusterAdapter<_>>(cluster)`.
/// Nothing has to be called on it.
pub struct ClusterAdapter<E: SocketEmitter> {
    cluster: Cluster<E>,
    pub(super) namespace: Arc<Namespace<E>>,
}

impl<E: SocketEmitter> ClusterAdapter<E> {
    fn path(&self) -> &str {
        self.namespace.path()
    }

    /// The data of an event, as the other servers get it.
    fn data(&self, packet: &Packet) -> Option<EventData> {
        let (PacketData::Event(value, _) | PacketData::BinaryEvent(value, _)) = &packet.inner
        else {
            return None;
        };
        let data = to_event_data(value);
        if let Err(error) = &data {
            self.cluster.local.metrics().unpublishable_total.inc();
            tracing::debug!(event = "publish_refused", %error, "an event was not published");
        }
        data.ok()
    }

    fn leave_cluster(&self) {
        self.cluster.close(&self.namespace);
    }

    /// Waits until what is sent to rooms comes here, as far as that depends on who is in them.
    async fn follow_all(&self, rooms: &[RoomName]) {
        let waits = rooms.iter().map(|room| self.cluster.follow(self.path(), room));
        futures_util::future::join_all(waits).await;
    }

    async fn fetch(&self, selection: &Selection) -> Result<Vec<SocketDetail>, ClusterError> {
        Ok(self.cluster.adapter.fetch_sockets(self.path(), selection).await?)
    }

    /// Asks the sockets of the whole cluster. The question is under way when this returns; the answers come when
    /// the stream is polled.
    fn ask_cluster(
        &self,
        selection: Selection,
        flags: Flags,
        data: EventData,
        timeout: Duration,
    ) -> BoxStream<'static, AckStreamItem<E::AckError>> {
        let (cluster, namespace) = (self.cluster.clone(), Arc::clone(&self.namespace));
        let mut request: BoxFuture<'static, _> = Box::pin(async move {
            let ns = namespace.path();
            let asking = cluster.adapter.broadcast_with_ack(ns, &selection, flags, &data, timeout);
            items(&namespace, asking.await)
        });
        match request.as_mut().now_or_never() {
            Some(items) => stream::iter(items).boxed(),
            None => request.map(stream::iter).flatten_stream().boxed(),
        }
    }
}

impl<E: SocketEmitter> Drop for ClusterAdapter<E> {
    fn drop(&mut self) {
        self.leave_cluster();
    }
}

impl<E: SocketEmitter> DefinedAdapter for ClusterAdapter<E> {}

impl<E: SocketEmitter> CoreAdapter<E> for ClusterAdapter<E> {
    type Error = ClusterError;
    type State = Cluster<E>;
    type AckStream = AckStream<E::AckError>;
    type InitRes = ();

    fn new(cluster: &Cluster<E>, core: CoreLocalAdapter<E>) -> Self {
        Self { cluster: cluster.clone(), namespace: Arc::new(Namespace::new(core)) }
    }

    fn init(self: Arc<Self>, on_success: impl FnOnce() + Send + 'static) {
        // The subscription follows on its own. Clients need not wait for it: what they emit is delivered here.
        self.cluster.open(&self.namespace);
        on_success();
    }

    async fn close(&self) -> Result<(), ClusterError> {
        self.leave_cluster();
        Ok(())
    }

    async fn server_count(&self) -> Result<u16, ClusterError> {
        let count = self.cluster.adapter.server_count(self.path()).await;
        count.map(|count| u16::try_from(count).unwrap_or(u16::MAX)).ok_or(ClusterError::Uncounted)
    }

    async fn broadcast(
        &self,
        packet: Packet,
        options: BroadcastOptions,
    ) -> Result<(), BroadcastError> {
        let Some(target) = self.namespace.target(&options) else { return Ok(()) };
        let published = match target {
            Target::Cluster(selection) => self.data(&packet).map(|data| (selection, data)),
            Target::Local => None,
        };
        let flags = flags(&options);
        // Those who are here first: whatever becomes of the others, they have it.
        for sibling in self.cluster.local.namespaces(self.path()).iter() {
            if !Arc::ptr_eq(sibling, &self.namespace) {
                sibling.admit(&options);
                let delivered = sibling.core.broadcast(packet.clone(), options.clone());
                self.cluster.local.count_undelivered(delivered);
            }
        }
        self.namespace.admit(&options);
        let delivered = self.namespace.core.broadcast(packet, options);
        if let Some((selection, data)) = published {
            self.cluster.adapter.broadcast(self.path(), &selection, flags, &data);
        }
        Ok(delivered?)
    }

    async fn broadcast_with_ack(
        &self,
        packet: Packet,
        options: BroadcastOptions,
        timeout: Option<Duration>,
    ) -> Result<AckStream<E::AckError>, ClusterError> {
        let Some(target) = self.namespace.target(&options) else {
            return Ok(AckStream(stream::empty().boxed().fuse()));
        };
        let question = match target {
            Target::Cluster(selection) => self.data(&packet).map(|data| (selection, data)),
            Target::Local => None,
        };
        let answers = match question {
            Some((selection, data)) => {
                let timeout = timeout.unwrap_or_else(|| self.namespace.core.ack_timeout());
                self.ask_cluster(selection, flags(&options), data, timeout)
            }
            None => {
                self.namespace.admit(&options);
                self.namespace.core.broadcast_with_ack(packet, options, timeout).0.boxed()
            }
        };
        Ok(AckStream(answers.fuse()))
    }

    async fn add_sockets(
        &self,
        options: BroadcastOptions,
        rooms: impl RoomParam,
    ) -> Result<(), ClusterError> {
        let rooms: Vec<Room> = rooms.into_room_iter().collect();
        let target = self.namespace.target(&options);
        if target.is_none() {
            return Ok(());
        }
        let names: Vec<_> = rooms.iter().map(to_room_name).collect();
        self.namespace.admit(&options);
        let follows = self.cluster.adapter.follows() != Follow::Nothing;
        if follows && !self.namespace.core.sockets(options.clone()).is_empty() {
            self.follow_all(&names).await;
        }
        match target {
            Some(Target::Cluster(selection)) => {
                self.cluster.adapter.join(self.path(), &selection, &names).await;
            }
            _ => self.get_local().add_sockets(options, rooms),
        }
        Ok(())
    }

    async fn del_sockets(
        &self,
        options: BroadcastOptions,
        rooms: impl RoomParam,
    ) -> Result<(), ClusterError> {
        let rooms: Vec<Room> = rooms.into_room_iter().collect();
        match self.namespace.target(&options) {
            Some(Target::Cluster(selection)) => {
                let rooms: Vec<_> = rooms.iter().map(to_room_name).collect();
                self.cluster.adapter.leave(self.path(), &selection, &rooms).await;
            }
            Some(Target::Local) => {
                self.namespace.admit(&options);
                self.get_local().del_sockets(options, rooms);
            }
            None => {}
        }
        Ok(())
    }

    async fn disconnect_socket(&self, options: BroadcastOptions) -> Result<(), BroadcastError> {
        match self.namespace.target(&options) {
            Some(Target::Cluster(selection)) => {
                self.cluster.adapter.disconnect(self.path(), &selection, false).await;
                Ok(())
            }
            Some(Target::Local) => {
                self.namespace.admit(&options);
                self.namespace.core.disconnect_socket(options).map_err(BroadcastError::from)
            }
            None => Ok(()),
        }
    }

    async fn rooms(&self, options: BroadcastOptions) -> Result<Vec<Room>, ClusterError> {
        let rooms: BTreeSet<RoomName> = match self.namespace.target(&options) {
            None => BTreeSet::new(),
            Some(Target::Local) => {
                self.namespace.admit(&options);
                return Ok(self.namespace.core.rooms(options).into_iter().collect());
            }
            Some(Target::Cluster(selection)) if selection == Selection::default() => {
                self.cluster.adapter.all_rooms(self.path()).await?
            }
            Some(Target::Cluster(selection)) => {
                self.fetch(&selection).await?.into_iter().flat_map(|socket| socket.rooms).collect()
            }
        };
        Ok(rooms.iter().map(|room| Room::Owned(room.as_str().to_owned())).collect())
    }

    async fn fetch_sockets(
        &self,
        options: BroadcastOptions,
    ) -> Result<Vec<RemoteSocketData>, ClusterError> {
        let selection = match self.namespace.target(&options) {
            None => return Ok(Vec::new()),
            Some(Target::Local) => {
                self.namespace.admit(&options);
                return Ok(self.namespace.core.fetch_sockets(options));
            }
            Some(Target::Cluster(selection)) => selection,
        };
        let sockets = self.fetch(&selection).await?;
        let n_sockets = sockets.len();
        let ids = sockets.iter().filter_map(|socket| socket.id.parse::<Sid>().ok());
        let fetched: Vec<_> = ids
            .map(|id| RemoteSocketData {
                id,
                // Which of the other servers has a socket is not told.
                server_id: if self.namespace.has(id) {
                    self.namespace.core.server_id()
                } else {
                    Uid::ZERO
                },
                ns: self.namespace.core.path().clone(),
            })
            .collect();
        let left_out = n_sockets - fetched.len();
        self.cluster.local.metrics().left_out_total.inc_by(left_out as u64);
        Ok(fetched)
    }

    fn get_local(&self) -> &CoreLocalAdapter<E> {
        // socketioxide asks for it to let sockets join and leave, and nobody else does so often.
        self.cluster.local.changed.notify_one();
        &self.namespace.core
    }
}

/// Answers of sockets as they come. Made by [`ClusterAdapter`] for socketioxide.
pub struct AckStream<Error>(Fuse<BoxStream<'static, AckStreamItem<Error>>>);

impl<Error> Stream for AckStream<Error> {
    type Item = AckStreamItem<Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<Error> FusedStream for AckStream<Error> {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

fn flags(options: &BroadcastOptions) -> Flags {
    Flags { volatile: options.has_flag(BroadcastFlags::Volatile), ..Flags::default() }
}

/// What the cluster answered, as socketioxide takes it.
fn items<E: SocketEmitter>(
    namespace: &Namespace<E>,
    acks: Result<Acks, RequestError<Acks>>,
) -> Vec<AckStreamItem<E::AckError>> {
    let (acks, is_whole) = match acks {
        Ok(acks) => (acks, true),
        Err(error) => (error.arrived, false),
    };
    let answers = acks.answers.into_iter().filter_map(|answer| {
        let id = answer.socket.and_then(|id| id.parse().ok()).unwrap_or(Sid::ZERO);
        Some((id, Ok(from_event_data(answer.args, namespace.kind()).ok()?)))
    });
    let missing = if is_whole { None } else { timed_out() };
    answers.chain(missing.map(|error| (Sid::ZERO, Err(error)))).collect()
}

/// The error of an answer that did not come. Errors of socketioxide cannot be made here, but read.
fn timed_out<Error: DeserializeOwned>() -> Option<Error> {
    serde_json::from_str(r#""Timeout""#).ok()
}
