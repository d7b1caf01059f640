//! The sockets of a namespace without socketioxide, for tests.

use super::{Cluster, ClusterAdapter, ClusterMetrics};
use crate::{AdapterConfig, metrics::prometheus::Registry};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream, Fuse},
};
use serde::{Deserialize, Serialize};
use socketioxide_core::{
    Sid, Str, Uid, Value,
    adapter::{
        AckStreamItem, BroadcastIter, CoreAdapter, CoreLocalAdapter, RemoteSocketData,
        SocketEmitter, errors::SocketError,
    },
    packet::{Packet, PacketData},
    parser::{Parse, ParseConfig, ParseError, ParserError, ParserState},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use thiserror::Error;

/// The sockets of a namespace. Each answers with its id.
pub(super) struct Sockets {
    path: Str,
    ids: Vec<Sid>,
    got: Got,
    on_path: Hook,
}

/// What is to happen whenever a namespace is asked for its path.
pub(super) type Hook = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// What a namespace was made to do, for each socket: the text of the event, or that it is disconnected.
#[derive(Clone, Default)]
pub(super) struct Got(Arc<Mutex<Vec<(Sid, String)>>>);

impl Got {
    fn add(&self, id: Sid, what: String) {
        self.0.lock().expect("no test panicked").push((id, what));
    }

    /// Gives everything since the last call.
    pub(super) fn take(&self) -> Vec<(Sid, String)> {
        std::mem::take(&mut *self.0.lock().expect("no test panicked"))
    }
}

/// A cluster without a link.
pub(super) fn cluster(config: AdapterConfig) -> Cluster<Sockets> {
    let metrics = ClusterMetrics::register(&Registry::new()).expect("no name is taken");
    Cluster::new(config, metrics).expect("valid")
}

/// A namespace with sockets, which is not open yet.
pub(super) fn namespace(
    cluster: &Cluster<Sockets>,
    path: &'static str,
    ids: &[Sid],
) -> (Arc<ClusterAdapter<Sockets>>, Got) {
    let got = Got::default();
    (with_hook(cluster, path, ids, got.clone(), Hook::default()), got)
}

/// A namespace without sockets in whose opening and closing something else happens.
pub(super) fn interrupted(
    cluster: &Cluster<Sockets>,
    path: &'static str,
    on_path: Hook,
) -> Arc<ClusterAdapter<Sockets>> {
    with_hook(cluster, path, &[], Got::default(), on_path)
}

fn with_hook(
    cluster: &Cluster<Sockets>,
    path: &'static str,
    ids: &[Sid],
    got: Got,
    on_path: Hook,
) -> Arc<ClusterAdapter<Sockets>> {
    let sockets = Sockets { path: Str::from(path), ids: ids.to_vec(), got, on_path };
    Arc::new(ClusterAdapter::new(cluster, CoreLocalAdapter::new(sockets)))
}

impl Sockets {
    fn among<'a>(&'a self, ids: BroadcastIter<'a>) -> impl Iterator<Item = Sid> + 'a {
        ids.filter(|id| self.ids.contains(id))
    }
}

impl SocketEmitter for Sockets {
    type AckError = Refused;
    type AckStream = Fuse<BoxStream<'static, AckStreamItem<Refused>>>;

    fn get_all_sids(&self, filter: impl Fn(&Sid) -> bool) -> Vec<Sid> {
        self.ids.iter().copied().filter(|id| filter(id)).collect()
    }

    fn get_remote_sockets(&self, ids: BroadcastIter<'_>) -> Vec<RemoteSocketData> {
        let ids = self.among(ids);
        ids.map(|id| RemoteSocketData { id, server_id: Uid::ZERO, ns: self.path.clone() }).collect()
    }

    fn send_many(&self, ids: BroadcastIter<'_>, data: Value) -> Result<(), Vec<SocketError>> {
        self.among(ids).for_each(|id| self.got.add(id, text(&data).to_owned()));
        Ok(())
    }

    fn send_many_volatile(&self, ids: BroadcastIter<'_>, data: Value) {
        let _ = self.send_many(ids, data);
    }

    fn send_many_with_ack(
        &self,
        ids: BroadcastIter<'_>,
        packet: Packet,
        _: Option<Duration>,
    ) -> (Self::AckStream, u32) {
        let data = Text.encode(packet);
        let asked: Vec<_> = self.among(ids).collect();
        asked.iter().for_each(|id| self.got.add(*id, text(&data).to_owned()));
        let n_asked = asked.len() as u32;
        let answers = asked.into_iter().map(|id| (id, Ok(json(format!(r#"["{id}"]"#)))));
        (stream::iter(answers.collect::<Vec<_>>()).boxed().fuse(), n_asked)
    }

    fn disconnect_many(&self, ids: Vec<Sid>) -> Result<(), Vec<SocketError>> {
        let ids = ids.into_iter().filter(|id| self.ids.contains(id));
        ids.for_each(|id| self.got.add(id, "disconnect".to_owned()));
        Ok(())
    }

    fn path(&self) -> &Str {
        if let Some(hook) = &mut *self.on_path.lock().expect("no test panicked") {
            hook();
        }
        &self.path
    }

    fn parser(&self) -> impl Parse {
        Text
    }

    fn server_id(&self) -> Uid {
        Uid::ZERO
    }

    fn ack_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// A parser that keeps events as JSON text, and can do nothing else.
#[derive(Clone, Copy, Default)]
struct Text;

#[derive(Debug, Error, Serialize, Deserialize)]
#[error("not needed by any test")]
pub(super) struct Refused;

impl Parse for Text {
    fn encode(self, packet: Packet) -> Value {
        match packet.inner {
            PacketData::Event(value, _) | PacketData::BinaryEvent(value, _) => value,
            _ => json(String::new()),
        }
    }

    fn decode_str(self, _: &ParseConfig, _: &ParserState, _: Str) -> Result<Packet, ParseError> {
        Err(ParseError::InvalidPacketType)
    }

    fn decode_bin(
        self,
        _: &ParseConfig,
        _: &ParserState,
        _: bytes::Bytes,
    ) -> Result<Packet, ParseError> {
        Err(ParseError::InvalidPacketType)
    }

    fn encode_value<T: ?Sized + Serialize>(
        self,
        _: &T,
        _: Option<&str>,
    ) -> Result<Value, ParserError> {
        Err(ParserError::new(Refused))
    }

    fn decode_value<'de, T: Deserialize<'de>>(
        self,
        _: &'de mut Value,
        _: bool,
    ) -> Result<T, ParserError> {
        Err(ParserError::new(Refused))
    }

    fn decode_default<'de, T: Deserialize<'de>>(
        self,
        _: Option<&'de Value>,
    ) -> Result<T, ParserError> {
        Err(ParserError::new(Refused))
    }

    fn encode_default<T: ?Sized + Serialize>(self, _: &T) -> Result<Value, ParserError> {
        Err(ParserError::new(Refused))
    }

    fn read_event(self, _: &Value) -> Result<&str, ParserError> {
        Err(ParserError::new(Refused))
    }
}

/// An event of JSON text.
pub(super) fn json(text: String) -> Value {
    Value::Str(Str::from(text), None)
}

fn text(value: &Value) -> &str {
    match value {
        Value::Str(text, _) => text.as_str(),
        Value::Bytes(_) => "",
    }
}
