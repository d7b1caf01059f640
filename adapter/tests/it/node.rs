//! A node whose sockets are a list: it writes down what its adapter asks of it, and does it.

use crate::soon;
use adapter::{
    Adapter, AdapterConfig, AdapterMetrics, Asked, ClientAnswer, Flags, Follow, GapCause,
    LinkState, Local, Mode, Published, RedisConfig, RoomName, Selection, SocketDetail,
};
use futures_util::StreamExt;
use prometheus::Registry;
use protocol::{id::NodeTag, socket::EventData};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// One thing that the adapter asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Event { ns: String, selection: Selection, flags: Flags, json: String, n_attachments: usize },
    Join { ns: String, selection: Selection, rooms: Vec<RoomName> },
    Leave { ns: String, selection: Selection, rooms: Vec<RoomName> },
    Disconnect { ns: String, selection: Selection, close: bool },
    Ask { ns: String, selection: Selection, flags: Flags, json: String, timeout: Duration },
    ServerEvent { ns: String, json: String, n_attachments: usize, is_answered: bool },
    Gap { ns: String, room: Option<String>, cause: GapCause },
}

/// The sockets of a node, as a list.
pub struct Recorder {
    records: watch::Sender<Vec<Record>>,
    /// The rooms that somebody is in, whatever the sockets; all of them if nothing is said and no socket was
    /// ever there.
    rooms: Mutex<Option<HashSet<String>>>,
    is_ready: watch::Sender<bool>,
    /// A message waits for that.
    is_waiting: AtomicBool,
    sockets: Mutex<BTreeMap<(String, String), Socket>>,
    has_sockets: AtomicBool,
    /// What is answered to server events; nothing is as long as there is nothing.
    server_answer: watch::Sender<Option<String>>,
    /// Whether sockets may answer.
    is_answering: watch::Sender<bool>,
    tag: Mutex<Option<NodeTag>>,
    next_tag: Mutex<Option<NodeTag>>,
    /// Told of rooms, once there is one.
    adapter: Mutex<Option<Adapter<Recorder>>>,
}

/// A socket of a node of the tests.
#[derive(Clone, Debug, Default)]
struct Socket {
    rooms: BTreeSet<String>,
    /// What it answers to questions; nothing without.
    answer: Option<String>,
}

impl Recorder {
    fn new() -> Self {
        Self {
            records: watch::Sender::default(),
            rooms: Mutex::default(),
            is_ready: watch::Sender::new(true),
            is_waiting: AtomicBool::new(false),
            sockets: Mutex::default(),
            has_sockets: false.into(),
            server_answer: watch::Sender::new(Some("[null]".into())),
            is_answering: watch::Sender::new(true),
            tag: Mutex::default(),
            next_tag: Mutex::default(),
            adapter: Mutex::default(),
        }
    }

    fn record(&self, record: Record) {
        self.records.send_modify(|records| records.push(record));
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<(String, String), Socket>> {
        self.sockets.lock().expect("no test panics here")
    }

    fn selected(&self, ns: &str, selection: &Selection) -> Vec<(String, Socket)> {
        let is_in = |socket: &Socket, rooms: &[RoomName]| {
            rooms.iter().any(|room| socket.rooms.contains(room.as_str()))
        };
        let sockets = self.sockets();
        let selected = sockets.iter().filter(|((socket_ns, _), socket)| {
            socket_ns == ns
                && (selection.rooms.is_empty() || is_in(socket, &selection.rooms))
                && !is_in(socket, &selection.except)
        });
        selected.map(|((_, id), socket)| (id.clone(), socket.clone())).collect()
    }

    /// Changes the sockets, and tells the adapter which rooms are new or gone, as a node does.
    fn change(&self, ns: &str, change: impl FnOnce(&mut BTreeMap<(String, String), Socket>)) {
        let rooms = |sockets: &BTreeMap<(String, String), Socket>| -> BTreeSet<String> {
            let here = sockets.iter().filter(|((socket_ns, _), _)| socket_ns == ns);
            here.flat_map(|(_, socket)| socket.rooms.clone()).collect()
        };
        let mut sockets = self.sockets();
        let before = rooms(&sockets);
        change(&mut sockets);
        let after = rooms(&sockets);
        drop(sockets);
        let adapter = self.adapter.lock().expect("no test panics here").clone();
        let Some(adapter) = adapter else { return };
        let follow = adapter.follows();
        let is_followed = |room: &&String| match follow {
            Follow::Nothing => false,
            Follow::PublicRooms => !protocol::id::has_id_form(room),
            Follow::AllRooms => true,
        };
        after
            .difference(&before)
            .filter(is_followed)
            .for_each(|room| adapter.room_opened(ns, room));
        before
            .difference(&after)
            .filter(is_followed)
            .for_each(|room| adapter.room_closed(ns, room));
    }
}

impl Local for Recorder {
    fn has_room(&self, ns: &str, room: &str) -> bool {
        let rooms = self.rooms.lock().expect("no test panics here");
        if let Some(rooms) = &*rooms {
            return rooms.contains(room);
        }
        let selection = Selection { rooms: vec![room.into()], except: Vec::new() };
        !self.has_sockets.load(Ordering::Relaxed) || !self.selected(ns, &selection).is_empty()
    }

