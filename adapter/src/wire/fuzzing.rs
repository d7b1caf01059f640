//! What must hold for every input, as one function per decoder.
//!
//! `cargo +nightly fuzz run <name>` calls them with what the fuzzer finds, the tests here with seeded mutations of
//! captured messages. They panic when something does not hold: whatever is understood can be written again and then
//! means the same, or it is one of the few things that nobody may write.

use super::{
    DecodeError, EncodeError, Message, Request, RequestBody, Response, ResponseBody,
    channel::{Addressed, Channels},
    classic, sharded,
};
use crate::{ClusterParser, ShardedMode};
use protocol::msgpack::{json_to_msgpack, msgpack_to_json};

const PARSERS: [ClusterParser; 2] = [ClusterParser::MessagePack, ClusterParser::Json];
const NS: &str = "/";
/// Who reads.
const ME: &str = "me";
/// Who writes again.
const YOU: &str = "you";

/// A message on a classic broadcast channel.
pub fn classic_broadcast(payload: &[u8]) {
    for parser in PARSERS {
        let Ok(message) = classic::decode_broadcast(parser, payload, ME, NS) else { continue };
        let Message::Broadcast { selection, flags, data } = &message else { continue };
        assert!(!flags.local);
        let written = classic::encode_broadcast(parser, YOU, NS, selection, *flags, data);
        check(message, written, |payload| classic::decode_broadcast(parser, payload, ME, NS));
    }
}

/// A message on a classic request channel.
pub fn classic_request(payload: &[u8]) {
    for parser in PARSERS {
        let Ok(message) = classic::decode_request(parser, payload, ME, NS) else { continue };
        let Message::Request(request) = &message else { continue };
        // In JSON binaries become something else, and stay that.
        if matches!(&request.body, RequestBody::ServerEvent { data } if !data.attachments.is_empty())
        {
            continue;
        }
        let id = request.id.as_deref();
        let written = classic::encode_request(parser, YOU, NS, id, &request.body);
        check(message, written, |payload| classic::decode_request(parser, payload, ME, NS));
    }
}

/// A message on a classic response channel.
pub fn classic_response(payload: &[u8]) {
    for parser in PARSERS {
        let Ok(message) = classic::decode_response(parser, payload, ME) else { continue };
        let Message::Response(response) = &message else { continue };
        if matches!(&response.body, ResponseBody::ServerEvent(args) if !args.attachments.is_empty())
        {
            continue;
        }
        let written = classic::encode_response(parser, YOU, &response.request_id, &response.body);
        check(message, written, |payload| classic::decode_response(parser, payload, ME));
    }
}

/// A message on any sharded channel.
pub fn sharded(payload: &[u8]) {
    let decode = |payload: &[u8]| sharded::decode(payload, ME, NS);
    let Ok(message) = decode(payload) else { return };
    let written = match &message {
        Message::Broadcast { selection, flags, data } => {
            sharded::encode_broadcast(YOU, NS, selection, *flags, data)
        }
        Message::Request(Request { id, body, .. }) => {
            sharded::encode_request(YOU, NS, id.as_deref(), body)
        }
        Message::Response(Response { request_id, body, .. }) => {
            sharded::encode_response(YOU, NS, request_id, body)
        }
        Message::Own | Message::Foreign | Message::Ignored => return,
    };
    check(message, written, decode);
}

/// The name of a channel.
pub fn channel(name: &[u8]) {
    let classic = Channels::classic("socket.io", NS, ME);
    let mut all = vec![classic];
    for mode in [ShardedMode::Static, ShardedMode::Dynamic, ShardedMode::DynamicPrivate] {
        all.push(Channels::sharded("socket.io", NS, ME, mode));
    }
    for channels in all {
        if let Addressed::Room(room) = channels.addressed(name)
            && name.ends_with(b"#")
            && str::from_utf8(name).is_ok()
        {
            assert_eq!(channels.room(&room).as_bytes(), name);
        }
    }
}

