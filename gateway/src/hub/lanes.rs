//! All lanes of this node, and the view of them that the adapter has.

use std::sync::Arc;

use adapter::{Flags, GapCause, Local, RoomName, Selection};
use protocol::id::{Id, NodeTag};
use protocol::socket::EventData;
use tokio::sync::mpsc;

use super::ack::{Question, Questions};
use super::lane::{Action, Asked, Broadcast, Command, Departures, Lane, LaneQueue};
use super::namespace::{Namespace, Namespaces};
use crate::codec::Codec;
use crate::config::OnGap;
use crate::metrics::HubMetrics;

/// The lanes of this node.
pub struct Lanes {
    queues: Box<[Arc<LaneQueue>]>,
    namespaces: Namespaces,
    codec: Codec,
    tag: NodeTag,
    on_gap: OnGap,
    metrics: HubMetrics,
    questions: Questions,
}

impl Lanes {
    /// Queues for `n_lanes` lanes; [`Lanes::tasks`] makes the tasks behind them.
    pub fn new(
        n_lanes: usize,
        namespaces: Namespaces,
        codec: Codec,
        tag: NodeTag,
        on_gap: OnGap,
        metrics: HubMetrics,
    ) -> Self {
        let queues = std::iter::repeat_with(|| Arc::new(LaneQueue::new())).take(n_lanes).collect();
        let questions = Questions::default();
        Self { queues, namespaces, codec, tag, on_gap, metrics, questions }
    }

    /// The tasks of all lanes, each to be run once.
    pub fn tasks(&self, departures: &Arc<dyn Departures>) -> Vec<Lane> {
        let lane = |queue: &Arc<LaneQueue>| {
            Lane::new(queue.clone(), departures.clone(), self.metrics.clone())
        };
        self.queues.iter().map(lane).collect()
    }

    /// The namespaces of this node.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// How packets are written to clients.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// This node's part of every id.
    pub fn tag(&self) -> NodeTag {
        self.tag
    }

    /// The lane that an id names.
    pub fn of(&self, id: Id) -> &LaneQueue {
        &self.queues[usize::from(id.lane()) % self.queues.len()]
    }

    /// Whether every lane takes commands.
    pub fn is_ready(&self) -> bool {
        self.queues.iter().all(|queue| queue.is_ready())
    }

    /// Waits until every lane has been seen to take commands.
    pub async fn wait_ready(&self) {
        for queue in &self.queues {
            queue.ready().await;
        }
    }

    /// Commands that wait, over all lanes.
    pub fn depth(&self) -> usize {
        self.queues.iter().map(|queue| queue.depth()).sum()
    }

    /// Waits until everything that is queued now is done.
    pub async fn settled(&self) {
        let (done, mut all_done) = mpsc::channel(1);
        for queue in &self.queues {
            queue.push(Command::Settle(done.clone()));
        }
        drop(done);
        let _ = all_done.recv().await;
    }

    /// Ends the lanes once they have done what is queued.
    pub fn close(&self) {
        for queue in &self.queues {
            queue.close();
        }
    }

    /// Sends an event to the selected sockets of this node.
    pub fn publish(
        &self,
        namespace: &Arc<Namespace>,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
    ) {
        let single_id = single_id(namespace, selection);
        if single_id.is_some_and(|id| id.tag() != self.tag) {
            // Only another node can have this socket.
            return;
        }
        let frame = self.codec.event(namespace.name(), None, data);
        let volatile = flags.volatile;
        if let Some(id) = single_id {
            let lane = self.of(id);
            lane.push(Command::Direct { namespace: namespace.clone(), id, frame, volatile });
            return;
        }
        let selection = Arc::new(selection.clone());
        for queue in &self.queues {
            queue.push(Command::Broadcast(Broadcast {
                namespace: namespace.clone(),
                selection: selection.clone(),
                frame: frame.clone(),
                volatile,
                question: None,
            }));
        }
    }

    /// The events of this node that wait for acknowledgements.
    pub fn questions(&self) -> &Questions {
        &self.questions
    }