    async fn ready(&self) {
        let mut is_ready = self.is_ready.subscribe();
        self.is_waiting.store(!*is_ready.borrow(), Ordering::Release);
        let _ = is_ready.wait_for(|is_ready| *is_ready).await;
    }

    fn deliver(&self, ns: &str, selection: &Selection, flags: Flags, data: EventData) {
        assert!(!data.json.contains("panic please"), "asked for");
        self.record(Record::Event {
            ns: ns.to_owned(),
            selection: selection.clone(),
            flags,
            json: data.json.into(),
            n_attachments: data.attachments.len(),
        });
    }

    async fn join(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        let ids = self.selected(ns, selection);
        self.change(ns, |sockets| {
            for (id, _) in ids {
                let socket = sockets.get_mut(&(ns.to_owned(), id)).expect("selected above");
                socket.rooms.extend(rooms.iter().map(ToString::to_string));
            }
        });
        let (ns, selection, rooms) = (ns.to_owned(), selection.clone(), rooms.to_vec());
        self.record(Record::Join { ns, selection, rooms });
    }

    async fn leave(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        let ids = self.selected(ns, selection);
        self.change(ns, |sockets| {
            for (id, _) in ids {
                let socket = sockets.get_mut(&(ns.to_owned(), id)).expect("selected above");
                socket.rooms.retain(|room| !rooms.iter().any(|left| left.as_str() == room));
            }
        });
        let (ns, selection, rooms) = (ns.to_owned(), selection.clone(), rooms.to_vec());
        self.record(Record::Leave { ns, selection, rooms });
    }

    async fn disconnect(&self, ns: &str, selection: &Selection, close: bool) {
        let ids = self.selected(ns, selection);
        self.change(ns, |sockets| {
            for (id, _) in ids {
                sockets.remove(&(ns.to_owned(), id));
            }
        });
        let (ns, selection) = (ns.to_owned(), selection.clone());
        self.record(Record::Disconnect { ns, selection, close });
    }

    async fn rooms(&self, ns: &str) -> Vec<RoomName> {
        let sockets = self.selected(ns, &Selection::default());
        let rooms: BTreeSet<_> = sockets.into_iter().flat_map(|(_, socket)| socket.rooms).collect();
        rooms.into_iter().map(RoomName::from).collect()
    }

