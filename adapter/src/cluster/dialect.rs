//! Which of the two protocols of Node's adapter is spoken, and what is subscribed to for it.

use crate::{
    AdapterConfig, ClusterParser, Flags, Follow, LostReason, Mode, Participation, Selection,
    ShardedMode, Subscribe,
    bus::Topic,
    wire::{
        DecodeError, EncodeError, Message, RequestBody, ResponseBody,
        channel::{Addressed, Channels},
        classic, sharded,
    },
};
use protocol::{id::NodeTag, socket::EventData};

pub(super) struct Dialect {
    key: String,
    uid: String,
    form: Form,
}

enum Form {
    Classic {
        parser: ClusterParser,
        participation: Participation,
        subscribe: Subscribe,
        specific_response_channel: bool,
    },
    Sharded(ShardedMode),
}

impl From<EncodeError> for LostReason {
    fn from(error: EncodeError) -> Self {
        tracing::debug!(event = "publish_refused", %error, "a message was not published");
        LostReason::Invalid
    }
}

impl Dialect {
    pub(super) fn new(config: &AdapterConfig, uid: &str) -> Self {
        let form = match config.mode {
            Mode::RedisSharded => Form::Sharded(config.sharded),
            Mode::Redis | Mode::Memory => Form::Classic {
                parser: config.parser,
                participation: config.participation,
                subscribe: config.subscribe,
                specific_response_channel: config.specific_response_channel,
            },
        };
        Self { key: config.key.clone(), uid: uid.to_owned(), form }
    }

    pub(super) fn channels(&self, ns: &str) -> Channels {
        match self.form {
            Form::Classic { .. } => Channels::classic(&self.key, ns, &self.uid),
            Form::Sharded(mode) => Channels::sharded(&self.key, ns, &self.uid, mode),
        }
    }

    /// What is received for a namespace, whatever rooms its sockets are in. The last one is the one that others
    /// count, if they are to count this node.
    pub(super) fn topics(&self, channels: &Channels) -> Vec<Topic> {
        let Form::Classic { participation, subscribe, .. } = self.form else {
            return vec![
                Topic::shard(channels.own_response().to_owned()),
                Topic::shard(channels.base().to_owned()).counted(),
            ];
        };
        let mut topics = match subscribe {
            Subscribe::All => vec![Topic::pattern(channels.broadcast_pattern())],
            Subscribe::Interest => vec![Topic::channel(channels.base().to_owned())],
        };
        topics.push(Topic::channel(channels.response().to_owned()));
        topics.push(Topic::channel(channels.own_response().to_owned()));
        match participation {
            Participation::Broadcasts => {}
            Participation::Commands => topics.push(Topic::pattern(channels.request_pattern())),
            Participation::Full => {
                topics.push(Topic::channel(channels.request().to_owned()).counted());
            }
        }
        topics
    }

    /// How the channels of single rooms are received, if it is by need.
    pub(super) fn room_topics(&self) -> Option<RoomTopics> {
        match self.form {
            Form::Classic { subscribe: Subscribe::All, .. }
            | Form::Sharded(ShardedMode::Static) => None,
            Form::Classic { subscribe: Subscribe::Interest, .. } => Some(RoomTopics::Channels),
            Form::Sharded(_) => Some(RoomTopics::Shards),
        }
    }

    pub(super) fn follows(&self, tag: Option<NodeTag>) -> Follow {
        match (self.room_topics(), &self.form) {
            (None, _) => Follow::Nothing,
            (_, Form::Sharded(ShardedMode::DynamicPrivate)) => Follow::AllRooms,
            // What is sent to ids with a tag comes by the pattern for the tag, or, as they are as long as Node's,
            // on the base channel.
            _ if tag.is_some() => Follow::PublicRooms,
            _ => Follow::AllRooms,
        }
    }

    pub(super) fn encode_broadcast(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
    ) -> Result<Vec<u8>, EncodeError> {
        match self.form {
            Form::Classic { parser, .. } => {
                classic::encode_broadcast(parser, &self.uid, ns, selection, flags, data)
            }
            Form::Sharded(_) => sharded::encode_broadcast(&self.uid, ns, selection, flags, data),
        }
    }