    /// Sends an event with the acknowledgement id `id` and returns once every lane has noted whom it
    /// asked.
    pub(super) async fn ask(
        &self,
        namespace: &Arc<Namespace>,
        selection: Selection,
        data: &EventData,
        id: u64,
        question: &Arc<Question>,
    ) {
        let frame = self.codec.event(namespace.name(), Some(id), data);
        let selection = Arc::new(selection);
        let (done, mut all_done) = mpsc::channel(1);
        for queue in &self.queues {
            queue.push(Command::Broadcast(Broadcast {
                namespace: namespace.clone(),
                selection: selection.clone(),
                frame: frame.clone(),
                volatile: false,
                question: Some(Asked { question: question.clone(), done: done.clone() }),
            }));
        }
        drop(done);
        let _ = all_done.recv().await;
    }

    async fn each(&self, namespace: &str, selection: &Selection, action: Action) {
        let Some(namespace) = self.namespaces.get(namespace) else { return };
        let (done, mut all_done) = mpsc::channel(1);
        self.push_each(&namespace, selection, &action, Some(&done));
        drop(done);
        // Nothing is ever sent: the channel ends when the last lane has dropped its sender.
        let _ = all_done.recv().await;
    }

    fn push_each(
        &self,
        namespace: &Arc<Namespace>,
        selection: &Selection,
        action: &Action,
        done: Option<&mpsc::Sender<()>>,
    ) {
        let selection = Arc::new(selection.clone());
        for queue in &self.queues {
            queue.push(Command::Each {
                namespace: namespace.clone(),
                selection: selection.clone(),
                action: action.clone(),
                done: done.cloned(),
            });
        }
    }
}

/// The one socket that is selected by its id alone: one lane can serve it, unless a server made
/// others join that id as a room.
fn single_id(namespace: &Namespace, selection: &Selection) -> Option<Id> {
    let [room] = selection.rooms.as_slice() else { return None };
    let id = Id::parse(room)?;
    (selection.except.is_empty() && !namespace.has_room(room)).then_some(id)
}

impl Local for Lanes {
    fn has_room(&self, namespace: &str, room: &str) -> bool {
        let Some(namespace) = self.namespaces.get(namespace) else { return false };
        Id::parse(room).is_some_and(|id| id.tag() == self.tag) || namespace.has_room(room)
    }

    async fn ready(&self) {
        self.wait_ready().await;
    }

    fn deliver(&self, namespace: &str, selection: &Selection, flags: Flags, data: EventData) {
        if let Some(namespace) = self.namespaces.get(namespace) {
            self.publish(&namespace, selection, flags, &data);
        }
    }

    async fn join(&self, namespace: &str, selection: &Selection, rooms: &[RoomName]) {
        self.each(namespace, selection, Action::Join(rooms.into())).await;
    }

    async fn leave(&self, namespace: &str, selection: &Selection, rooms: &[RoomName]) {
        self.each(namespace, selection, Action::Leave(rooms.into())).await;
    }

    async fn disconnect(&self, namespace: &str, selection: &Selection, close: bool) {
        let farewell = self.codec.disconnect(namespace);
        self.each(namespace, selection, Action::Disconnect(farewell, close)).await;
    }

    #[allow(clippy::todo)]
    async fn rooms(&self, _namespace: &str) -> Vec<RoomName> {
        todo!()
    }

    #[allow(clippy::todo)]
    async fn sockets(
        &self,
        _namespace: &str,
        _selection: &Selection,
    ) -> Vec<adapter::SocketDetail> {
        todo!()
    }

    #[allow(clippy::todo)]
    async fn ask(
        &self,
        _namespace: &str,
        _selection: &Selection,
        _flags: Flags,
        _data: EventData,
        _timeout: std::time::Duration,
    ) -> adapter::Asked {
        todo!()
    }

    #[allow(clippy::todo)]
    async fn server_event(
        &self,
        _namespace: &str,
        _event: EventData,
        _is_answered: bool,
    ) -> EventData {
        todo!()
    }

    #[allow(clippy::todo)]
    fn n_sockets(&self) -> usize {
        todo!()
    }

    fn tag(&self) -> Option<NodeTag> {
        Some(self.tag)
    }

    fn change_tag(&self) -> bool {
        false
    }

    fn gap(&self, namespace: &str, room: Option<&str>, cause: GapCause) {
        if cause == GapCause::LinkLost && self.on_gap == OnGap::Keep {
            return;
        }
        if let Some(namespace) = self.namespaces.get(namespace) {
            let rooms = room.map(RoomName::from).into_iter().collect();
            let selection = Selection { rooms, except: Vec::new() };
            self.push_each(&namespace, &selection, &Action::Gap, None);
        }
    }
}
