//! All lanes of this node, and the view of them that the adapter has.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adapter::{Flags, GapCause, Local, RoomName, Selection, SocketDetail};
use futures_util::{StreamExt, stream};
use protocol::id::{Id, NodeTag};
use protocol::socket::{Event, EventData};
use tokio::sync::mpsc;

use super::ack::{Answers, Questions};
use super::lane::{Action, Ask, Broadcast, Command, Lane, LaneQueue, NamedRooms, Observer, Shown};
use super::namespace::{Namespace, Namespaces};
use crate::codec::Codec;
use crate::config::OnGap;
use crate::metrics::HubMetrics;
use crate::rules::{Emission, ServerDecision, Target};
use crate::tag::OwnTag;

/// The lanes of this node.
pub struct Lanes {
    queues: Box<[Arc<LaneQueue>]>,
    namespaces: Namespaces,
    codec: Codec,
    tag: Arc<OwnTag>,
    on_gap: OnGap,
    metrics: HubMetrics,
    questions: Arc<Questions>,
    server_listener: OnceLock<Box<ServerListener>>,
}

/// Hears of an event of another server.
type ServerListener = dyn Fn(&str, &EventData, bool) + Send + Sync;

impl Lanes {
    /// Queues for `n_lanes` lanes; [`Lanes::tasks`] makes the tasks behind them.
    pub fn new(
        n_lanes: usize,
        namespaces: Namespaces,
        codec: Codec,
        tag: Arc<OwnTag>,
        on_gap: OnGap,
        metrics: HubMetrics,
    ) -> Self {
        let queues = std::iter::repeat_with(|| Arc::new(LaneQueue::new())).take(n_lanes).collect();
        let questions = Arc::new(Questions::new(metrics.answers_dropped.clone()));
        let server_listener = OnceLock::new();
        Self { queues, namespaces, codec, tag, on_gap, metrics, questions, server_listener }
    }