/// Checks that what was written again means what was read, but for who says it.
fn check(
    mut read: Message,
    written: Result<Vec<u8>, EncodeError>,
    decode: impl FnOnce(&[u8]) -> Result<Message, DecodeError>,
) {
    match &mut read {
        Message::Request(Request { from, .. }) | Message::Response(Response { from, .. }) => {
            *from = Some(String::from(YOU));
        }
        _ => {}
    }
    match written {
        Ok(payload) => {
            let mut again = decode(&payload).expect("what was written");
            normalize(&mut read);
            normalize(&mut again);
            assert_eq!(again, read);
        }
        Err(error) => assert!(is_refused_rightly(&read, &error), "{error}: {read:?}"),
    }
}

/// Numbers and characters have more than one form in JSON text, and one that they have after MessagePack.
fn normalize(message: &mut Message) {
    let data = match message {
        Message::Broadcast { data, .. }
        | Message::Request(Request {
            body: RequestBody::ServerEvent { data } | RequestBody::Ask { data, .. },
            ..
        }) => data,
        Message::Response(Response { body: ResponseBody::ServerEvent(args), .. }) => args,
        Message::Response(Response { body: ResponseBody::Ack(answer), .. }) => &mut answer.args,
        _ => return,
    };
    let mut packed = Vec::new();
    json_to_msgpack(&mut packed, &data.json, &data.attachments).expect("what was read");
    data.json = msgpack_to_json(&packed, usize::MAX).expect("what was written").json.into();
}

