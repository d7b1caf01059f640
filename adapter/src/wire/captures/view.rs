//! What a message says, in a form that is made both from our message and from the meaning in a file.

use super::{CLASSIC, Protocol};
use crate::{
    ClusterParser, RoomName, Selection,
    wire::{Message, RequestBody, ResponseBody},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::socket::EventData;
use serde_json::{Value, json};

pub(super) fn view(message: &Message) -> Value {
    match message {
        Message::Broadcast { selection, flags, data } => json!({
            "is": "broadcast", "to": view_selection(selection), "data": view_data(data),
            "volatile": flags.volatile, "compress": flags.compress, "id": null,
        }),
        Message::Request(request) => {
            let mut view = match &request.body {
                RequestBody::Join { selection, rooms } => {
                    json!({"is": "join", "to": view_selection(selection), "rooms": names(rooms)})
                }
                RequestBody::Leave { selection, rooms } => {
                    json!({"is": "leave", "to": view_selection(selection), "rooms": names(rooms)})
                }
                RequestBody::Disconnect { selection, close } => {
                    json!({"is": "disconnect", "to": view_selection(selection), "close": close})
                }
                RequestBody::Sockets { rooms } => json!({"is": "sockets", "rooms": names(rooms)}),
                RequestBody::Rooms => json!({"is": "rooms"}),
                RequestBody::Fetch { selection } => {
                    json!({"is": "fetch", "to": view_selection(selection)})
                }
                RequestBody::ServerEvent { data } => {
                    json!({"is": "server event", "data": view_data(data)})
                }
                RequestBody::Ask { selection, flags, data, timeout } => json!({
                    "is": "broadcast", "to": view_selection(selection), "data": view_data(data),
                    "volatile": flags.volatile, "compress": flags.compress,
                    "timeout": timeout.map(|timeout| timeout.as_millis() as u64),
                }),
            };
            view["id"] = json!(request.id);
            view
        }
        Message::Response(response) => {
            let mut view = match &response.body {
                ResponseBody::Sockets(sockets) => {
                    let sockets = sockets.iter().map(|socket| {
                        let json = |text: &str| text.parse::<Value>().expect("JSON");
                        json!({
                            "id": &*socket.id, "rooms": names(&socket.rooms),
                            "handshake": json(&socket.handshake), "data": json(&socket.data),
                        })
                    });
                    json!({"sockets": sockets.collect::<Vec<_>>()})
                }
                ResponseBody::SocketIds(ids) => json!({"sockets": names(ids)}),
                ResponseBody::Rooms(rooms) => json!({"rooms": names(rooms)}),
                ResponseBody::ServerEvent(args) => json!({"answer": view_data(args)}),
                ResponseBody::ClientCount(count) => json!({"count": count}),
                ResponseBody::Ack(answer) => json!({"ack": view_data(&answer.args)}),
                ResponseBody::Empty => json!({}),
            };
            view["id"] = json!(response.request_id);
            view
        }
        other => json!(format!("{other:?}")),
    }
}

fn names(rooms: &[RoomName]) -> Vec<&str> {
    rooms.iter().map(RoomName::as_str).collect()
}

fn view_selection(selection: &Selection) -> Value {
    json!([names(&selection.rooms), names(&selection.except)])
}

fn view_data(data: &EventData) -> Value {
    let json: Value = data.json.parse().expect("decoded data is JSON");
    let binaries: Vec<_> = data.attachments.iter().map(|bin| BASE64_STANDARD.encode(bin)).collect();
    json!([json, binaries])
}

/// What the meaning in a file says.
pub(super) fn expected(protocol: Protocol, meaning: &Value) -> Value {
    if let [_, packet, opts] = meaning.as_array().map_or(&[][..], Vec::as_slice) {
        return expected_broadcast(packet, opts, &Value::Null);
    }
    let (body, kinds) = match protocol {
        Protocol::Classic(_) => (
            meaning,
            [
                "sockets",
                "rooms",
                "join",
                "leave",
                "disconnect",
                "fetch",
                "server event",
                "broadcast",
                "count",
                "ack",
            ]
            .as_slice(),
        ),
        Protocol::Sharded(_) => (
            &meaning["data"],
            [
                "",
                "",
                "",
                "broadcast",
                "join",
                "leave",
                "disconnect",
                "fetch",
                "sockets",
                "server event",
                "answer",
                "count",
                "ack",
            ]
            .as_slice(),
        ),
    };
    let kind = meaning["type"].as_u64().map(|kind| kinds[kind as usize]);
    let is_answer = protocol == CLASSIC || protocol == Protocol::Classic(ClusterParser::Json);
    let is_answer = is_answer && meaning.get("uid").is_none() && body.get("opts").is_none();
    let rooms = || room_names(&body["rooms"]);
    let to = || expected_selection(&body["opts"]);
    let event = if body.get("data").is_some() { &body["data"] } else { &body["packet"] };
    // The one argument of an answer; what is left out is no argument.
    let answer = || {
        let value = body.get("packet").or(body.get("data"));
        expected_data(&value.map_or(json!([]), |value| json!([value])))
    };
    let mut view = match kind {
        Some("broadcast") => expected_broadcast(&body["packet"], &body["opts"], &body["requestId"]),
        Some(kind @ ("join" | "leave")) => json!({"is": kind, "to": to(), "rooms": rooms()}),
        Some("disconnect") => json!({"is": "disconnect", "to": to(), "close": body["close"]}),
        Some("fetch") => json!({"is": "fetch", "to": to()}),
        Some("rooms") => json!({"is": "rooms"}),
        Some("server event") if is_answer => json!({"answer": answer()}),
        Some("server event") => json!({"is": "server event", "data": expected_data(event)}),
        Some("answer") => json!({"answer": answer()}),
        Some("ack") => json!({"ack": answer()}),
        Some("count") => json!({"count": body["clientCount"]}),
        None | Some("sockets") if body.get("sockets").is_some() => {
            json!({"sockets": body["sockets"]})
        }
        None => json!({"rooms": rooms()}),
        Some(kind) => panic!("no capture is one of {kind}"),
    };
    view["id"] = body["requestId"].clone();
    view
}

fn expected_broadcast(packet: &Value, opts: &Value, id: &Value) -> Value {
    let flags = &opts["flags"];
    let mut view = json!({
        "is": "broadcast", "to": expected_selection(opts), "data": expected_data(&packet["data"]),
        "volatile": flags["volatile"] == true, "compress": flags["compress"], "id": id,
    });
    if !id.is_null() {
        view["timeout"] = flags["timeout"].clone();
    }
    view
}

fn expected_selection(opts: &Value) -> Value {
    json!([room_names(&opts["rooms"]), room_names(&opts["except"])])
}

fn room_names(rooms: &Value) -> Vec<String> {
    let rooms = rooms.as_array().expect("a list of rooms");
    let name = |room: &Value| room.as_str().map_or_else(|| room.to_string(), str::to_owned);
    rooms.iter().map(name).collect()
}

fn expected_data(meaning: &Value) -> Value {
    let mut binaries = Vec::new();
    let json = as_clients_see(meaning, &mut binaries);
    json!([json, binaries])
}

/// The JSON that clients get for the meaning of a vector, binaries apart.
fn as_clients_see(meaning: &Value, binaries: &mut Vec<String>) -> Value {
    match meaning {
        Value::Array(items) => items.iter().map(|item| as_clients_see(item, binaries)).collect(),
        Value::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str);
            if let Some(bin) = text("$bin") {
                binaries.push(bin.to_owned());
                json!({"_placeholder": true, "num": binaries.len() - 1})
            } else if let Some(timestamp) = text("$timestamp") {
                json!(timestamp)
            } else if let Some(number) = text("$f64") {
                json!(number.parse::<f64>().expect("a number"))
            } else if let Some(number) = text("$u64") {
                json!(number.parse::<u64>().expect("a number"))
            } else {
                let entries = map.iter();
                entries.map(|(key, value)| (key.clone(), as_clients_see(value, binaries))).collect()
            }
        }
        plain => plain.clone(),
    }
}