    async fn sockets(&self, ns: &str, selection: &Selection) -> Vec<SocketDetail> {
        let described = self.selected(ns, selection).into_iter().map(|(id, socket)| SocketDetail {
            id: id.as_str().into(),
            rooms: socket.rooms.into_iter().map(RoomName::from).collect(),
            handshake: r#"{"headers":{},"auth":{}}"#.into(),
            data: format!(r#"{{"of":"{id}"}}"#).into(),
        });
        described.collect()
    }

    async fn ask(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: EventData,
        timeout: Duration,
    ) -> Asked {
        self.record(Record::Ask {
            ns: ns.to_owned(),
            selection: selection.clone(),
            flags,
            json: data.json.into(),
            timeout,
        });
        let asked = self.selected(ns, selection);
        let n_asked = asked.len();
        let answers: Vec<_> = asked
            .into_iter()
            .filter_map(|(id, socket)| {
                let args = EventData { json: socket.answer?.into(), attachments: Vec::new() };
                Some(ClientAnswer { socket: Some(id.into()), args })
            })
            .collect();
        let mut is_answering = self.is_answering.subscribe();
        let begun = async move {
            let _ = is_answering.wait_for(|is_answering| *is_answering).await;
            futures_util::stream::iter(answers)
        };
        let is_over = Box::pin(tokio::time::sleep(timeout));
        let answers = futures_util::stream::once(begun).flatten();
        if n_asked == 0 {
            return Asked { n_asked, answers: Box::pin(futures_util::stream::empty()) };
        }
        Asked {
            n_asked,
            answers: Box::pin(answers.chain(silence()).take(n_asked).take_until(is_over)),
        }
    }

    async fn server_event(&self, ns: &str, event: EventData, is_answered: bool) -> EventData {
        assert!(!event.json.contains("panic please"), "asked for");
        self.record(Record::ServerEvent {
            ns: ns.to_owned(),
            json: event.json.into(),
            n_attachments: event.attachments.len(),
            is_answered,
        });
        let mut answer = self.server_answer.subscribe();
        let answer = answer.wait_for(Option::is_some).await.expect("the recorder lives").clone();
        EventData { json: answer.expect("waited for").into(), attachments: Vec::new() }
    }

    fn n_sockets(&self) -> usize {
        self.sockets().len()
    }

    fn tag(&self) -> Option<NodeTag> {
        *self.tag.lock().expect("no test panics here")
    }

    fn change_tag(&self) -> bool {
        let Some(next) = self.next_tag.lock().expect("no test panics here").take() else {
            return false;
        };
        *self.tag.lock().expect("no test panics here") = Some(next);
        true
    }

    fn gap(&self, ns: &str, room: Option<&str>, cause: GapCause) {
        let (ns, room) = (ns.to_owned(), room.map(str::to_owned));
        self.record(Record::Gap { ns, room, cause });
    }
}

/// Answers that do not come.
fn silence() -> impl futures_util::Stream<Item = ClientAnswer> {
    futures_util::stream::pending()
}

/// A running adapter. Ends when it is dropped.
pub struct Node {
    pub adapter: Adapter<Recorder>,
    recorder: Arc<Recorder>,
    registry: Registry,
    shutdown: CancellationToken,
    running: JoinSet<()>,
}

/// Settings with short times, so that faults are found soon.
pub fn config(url: &str) -> AdapterConfig {
    AdapterConfig {
        mode: Mode::Redis,
        redis: Some(RedisConfig::new(url.into())),
        probe_interval: Duration::from_millis(500),
        publish_timeout: Duration::from_secs(1),
        ..AdapterConfig::default()
    }
}

impl Node {
    /// A node that serves `/` and whose link is up.
    pub async fn start(url: &str) -> Self {
        Self::start_with(config(url)).await
    }

    /// The same with other settings.
    pub async fn start_with(config: AdapterConfig) -> Self {
        let node = Self::launch(config);
        node.up().await;
        node
    }

    /// A node that serves `/`, whatever its link.
    pub fn launch(config: AdapterConfig) -> Self {
        Self::launch_tagged(config, None)
    }

    /// The same, with what the ids of its sockets begin with.
    pub fn launch_tagged(config: AdapterConfig, tag: Option<NodeTag>) -> Self {
        let registry = Registry::new();
        let metrics = AdapterMetrics::register(&registry).expect("no name is taken");
        let recorder = Arc::new(Recorder::new());
        *recorder.tag.lock().expect("no test panics here") = tag;
        let adapter = Adapter::new(Arc::clone(&recorder), config, metrics).expect("valid");
        *recorder.adapter.lock().expect("no test panics here") = Some(adapter.clone());
        adapter.open_namespace("/");
        let (shutdown, mut running) = (CancellationToken::new(), JoinSet::new());
        let (runs, until) = (adapter.clone(), shutdown.clone());
        running.spawn(async move { runs.run(until).await });
        Self { adapter, recorder, registry, shutdown, running }
    }

    /// Ends it properly.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        soon("the end of the adapter", self.running.join_next()).await;
    }

    /// Waits until the link is in a state.
    pub async fn link_is(&self, state: LinkState) {
        let mut changes = self.adapter.link_changes();
        let what = format!("link {state:?}");
        soon(&what, changes.wait_for(|link| *link == state)).await.expect("the adapter lives");
    }

    /// Waits until the link is up.
    pub async fn up(&self) {
        self.link_is(LinkState::Up).await;
    }