/// Whether this is one of the things that are taken from others, but not sent.
fn is_refused_rightly(message: &Message, error: &EncodeError) -> bool {
    match (message, error) {
        // Only newer clients count them.
        (Message::Broadcast { data, .. }, EncodeError::TooManyAttachments)
        | (
            Message::Request(Request { body: RequestBody::Ask { data, .. }, .. }),
            EncodeError::TooManyAttachments,
        ) => data.attachments.len() > 10,
        // Only senders look at the names of server-side events.
        (Message::Request(request), EncodeError::Event(_)) => {
            matches!(request.body, RequestBody::ServerEvent { .. })
        }
        (Message::Response(response), EncodeError::Unsupported) => {
            response.body == ResponseBody::Empty
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::captures::captured_messages, *};
    use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

    /// Forms that no captured message has.
    const SEEDS: [&[u8]; 12] = [
        br#"["you",{"type":2,"data":["a",{"_placeholder":true,"num":0}],"nsp":"/"},{"rooms":[1.0,null,true]}]"#,
        br#"{"uid":"you","requestId":"q","type":2,"sid":"s","room":"r"}"#,
        br#"{"uid":"you","requestId":"q","type":4,"sid":"s","close":true}"#,
        br#"{"uid":"you","requestId":"q","type":0,"rooms":["r"]}"#,
        br#"{"requestId":"q","sockets":["s","t"]}"#,
        br#"{"requestId":"q"}"#,
        br#"{"type":9,"requestId":"q","packet":[[[1e300,-0,"\ud800"]]],"sid":"s","uid":"you"}"#,
        br#"{"type":3,"data":{"packet":{"type":2,"data":["a"]},"requestId":"q","opts":{"flags":{"timeout":1e3}}},"nsp":"/"}"#,
        b"\x83\xa4type\x09\xa9requestId\xa1q\xa6packet\xd4\x00\x00",
        b"\x83\xa3uid\xa3you\xa4type\x06\xa4data\x92\xa1a\xc7\x01\x05\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\xa4type\x03",
    ];

    /// Draws messages: captured ones, with some bytes changed or pieces of others in them, and random bytes.
    struct Inputs {
        random: StdRng,
        corpus: Vec<Vec<u8>>,
    }

    impl Inputs {
        fn new(seed: u64) -> Self {
            let captured = captured_messages().into_iter().map(|(_, vector)| vector.payload);
            // A few descriptions of sockets are long and all alike.
            let corpus = captured.filter(|payload| payload.len() < 2_000);
            let corpus = corpus.chain(SEEDS.iter().map(|seed| seed.to_vec())).collect();
            Self { random: StdRng::seed_from_u64(seed), corpus }
        }

        fn draw(&mut self) -> Vec<u8> {
            let random = &mut self.random;
            if random.random_bool(0.1) {
                let len = random.random_range(0..100);
                return (0..len).map(|_| random.random()).collect();
            }
            let mut payload = self.corpus.choose(random).expect("not empty").clone();
            if random.random_bool(0.2) {
                let other = self.corpus.choose(random).expect("not empty");
                let start = random.random_range(0..other.len());
                let end = random.random_range(start..=other.len());
                let at = random.random_range(0..=payload.len());
                payload.splice(at..at, other[start..end].iter().copied());
            }
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..=payload.len());
                match random.random_range(0..4) {
                    0 if random.random_bool(0.2) => payload.truncate(at),
                    1 if at < payload.len() => drop(payload.remove(at)),
                    2 => payload.insert(at, random.random()),
                    _ if at < payload.len() => payload[at] = random.random(),
                    _ => {}
                }
            }
            payload
        }
    }

    fn run(seed: u64, body: fn(&[u8])) {
        let mut inputs = Inputs::new(seed);
        for payload in inputs.corpus.clone() {
            body(&payload);
        }
        for _ in 0..10_000 {
            body(&inputs.draw());
        }
    }

    #[test]
    fn what_is_read_from_a_classic_broadcast_channel_can_be_written_again() {
        run(1, classic_broadcast);
    }

    #[test]
    fn what_is_read_from_a_classic_request_channel_can_be_written_again() {
        run(2, classic_request);
    }

    #[test]
    fn what_is_read_from_a_classic_response_channel_can_be_written_again() {
        run(3, classic_response);
    }

    #[test]
    fn what_is_read_from_a_sharded_channel_can_be_written_again() {
        run(4, sharded);
    }

    #[test]
    fn the_name_of_a_room_is_read_from_any_channel() {
        let mut inputs = Inputs::new(5);
        for _ in 0..10_000 {
            let mut name = b"socket.io#/#".to_vec();
            name.extend(inputs.draw());
            name.push(b'#');
            channel(&name);
            channel(&name[1..]);
        }
    }

    #[test]
    fn a_million_broken_messages_are_survived() {
        let mut inputs = Inputs::new(6);
        let parser = ClusterParser::MessagePack;
        let mut understood = 0;
        for _ in 0..1_000_000 {
            let payload = inputs.draw();
            let is_understood = [
                classic::decode_broadcast(parser, &payload, ME, NS).is_ok(),
                classic::decode_request(parser, &payload, ME, NS).is_ok(),
                classic::decode_response(parser, &payload, ME).is_ok(),
                sharded::decode(&payload, ME, NS).is_ok(),
                classic::decode_broadcast(ClusterParser::Json, &payload, ME, NS).is_ok(),
            ];
            understood += usize::from(is_understood.contains(&true));
        }
        // Mutations that leave nothing right, or everything, would show nothing.
        assert!((100_000..900_000).contains(&understood), "{understood}");
    }

    #[test]
    fn deep_values_and_announced_lengths_do_no_harm() {
        let decoders = [classic_broadcast, classic_request, classic_response, sharded, channel];
        let mut payloads = vec![vec![0xdd, 255, 255, 255, 255], vec![0xdf, 255, 255, 255, 255]];
        for open in [&b"\x91"[..], b"\x81\xa1a", b"[", b"{\"a\":", b"\x93\xa1u\x82\xa4data"] {
            payloads.push(open.repeat(10_000));
            for head in [
                &b"{\"type\":3,\"nsp\":\"/\",\"data\":"[..],
                b"{\"type\":9,\"requestId\":\"q\",\"packet\":",
                b"{\"type\":2,\"opts\":",
                b"\x83\xa4type\x03\xa3nsp\xa1/\xa4data",
                b"\x83\xa4type\x09\xa9requestId\xa1q\xa6packet",
                b"\x93\xa1u\x82\xa4type\x02\xa4data",
            ] {
                payloads.push([head, &open.repeat(10_000)].concat());
                payloads.push([head, b"\xdd\xff\xff\xff\xff"].concat());
                payloads.push([head, b"\xdb\xff\xff\xff\xff"].concat());
                payloads.push([head, b"\xc6\xff\xff\xff\xff"].concat());
            }
        }
        for payload in &payloads {
            decoders.iter().for_each(|decode| decode(payload));
            let parser = ClusterParser::MessagePack;
            assert!(sharded::decode(payload, ME, NS).is_err());
            assert!(classic::decode_request(parser, payload, ME, NS).is_err());
        }
    }
}
