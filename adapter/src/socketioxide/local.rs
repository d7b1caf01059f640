//! What the adapter sees of the sockets of a socketioxide application.

use super::{Description, OxideMetrics, ServerEvent, namespace::Namespace, value::to_event_data};
use crate::{
    Asked, ClientAnswer, Flags, GapCause, Local, RoomName, Selection, SocketDetail,
    metrics::prometheus::IntCounter,
};
use futures_util::{StreamExt, future::BoxFuture};
use protocol::{id::NodeTag, socket::EventData};
use socketioxide_core::{
    Sid,
    adapter::{BroadcastOptions, Room, SocketEmitter, errors::SocketError},
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};
use tokio::sync::Notify;

pub(super) type ServerEventHandler =
    Arc<dyn Fn(ServerEvent) -> BoxFuture<'static, Option<EventData>> + Send + Sync>;
pub(super) type Describer = Arc<dyn Fn(&str, Sid) -> Option<Description> + Send + Sync>;

/// The sockets of a socketioxide application, over all its namespaces.
pub struct OxideLocal<E> {
    state: RwLock<State<E>>,
    /// Somebody may have joined or left a room.
    pub(super) changed: Notify,
    metrics: OxideMetrics,
    undelivered: Undelivered,
}

struct State<E> {
    namespaces: HashMap<String, Arc<Namespace<E>>>,
    on_server_event: Option<ServerEventHandler>,
    describe: Option<Describer>,
}

/// Counters, resolved once.
struct Undelivered {
    full: IntCounter,
    closed: IntCounter,
}

impl<E: SocketEmitter> OxideLocal<E> {
    pub(super) fn new(metrics: OxideMetrics) -> Self {
        let undelivered = |cause| metrics.undelivered_total.with_label_values(&[cause]);
        let undelivered = Undelivered { full: undelivered("full"), closed: undelivered("closed") };
        let state = State { namespaces: HashMap::new(), on_server_event: None, describe: None };
        Self { state: RwLock::new(state), changed: Notify::new(), metrics, undelivered }
    }

    pub(super) fn metrics(&self) -> &OxideMetrics {
        &self.metrics
    }

    /// Begins to see a namespace. One of the same name is replaced: socketioxide makes a dynamic namespace twice
    /// if two clients ask for it at once, and goes on with the later one.
    pub(super) fn open(&self, namespace: &Arc<Namespace<E>>) {
        let path = namespace.path().to_owned();
        self.write().namespaces.insert(path, Arc::clone(namespace));
    }

    /// Stops seeing a namespace. Says whether it was seen.
    pub(super) fn close(&self, namespace: &Arc<Namespace<E>>) -> bool {
        let mut state = self.write();
        let is_seen = |seen: &Arc<Namespace<E>>| Arc::ptr_eq(seen, namespace);
        let was_seen = state.namespaces.get(namespace.path()).is_some_and(is_seen);
        if was_seen {
            state.namespaces.remove(namespace.path());
        }
        was_seen
    }

    pub(super) fn set_server_event_handler(&self, handler: ServerEventHandler) {
        self.write().on_server_event = Some(handler);
    }

    pub(super) fn set_describer(&self, describer: Describer) {
        self.write().describe = Some(describer);
    }

    pub(super) fn forget_handlers(&self) {
        let mut state = self.write();
        let handlers = (state.on_server_event.take(), state.describe.take());
        drop(state);
        // What they hold may hold this.
        drop(handlers);
    }

    pub(super) fn namespaces(&self) -> Vec<Arc<Namespace<E>>> {
        self.read().namespaces.values().cloned().collect()
    }

    fn namespace(&self, ns: &str) -> Option<Arc<Namespace<E>>> {
        self.read().namespaces.get(ns).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, State<E>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<E>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_undelivered(&self, outcome: Result<(), Vec<SocketError>>) {
        for error in outcome.err().into_iter().flatten() {
            match error {
                SocketError::InternalChannelFull => self.undelivered.full.inc(),
                SocketError::Closed => self.undelivered.closed.inc(),
            }
        }
    }

    fn detail(
        &self,
        namespace: &Namespace<E>,
        id: Sid,
        describe: Option<&Describer>,
    ) -> SocketDetail {
        let own = RoomName::from(id.as_str());
        let joined = namespace.core.socket_rooms(id);
        let joined = joined.iter().filter(|room| room.as_ref() != id.as_str());
        let joined = joined.map(|room| RoomName::from(room.as_ref()));
        let rooms = std::iter::once(own.clone()).chain(joined).collect();
        let description = describe.and_then(|describe| describe(namespace.path(), id));
        let Description { handshake, data } = description.unwrap_or_default();
        let handshake = serde_json::to_string(&handshake).unwrap_or_else(|_| String::from("{}"));
        let data = serde_json::Value::Object(data).to_string();
        SocketDetail { id: own, rooms, handshake: handshake.into(), data: data.into() }
    }
}

impl<E: SocketEmitter> Local for OxideLocal<E> {
    fn has_room(&self, ns: &str, room: &str) -> bool {
        self.namespace(ns).is_some_and(|namespace| namespace.has_room(room))
    }