    /// The tasks of all lanes, each to be run once.
    pub fn tasks(&self, observer: &Arc<dyn Observer>) -> Vec<Lane> {
        let lane = |queue: &Arc<LaneQueue>| {
            let questions = self.questions.clone();
            Lane::new(queue.clone(), observer.clone(), questions, self.metrics.clone())
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
    pub fn tag(&self) -> &OwnTag {
        &self.tag
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
        if single_id.is_some_and(|id| id.tag() != self.tag.get()) {
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
            }));
        }
    }

    /// The events of this node that wait for acknowledgements.
    pub fn questions(&self) -> &Questions {
        &self.questions
    }

    /// Has `listener` called with each event of another server: the namespace, the event, and whether
    /// it is answered. It must not wait. For programs that embed a node; only the first one counts.
    pub fn listen_to_servers(
        &self,
        listener: impl Fn(&str, &EventData, bool) + Send + Sync + 'static,
    ) {
        let _ = self.server_listener.set(Box::new(listener));
    }

    /// Does with an event of another server what the rules say. Every node gets the event, so each
    /// serves its own sockets only. Gives the result for the metric, and the answer: without a rule
    /// it is `null`, so that no server waits for a node that does nothing.
    fn decide_server(&self, namespace: &str, data: &EventData) -> (&'static str, EventData) {
        let nothing = EventData { json: "[null]".into(), attachments: Vec::new() };
        let Some(namespace) = self.namespaces.get(namespace) else { return ("no_rule", nothing) };
        let Ok(event) = Event::parse(&data.json) else { return ("malformed", nothing) };
        match namespace.config().rules.decide_server(&event, &data.attachments) {
            Ok(Some(ServerDecision { emissions, answer })) => {
                for Emission { target, except, data, volatile } in emissions {
                    let rooms = match target {
                        Target::Everyone | Target::Others | Target::Sender => Vec::new(),
                        Target::Rooms(rooms) => rooms,
                        Target::Id(id) => vec![id],
                    };
                    let flags = Flags { volatile, ..Flags::default() };
                    self.publish(&namespace, &Selection { rooms, except }, flags, &data);
                }
                ("done", answer.unwrap_or(nothing))
            }
            Ok(None) => ("no_rule", nothing),
            Err(refusal) => {
                let json = refusal.to_ack_json().into();
                ("refused", EventData { json, attachments: Vec::new() })
            }
        }
    }

    /// The selected sockets, lane by lane.
    async fn show(&self, namespace: &Arc<Namespace>, selection: &Selection) -> Vec<Vec<Shown>> {
        let selection = Arc::new(selection.clone());
        self.of_each(|shown| Command::Show {
            namespace: namespace.clone(),
            selection: selection.clone(),
            shown,
        })
        .await
    }

    /// Asks every lane for something, and waits for all answers.
    async fn of_each<T>(&self, mut command: impl FnMut(mpsc::Sender<T>) -> Command) -> Vec<T> {
        let (sender, mut receiver) = mpsc::channel(self.queues.len());
        for queue in &self.queues {
            queue.push(command(sender.clone()));
        }
        drop(sender);
        let mut answers = Vec::with_capacity(self.queues.len());
        while let Some(answer) = receiver.recv().await {
            answers.push(answer);
        }
        answers
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
        Id::parse(room).is_some_and(|id| id.tag() == self.tag.get()) || namespace.has_room(room)
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

    async fn rooms(&self, namespace: &str) -> Vec<RoomName> {
        let Some(namespace) = self.namespaces.get(namespace) else { return Vec::new() };
        let lanes =
            self.of_each(|named| Command::NameRooms { namespace: namespace.clone(), named }).await;
        let mut rooms = HashSet::new();
        for NamedRooms { joined, own } in lanes {
            rooms.extend(joined);
            for id in own {
                rooms.insert(RoomName::from(id.as_str()));
                tokio::task::consume_budget().await;
            }
        }
        rooms.into_iter().collect()
    }

    async fn sockets(&self, namespace: &str, selection: &Selection) -> Vec<SocketDetail> {
        let Some(namespace) = self.namespaces.get(namespace) else { return Vec::new() };
        let lanes = self.show(&namespace, selection).await;
        let mut details = Vec::with_capacity(lanes.iter().map(Vec::len).sum());
        for Shown { socket, own_room } in lanes.into_iter().flatten() {
            details.push(socket.describe(own_room));
            // Many sockets are a long text: other tasks of this thread get their turn between.
            tokio::task::consume_budget().await;
        }
        details
    }

    async fn ask(
        &self,
        namespace: &str,
        selection: &Selection,
        flags: Flags,
        data: EventData,
        timeout: Duration,
    ) -> adapter::Asked {
        let nobody = || adapter::Asked { n_asked: 0, answers: stream::empty().boxed() };
        let Some(namespace) = self.namespaces.get(namespace) else { return nobody() };
        // Without room for their answers they are asked all the same: a client needs something to call back, and
        // whoever asks must not take the silence for everybody's answer.
        let answers = self.questions.open(timeout);
        let question = answers.as_ref().map_or_else(|| self.questions.unheard(), Answers::id);
        let broadcast = Broadcast {
            namespace: namespace.clone(),
            selection: Arc::new(selection.clone()),
            frame: self.codec.event(namespace.name(), Some(question), &data),
            volatile: flags.volatile,
        };
        let lanes = self
            .of_each(|asked| {
                let broadcast = broadcast.clone();
                Command::Ask(Ask { broadcast, question, asked })
            })
            .await;
        let answers = answers.map_or_else(|| stream::empty().boxed(), StreamExt::boxed);
        adapter::Asked { n_asked: lanes.iter().sum(), answers }
    }

    async fn server_event(&self, namespace: &str, data: EventData, is_answered: bool) -> EventData {
        if let Some(listener) = self.server_listener.get() {
            listener(namespace, &data, is_answered);
        }
        let (result, answer) = self.decide_server(namespace, &data);
        self.metrics.server_events.with_label_values(&[result]).inc();
        answer
    }

    fn n_sockets(&self) -> usize {
        self.namespaces.all().iter().map(|namespace| namespace.n_sockets()).sum()
    }

    fn tag(&self) -> Option<NodeTag> {
        Some(self.tag.get())
    }

    fn change_tag(&self) -> bool {
        self.tag.change()
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