    pub(super) fn encode_request(
        &self,
        ns: &str,
        id: Option<&str>,
        body: &RequestBody,
    ) -> Result<Vec<u8>, EncodeError> {
        match self.form {
            Form::Classic { parser, .. } => {
                classic::encode_request(parser, &self.uid, ns, id, body)
            }
            Form::Sharded(_) => sharded::encode_request(&self.uid, ns, id, body),
        }
    }

    pub(super) fn encode_response(
        &self,
        ns: &str,
        request_id: &str,
        body: &ResponseBody,
    ) -> Result<Vec<u8>, EncodeError> {
        match self.form {
            Form::Classic { parser, .. } => {
                classic::encode_response(parser, &self.uid, request_id, body)
            }
            Form::Sharded(_) => sharded::encode_response(&self.uid, ns, request_id, body),
        }
    }

    /// Reads a message by what the name of its channel says.
    pub(super) fn decode(
        &self,
        addressed: &Addressed<'_>,
        payload: &[u8],
        ns: &str,
    ) -> Result<Message, DecodeError> {
        let uid = &self.uid;
        let message = match (&self.form, addressed) {
            (_, Addressed::Foreign) => return Ok(Message::Foreign),
            (Form::Sharded(_), _) => sharded::decode(payload, uid, ns)?,
            (Form::Classic { parser, .. }, Addressed::Request) => {
                classic::decode_request(*parser, payload, uid, ns)?
            }
            (Form::Classic { parser, .. }, Addressed::Response) => {
                classic::decode_response(*parser, payload, uid)?
            }
            (Form::Classic { parser, .. }, _) => {
                classic::decode_broadcast(*parser, payload, uid, ns)?
            }
        };
        // Where only answers to this node are expected, nothing else is taken. Node does the same.
        let is_answer = matches!(message, Message::Response(_) | Message::Own | Message::Foreign);
        Ok(if *addressed == Addressed::Response && !is_answer { Message::Ignored } else { message })
    }

    /// Where the one who asked listens for an answer; nothing if that is not known.
    pub(super) fn channel_of_answer(
        &self,
        channels: &Channels,
        from: Option<&str>,
        is_to_server_event: bool,
    ) -> Option<String> {
        match self.form {
            // Node ignores the option for these, and so do all who ask.
            Form::Classic { .. } if is_to_server_event => Some(channels.response().to_owned()),
            Form::Classic { specific_response_channel, .. } => Some(match from {
                Some(from) if specific_response_channel => channels.response_to(from),
                _ => channels.response().to_owned(),
            }),
            Form::Sharded(_) => from.map(|from| channels.response_to(from)),
        }
    }

    /// Whether the protocol has words for what only the classic one asks.
    pub(super) fn is_classic(&self) -> bool {
        matches!(self.form, Form::Classic { .. })
    }
}

/// In which form the channels of single rooms are received, where they are by need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomTopics {
    /// Exact channels beside the pattern for the own tag.
    Channels,
    /// Channels of sharded pub/sub, for the rooms that publishers use them for.
    Shards,
}

impl RoomTopics {
    /// The topic of a room, if broadcasts to it come there and not otherwise.
    pub(super) fn topic(
        self,
        channels: &Channels,
        room: &str,
        tag: Option<NodeTag>,
    ) -> Option<Topic> {
        let channel = channels.room(room);
        if channel == channels.own_response() {
            // Somebody named a room like this node. On Node, too, what is sent to it is taken for answers.
            return None;
        }
        match self {
            RoomTopics::Channels => {
                let is_covered = tag.is_some_and(|tag| Channels::is_covered(room, tag));
                (!is_covered).then(|| Topic::channel(channel))
            }
            RoomTopics::Shards => channels.has_channel(room).then(|| Topic::shard(channel)),
        }
    }

    /// By which broadcasts to single sockets of this node come, if those can be told by a tag.
    pub(super) fn tag_topic(self, channels: &Channels, tag: Option<NodeTag>) -> Option<Topic> {
        match self {
            RoomTopics::Channels => Some(Topic::pattern(channels.tag_pattern(tag?))),
            RoomTopics::Shards => None,
        }
    }
}