    /// Emits `["ev", text]` to rooms of a namespace, to all of it without rooms.
    pub fn emit_to(&self, ns: &str, rooms: &[&str], text: &str) -> Published {
        let rooms = rooms.iter().map(|room| RoomName::from(*room)).collect();
        let selection = Selection { rooms, except: Vec::new() };
        let json = format!(r#"["ev","{text}"]"#).into();
        let data = EventData { json, attachments: Vec::new() };
        self.adapter.broadcast(ns, &selection, Flags::default(), &data)
    }

    /// Emits `["ev", text]` to everybody in `/`.
    pub fn emit(&self, text: &str) -> Published {
        self.emit_to("/", &[], text)
    }

    /// Says which rooms have members here.
    pub fn set_rooms(&self, rooms: &[&str]) {
        let rooms = rooms.iter().map(ToString::to_string).collect();
        *self.recorder.rooms.lock().expect("no test panics here") = Some(rooms);
    }

    /// Adds a socket to `/`, which is in these rooms and its own, and answers to every question what is given.
    pub fn add_socket(&self, id: &str, rooms: &[&str], answer: Option<&str>) {
        self.add_socket_to("/", id, rooms, answer);
    }

    /// The same in any namespace.
    pub fn add_socket_to(&self, ns: &str, id: &str, rooms: &[&str], answer: Option<&str>) {
        self.recorder.has_sockets.store(true, Ordering::Relaxed);
        let rooms = rooms.iter().chain([&id]).map(ToString::to_string).collect();
        let socket = Socket { rooms, answer: answer.map(str::to_owned) };
        self.recorder.change(ns, |sockets| {
            sockets.insert((ns.to_owned(), id.to_owned()), socket);
        });
    }

    /// Which rooms a socket in `/` is in, without its own; nothing if it is not there.
    pub fn rooms_of(&self, id: &str) -> Option<Vec<String>> {
        let sockets = self.recorder.sockets();
        let socket = sockets.get(&("/".to_owned(), id.to_owned()))?;
        Some(socket.rooms.iter().filter(|room| *room != id).cloned().collect())
    }

    /// Says what is answered to server events; with nothing, no answer comes.
    pub fn answer_servers(&self, answer: Option<&str>) {
        self.recorder.server_answer.send_replace(answer.map(str::to_owned));
    }

    /// Says whether the sockets may answer.
    pub fn let_answer(&self, may: bool) {
        self.recorder.is_answering.send_replace(may);
    }

    /// Says what tag it takes when it must change it.
    pub fn set_next_tag(&self, tag: &str) {
        *self.recorder.next_tag.lock().expect("no test panics here") = NodeTag::parse(tag);
    }

    /// What the ids of its sockets begin with.
    pub fn tag(&self) -> Option<NodeTag> {
        self.recorder.tag()
    }

    /// Whether a message has left the queue and waits until the node is ready.
    pub fn is_waiting(&self) -> bool {
        self.recorder.is_waiting.load(Ordering::Acquire)
    }

    /// Says whether there is room in the fan-out queues.
    pub fn set_ready(&self, is_ready: bool) {
        self.recorder.is_ready.send_replace(is_ready);
    }

    /// Everything so far.
    pub fn records(&self) -> Vec<Record> {
        self.recorder.records.borrow().clone()
    }

    /// The texts of the events so far, with their namespaces.
    pub fn texts(&self) -> Vec<(String, String)> {
        texts(&self.records())
    }

    /// The gaps so far.
    pub fn gaps(&self) -> Vec<Record> {
        let is_gap = |record: &Record| matches!(record, Record::Gap { .. });
        self.records().into_iter().filter(is_gap).collect()
    }

    /// Waits until the records are as they should be, and gives them.
    pub async fn recorded(&self, what: &str, are: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        let mut records = self.recorder.records.subscribe();
        let result = tokio::time::timeout(crate::PATIENCE, records.wait_for(|now| are(now))).await;
        match result {
            Ok(records) => records.expect("the recorder lives").clone(),
            Err(_) => panic!("{what}: did not come; {:?}", self.records().last()),
        }
    }

    /// Waits for an event with this text.
    pub async fn hears(&self, text: &str) {
        self.recorded(text, |records| texts(records).iter().any(|(_, heard)| heard == text)).await;
    }

    /// The value of a metric, with the value of its only label if it has one.
    pub fn metric(&self, name: &str, label: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect(name);
        let metrics = family.get_metric().iter();
        let mut chosen = metrics.filter(|metric| {
            label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label))
        });
        chosen
            .next()
            .map_or(0.0, |metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
    }

    /// How many messages were received with this result.
    pub fn received(&self, result: &str) -> f64 {
        self.metric("carillon_cluster_received_total", Some(result))
    }

    /// How many messages were published with this result.
    pub fn published(&self, result: &str) -> f64 {
        self.metric("carillon_cluster_published_total", Some(result))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // They hold each other.
        self.recorder.adapter.lock().expect("no test panics here").take();
    }
}

fn texts(records: &[Record]) -> Vec<(String, String)> {
    let text = |json: &str| {
        let event: Option<(String, String)> = serde_json::from_str(json).ok();
        event.map(|(_, text)| text)
    };
    let texts = records.iter().filter_map(|record| match record {
        Record::Event { ns, json, .. } => Some((ns.clone(), text(json)?)),
        _ => None,
    });
    texts.collect()
}
