//! What the adapter sees of the sockets of a socketioxide application.

use super::{Description, OxideMetrics, ServerEvent, namespace::Namespace, value::to_event_data};
use crate::{
    Asked, ClientAnswer, Flags, GapCause, Local, RoomName, Selection, SocketDetail,
    metrics::prometheus::IntCounter,
};
use futures_util::{StreamExt, future::BoxFuture, stream};
use protocol::{id::NodeTag, socket::EventData};
use socketioxide_core::{
    Sid,
    adapter::{BroadcastOptions, Room, SocketEmitter, errors::SocketError},
};
use std::{
    collections::{HashMap, HashSet},
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

/// The live namespaces of one path, the oldest first.
pub(super) type Namespaces<E> = Arc<[Arc<Namespace<E>>]>;

struct State<E> {
    /// By path. There can be several of one path: socketioxide makes a dynamic namespace once for each client that
    /// asks for it before the first one is known. All of them have sockets, and live as long as those.
    namespaces: HashMap<String, Namespaces<E>>,
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

    /// Begins to see a namespace.
    pub(super) fn open(&self, namespace: &Arc<Namespace<E>>) {
        let mut state = self.write();
        let seen = state.namespaces.entry(namespace.path().to_owned()).or_default();
        *seen = seen.iter().chain([namespace]).cloned().collect();
    }

    /// Stops seeing a namespace. Says whether it was the last one of its path.
    pub(super) fn close(&self, namespace: &Arc<Namespace<E>>) -> bool {
        let mut state = self.write();
        let Some(seen) = state.namespaces.get_mut(namespace.path()) else { return false };
        *seen = seen.iter().filter(|seen| !Arc::ptr_eq(seen, namespace)).cloned().collect();
        let was_last = seen.is_empty();
        if was_last {
            state.namespaces.remove(namespace.path());
        }
        was_last
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

    /// All namespaces, those of one path together.
    pub(super) fn paths(&self) -> Vec<Namespaces<E>> {
        self.read().namespaces.values().cloned().collect()
    }

    /// The namespaces of a path.
    pub(super) fn namespaces(&self, ns: &str) -> Namespaces<E> {
        self.read().namespaces.get(ns).cloned().unwrap_or_default()
    }

    fn read(&self) -> RwLockReadGuard<'_, State<E>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<E>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_undelivered(&self, outcome: Result<(), Vec<SocketError>>) {
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
        self.namespaces(ns).iter().any(|namespace| namespace.has_room(room))
    }

    async fn ready(&self) {
        // The buffers of sockets cannot be asked for room. But whoever empties them gets a turn between two events.
        tokio::task::yield_now().await;
    }

    fn deliver(&self, ns: &str, selection: &Selection, flags: Flags, data: EventData) {
        let namespaces = self.namespaces(ns);
        let Some(first) = namespaces.first() else { return };
        match first.packet(data) {
            Ok(packet) => {
                for namespace in namespaces.iter() {
                    let options = namespace.options(selection, flags);
                    self.count_undelivered(namespace.core.broadcast(packet.clone(), options));
                }
            }
            Err(error) => {
                tracing::debug!(event = "event_refused", %error, "an event was not delivered");
            }
        }
    }

    async fn join(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        for namespace in self.namespaces(ns).iter() {
            let options = namespace.options(selection, Flags::default());
            namespace.core.add_sockets(options, rooms_of(rooms));
        }
        self.changed.notify_one();
    }

    async fn leave(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        for namespace in self.namespaces(ns).iter() {
            let options = namespace.options(selection, Flags::default());
            namespace.core.del_sockets(options, rooms_of(rooms));
        }
        self.changed.notify_one();
    }

    async fn disconnect(&self, ns: &str, selection: &Selection, close: bool) {
        let namespaces = self.namespaces(ns);
        let selected = namespaces.iter().flat_map(|namespace| {
            namespace.core.sockets(namespace.options(selection, Flags::default()))
        });
        let ids: HashSet<Sid> = selected.collect();
        // A socket has the same id in all namespaces of its connection, which clients close with the last one.
        let paths = if close { self.paths() } else { vec![namespaces] };
        for namespace in paths.iter().flat_map(|namespaces| namespaces.iter()) {
            for id in &ids {
                let outcome = namespace.core.disconnect_socket(BroadcastOptions::new(*id));
                self.count_undelivered(outcome);
            }
        }
    }

    async fn rooms(&self, ns: &str) -> Vec<RoomName> {
        rooms_in(&self.namespaces(ns)).into_iter().map(RoomName::from).collect()
    }

    async fn sockets(&self, ns: &str, selection: &Selection) -> Vec<SocketDetail> {
        let describe = self.read().describe.clone();
        let mut details = Vec::new();
        for namespace in self.namespaces(ns).iter() {
            let options = namespace.options(selection, Flags::default());
            // In a room may be who is still connecting.
            let ids = namespace.core.fetch_sockets(options).into_iter().map(|socket| socket.id);
            details.extend(ids.map(|id| self.detail(namespace, id, describe.as_ref())));
        }
        details
    }

    async fn ask(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: EventData,
        timeout: Duration,
    ) -> Asked {
        let namespaces = self.namespaces(ns);
        let Some(Ok(packet)) = namespaces.first().map(|first| first.packet(data)) else {
            return Asked { n_asked: 0, answers: Box::pin(stream::empty()) };
        };
        let asked = namespaces.iter().map(|namespace| {
            let options = namespace.options(selection, flags);
            namespace.core.broadcast_with_ack(packet.clone(), options, Some(timeout))
        });
        let (answers, n_asked): (Vec<_>, Vec<_>) =
            asked.map(|(answers, n_asked)| (answers.boxed(), n_asked as usize)).unzip();
        let invalid = self.metrics.invalid_answers_total.clone();
        let answers = stream::select_all(answers).filter_map(move |(id, answer)| {
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
        Asked { n_asked: n_asked.iter().sum(), answers: Box::pin(answers) }
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
        let paths = self.paths();
        let namespaces = paths.iter().flat_map(|namespaces| namespaces.iter());
        namespaces.map(|namespace| namespace.ids().len()).sum()
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
        let rooms = room.map(RoomName::from).into_iter().collect();
        let selection = Selection { rooms, except: Vec::new() };
        for namespace in self.namespaces(ns).iter() {
            let options = namespace.options(&selection, Flags::default());
            let packet = namespace.unreadable_packet();
            self.count_undelivered(namespace.core.broadcast(packet, options));
        }
    }
}

/// All rooms of the namespaces of one path, ids included, each once.
pub(super) fn rooms_in<E: SocketEmitter>(namespaces: &[Arc<Namespace<E>>]) -> HashSet<String> {
    namespaces.iter().flat_map(|namespace| namespace.rooms()).collect()
}

fn rooms_of(names: &[RoomName]) -> Vec<Room> {
    names.iter().map(|name| Room::Owned(name.as_str().to_owned())).collect()
}