    async fn ready(&self) {
        // The buffers of sockets cannot be asked for room. But whoever empties them gets a turn between two events.
        tokio::task::yield_now().await;
    }

    fn deliver(&self, ns: &str, selection: &Selection, flags: Flags, data: EventData) {
        let Some(namespace) = self.namespace(ns) else { return };
        match namespace.packet(data) {
            Ok(packet) => {
                let options = namespace.options(selection, flags);
                self.count_undelivered(namespace.core.broadcast(packet, options));
            }
            Err(error) => {
                tracing::debug!(event = "event_refused", %error, "an event was not delivered");
            }
        }
    }

    async fn join(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        let Some(namespace) = self.namespace(ns) else { return };
        let options = namespace.options(selection, Flags::default());
        namespace.core.add_sockets(options, rooms_of(rooms));
        self.changed.notify_one();
    }

    async fn leave(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        let Some(namespace) = self.namespace(ns) else { return };
        let options = namespace.options(selection, Flags::default());
        namespace.core.del_sockets(options, rooms_of(rooms));
        self.changed.notify_one();
    }

    async fn disconnect(&self, ns: &str, selection: &Selection, close: bool) {
        let Some(namespace) = self.namespace(ns) else { return };
        let options = namespace.options(selection, Flags::default());
        let ids = namespace.core.sockets(options);
        let mut namespaces = vec![Arc::clone(&namespace)];
        if close {
            // A socket has the same id in all namespaces of its connection, which clients close with the last one.
            let others = self.namespaces().into_iter();
            namespaces.extend(others.filter(|other| !Arc::ptr_eq(other, &namespace)));
        }
        for namespace in namespaces {
            for id in &ids {
                let outcome = namespace.core.disconnect_socket(BroadcastOptions::new(*id));
                self.count_undelivered(outcome);
            }
        }
    }

    async fn rooms(&self, ns: &str) -> Vec<RoomName> {
        let rooms = self.namespace(ns).map(|namespace| namespace.rooms()).unwrap_or_default();
        rooms.into_iter().map(RoomName::from).collect()
    }

    async fn sockets(&self, ns: &str, selection: &Selection) -> Vec<SocketDetail> {
        let Some(namespace) = self.namespace(ns) else { return Vec::new() };
        let describe = self.read().describe.clone();
        let options = namespace.options(selection, Flags::default());
        // In a room may be who is still connecting.
        let ids = namespace.core.fetch_sockets(options).into_iter().map(|socket| socket.id);
        ids.map(|id| self.detail(&namespace, id, describe.as_ref())).collect()
    }

    async fn ask(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: EventData,
        timeout: Duration,
    ) -> Asked {
        let question = self.namespace(ns).map(|namespace| {
            let packet = namespace.packet(data);
            (namespace.options(selection, flags), packet, namespace)
        });
        let Some((options, Ok(packet), namespace)) = question else {
            return Asked { n_asked: 0, answers: Box::pin(futures_util::stream::empty()) };
        };
        let (answers, n_asked) = namespace.core.broadcast_with_ack(packet, options, Some(timeout));
        let invalid = self.metrics.invalid_answers_total.clone();
        let answers = answers.filter_map(move |(id, answer)| {
            // Who does not answer in time, or has left, is just missing.
            let answer = answer.ok().and_then(|value| match to_event_data(&value) {
                Ok(args) => Some(ClientAnswer { socket: Some(RoomName::from(id.as_str())), args }),
                Err(_) => {
                    invalid.inc();
                    None
                }
            });
            std::future::ready(answer)
        });
        Asked { n_asked: n_asked as usize, answers: Box::pin(answers) }
    }

    async fn server_event(&self, ns: &str, event: EventData, is_answered: bool) -> EventData {
        let handler = self.read().on_server_event.clone();
        let answer = match handler {
            Some(handler) => {
                handler(ServerEvent { ns: ns.to_owned(), data: event, is_answered }).await
            }
            None => None,
        };
        answer.unwrap_or_else(|| EventData { json: "[null]".into(), attachments: Vec::new() })
    }

    fn n_sockets(&self) -> usize {
        self.namespaces().iter().map(|namespace| namespace.ids().len()).sum()
    }

    fn tag(&self) -> Option<NodeTag> {
        None
    }

    fn change_tag(&self) -> bool {
        false
    }

    fn gap(&self, ns: &str, room: Option<&str>, cause: GapCause) {
        if cause == GapCause::LinkLost {
            // The application sees it in the state of the link. Connections stay.
            return;
        }
        let Some(namespace) = self.namespace(ns) else { return };
        let rooms = room.map(RoomName::from).into_iter().collect();
        let selection = Selection { rooms, except: Vec::new() };
        let options = namespace.options(&selection, Flags::default());
        self.count_undelivered(namespace.core.broadcast(namespace.unreadable_packet(), options));
    }
}

fn rooms_of(names: &[RoomName]) -> Vec<Room> {
    names.iter().map(|name| Room::Owned(name.as_str().to_owned())).collect()
}
