//! A node without sockets: it writes down what its adapter asks of it.

use crate::soon;
use adapter::{
    Adapter, AdapterConfig, AdapterMetrics, Asked, Flags, GapCause, LinkState, Local, Mode,
    Published, RedisConfig, RoomName, Selection, SocketDetail,
};
use prometheus::Registry;
use protocol::{id::NodeTag, socket::EventData};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
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
    Gap { ns: String, room: Option<String>, cause: GapCause },
}

/// The sockets of a node that has none.
pub struct Recorder {
    records: watch::Sender<Vec<Record>>,
    /// The rooms that somebody is in; all of them if nothing is said.
    rooms: Mutex<Option<HashSet<String>>>,
    is_ready: watch::Sender<bool>,
}

impl Recorder {
    fn record(&self, record: Record) {
        self.records.send_modify(|records| records.push(record));
    }
}

impl Local for Recorder {
    fn has_room(&self, _ns: &str, room: &str) -> bool {
        let rooms = self.rooms.lock().expect("no test panics here");
        rooms.as_ref().is_none_or(|rooms| rooms.contains(room))
    }

    async fn ready(&self) {
        let mut is_ready = self.is_ready.subscribe();
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
        let (ns, selection, rooms) = (ns.to_owned(), selection.clone(), rooms.to_vec());
        self.record(Record::Join { ns, selection, rooms });
    }

    async fn leave(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) {
        let (ns, selection, rooms) = (ns.to_owned(), selection.clone(), rooms.to_vec());
        self.record(Record::Leave { ns, selection, rooms });
    }

    async fn disconnect(&self, ns: &str, selection: &Selection, close: bool) {
        let (ns, selection) = (ns.to_owned(), selection.clone());
        self.record(Record::Disconnect { ns, selection, close });
    }

    async fn rooms(&self, _ns: &str) -> Vec<RoomName> {
        Vec::new()
    }

    async fn sockets(&self, _ns: &str, _selection: &Selection) -> Vec<SocketDetail> {
        Vec::new()
    }

    async fn ask(
        &self,
        _ns: &str,
        _selection: &Selection,
        _flags: Flags,
        _data: EventData,
        _timeout: Duration,
    ) -> Asked {
        Asked { n_asked: 0, answers: Box::pin(futures_util::stream::empty()) }
    }

    async fn server_event(&self, _ns: &str, _event: EventData, _is_answered: bool) -> EventData {
        EventData { json: "[null]".into(), attachments: Vec::new() }
    }

    fn n_sockets(&self) -> usize {
        0
    }

    fn tag(&self) -> Option<NodeTag> {
        None
    }

    fn change_tag(&self) -> bool {
        false
    }

    fn gap(&self, ns: &str, room: Option<&str>, cause: GapCause) {
        let (ns, room) = (ns.to_owned(), room.map(str::to_owned));
        self.record(Record::Gap { ns, room, cause });
    }
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
        let registry = Registry::new();
        let metrics = AdapterMetrics::register(&registry).expect("no name is taken");
        let recorder = Arc::new(Recorder {
            records: watch::Sender::default(),
            rooms: Mutex::default(),
            is_ready: watch::Sender::new(true),
        });
        let adapter = Adapter::new(Arc::clone(&recorder), config, metrics).expect("valid");
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
