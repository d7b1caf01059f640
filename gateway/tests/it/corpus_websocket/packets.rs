//! Socket.IO and Engine.IO packets in whole, valid WebSocket messages.

use super::*;
use crate::support::websocket::binary;

const PLACEHOLDER: &str = r#"{"_placeholder":true,"num":0}"#;

/// W1 to W16: event names and arguments.
#[tokio::test]
async fn event_names_and_arguments() {
    let nested = |depth: usize| format!(r#"42["a",{}{}]"#, "[".repeat(depth), "]".repeat(depth));
    let mut rows = vec![
        row("W1", r#"42["a\"b",1]"#, echoed(r#"42["a\"b",1]"#)),
        row("W2", r#"42["\u00e9",1]"#, echoed(r#"42["é",1]"#)),
        row("W3", r#"42["a\nb",1]"#, echoed(r#"42["a\nb",1]"#)),
        row("W4", "42[1,2]", echoed(r#"42["1",2]"#)),
        row("W4 negative", "42[-1.5,2]", echoed(r#"42["-1.5",2]"#)),
        row("W5", r#"42["a",1]xyz"#, Closed),
        row("W6", r#"42["a",1],"evil"]"#, Closed),
        row("W7", "42[]", Closed),
        row("W8", r#"42{"a":1}"#, Closed),
        row("W9", "42[null]", Closed),
        row("W10", r#"42[{"toString":"x"}]"#, Closed),
        row("W10 array", r#"42[["a"]]"#, Closed),
        row("W11", "42", Closed),
        row("W12", "42123", Closed),
        row("W13", r#"42["disconnect",1]"#, Closed),
        row("W13 escaped", r#"42["disc\u006fnnect",1]"#, Closed),
        row("W15 allowed", nested(63), echoed(nested(63))),
        row("W15 first refused", nested(64), Closed),
        row("W15", nested(200), Closed),
        row("W16", nested(100_000), Closed),
        row("an event named error", r#"42["error",1]"#, echoed(r#"42["error",1]"#)),
    ];
    for name in ["connect", "connect_error", "disconnecting", "newListener", "removeListener"] {
        rows.push(row("W14", format!(r#"42["{name}"]"#), Closed));
    }
    let node = node().await;
    check(&node, &rows).await;
    node.finish().await;
}

/// W17 to W26: kinds of packets, namespaces and acknowledgement ids.
#[tokio::test]
async fn kinds_namespaces_and_ids() {
    let rows = [
        row("W17", "40", Ignored),
        row("W17 with auth", r#"40{"a":1}"#, Ignored),
        row("W18", r#"42/nope,["a"]"#, Closed),
        row("W19", "40/nope,", Refused("/nope".into())),
        row("W20", r#"42/burst,["a"]"#, Closed),
        row("W21", r#"44{"message":"x"}"#, Closed),
        row("W22", r#"41["x"]"#, Closed),
        row("W23", "43999[]", Ignored),
        row("W24", "43[]", Closed),
        row("W25", "4399999999999999999999[]", Closed),
        row("W26", r#"4299999999999999999999["a",1]"#, Closed),
    ];
    let node = node().await;
    check(&node, &rows).await;
    let mut ws = Ws::connect(node.public).await;
    for n in 1..=100 {
        ws.send("40/nope,").await;
        let answer = ws.text().await;
        assert!(answer.starts_with("44/nope,"), "W19, refusal {n}: {answer}");
    }
    ws.send("40/nope,").await;
    assert_eq!(ws.until_closed().await.0, [], "W19: a client that only collects refusals");
    node.finish().await;
}

/// W27 to W39: attachments and their placeholders.
#[tokio::test]
async fn attachments() {
    let one = format!(r#"451-["a",{PLACEHOLDER}]"#);
    let with = |id, header: &str, attachments: &[&[u8]], expected| {
        let mut sent = text(header);
        for attachment in attachments {
            sent.extend(binary(attachment));
        }
        raw(id, sent, expected)
    };
    let placed = |num: &str| format!(r#"451-["a",{{"_placeholder":true,"num":{num}}}]"#);
    let swapped =
        r#"452-["a",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#.to_owned();
    let repeated = format!(r#"451-["a",{PLACEHOLDER},{PLACEHOLDER}]"#);
    let answer = |header: &str, attachments: &[&[u8]]| {
        let mut messages = vec![Received::Text(header.to_owned())];
        messages.extend(attachments.iter().map(|bytes| Received::Binary(bytes.to_vec())));
        Delivered(messages)
    };
    let inert = format!(r#"42["a",{PLACEHOLDER}]"#);
    let rows = [
        row("W27", r#"45-1-["a",{"_placeholder":true,"num":0}]"#, Closed),
        row("W28", r#"450-["a"]"#, Closed),
        row("W29", r#"4510001-["a"]"#, Closed),
        row("W30", r#"4511-["a"]"#, Closed),
        row("W31", r#"451.5-["a"]"#, Closed),
        row("W31 without dash", r#"451["a"]"#, Closed),
        row("W31 letter", r#"45x-["a"]"#, Closed),
        row("W32", r#"459999-["a"]"#, Closed),
        raw("W32 text while waiting", [text(&one), text(r#"42["b"]"#)].concat(), Closed),
        row("W33", &one, Closed),
        with("W33 one of two", &swapped, &[b"A"], Closed),
        raw("W34", binary(&[1, 2]), Closed),
        raw("W34 empty", binary(&[]), Closed),
        with("W35", &one, &[&[1, 2]], answer(&one, &[&[1, 2]])),
        with("W35 empty attachment", &one, &[&[]], answer(&one, &[&[]])),
        with("W35 one too many", &one, &[&[1], &[2]], Either),
        with("W36 99", &placed("99"), &[&[1]], Closed),
        with("W36 -1", &placed("-1"), &[&[1]], Closed),
        with("W36 text", &placed("\"0\""), &[&[1]], Closed),
        with("W36 splice", &placed("\"splice\""), &[&[1]], Closed),
        // Whoever numbers them anew has to let the bytes follow their numbers.
        with(
            "W37",
            &swapped,
            &[b"A", b"B"],
            answer(
                r#"452-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
                &[b"B", b"A"],
            ),
        ),
        with("W38", &repeated, &[&[1]], Either),
        row("W39", &inert, echoed(&inert)),
    ];
    let node = node().await;
    check(&node, &rows).await;
    node.finish().await;
}

/// W40 to W51: Engine.IO packets, and JSON that is not quite JSON.
#[tokio::test]
async fn engine_packets_and_broken_json() {
    let rows = [
        row("W40 kind 7", "47", Closed),
        row("W40 kind 9", r#"49["a"]"#, Closed),
        row("W40 no kind", "4", Closed),
        row("W40 control character", "4\u{0}2", Closed),
        row("W41", r#"42["a","\ud800"]"#, Either),
        row("W41 name", r#"42["\ud800"]"#, Either),
        row("W42 escape", r#"42["a","\x"]"#, Closed),
        row("W42 NaN", r#"42["a",NaN]"#, Closed),
        row("W42 1e999", r#"42["a",1e999]"#, Closed),
        row("W43", "\u{feff}42[\"a\"]", Closed),
        row("W44", "", Closed),
        row("W45", "zzz", Closed),
        row("W45 é", "é", Closed),
        row("W45 éabcd", "éabcd", Closed),
        row("W46", "2", Either),
        row("W47", "3x", Ignored),
        raw("W47 many", text("3").repeat(10_000), Ignored),
        row("W48 open", "0{}", Closed),
        row("W48 upgrade", "5", Closed),
        row("W48 noop", "6", Closed),
        row("W49", "1", Closed),
        row("W50", "bAQID", Closed),
        row("W50 no base64", "b!!!!", Closed),
        row("W51 2probe", "2probe", Closed),
        raw("W51", [text("2probe"), text("3probe")].concat(), Closed),
        // Alone it is a pong with some text, as in W47.
        row("W51 3probe", "3probe", Ignored),
    ];
    let node = node().await;
    check(&node, &rows).await;
    node.finish().await;
}

/// W59 and W60: CONNECT with odd data, and odd names of namespaces.
#[tokio::test]
async fn connects() {
    let long = format!("/{}", "x".repeat(5_000));
    let token = format!(r#"40{{"token":"{}"}}"#, "t".repeat(900_000));
    let node = node().await;
    let unconnected = [
        row("W59 900 KB", token, Joined),
        row("W59 array", "40[]", Closed),
        row("W59 string", r#"40"x""#, Closed),
        row("W59 broken", "40{", Closed),
    ];
    for row in &unconnected {
        let mut ws = Ws::open(node.public).await;
        check_row(&mut ws, row).await;
        node.neighbour_echo(row.id).await;
    }
    let rows = [
        row("W60 query", "40/ns?x=1,", Refused("/ns?x=1".into())),
        row("W60 slashes", "40//,", Refused("//".into())),
        row("W60 long", format!("40{long},"), Refused(long.clone())),
        row("W60 hash", "40/a#b,", Refused("/a#b".into())),
        row("W60 star", "40/*,", Refused("/*".into())),
    ];
    check(&node, &rows).await;
    let longest = node.log().iter().map(String::len).max();
    assert!(longest < Some(2_000), "W60: a log line of {longest:?} bytes");
    node.finish().await;
}

/// Rows that make the server build something, 1,000 times.
#[tokio::test]
async fn memory_does_not_grow_with_refused_packets() {
    let deep = format!(r#"42["a",{}]"#, "[".repeat(10_000));
    let mut waiting = text(&format!(r#"4510-["a",{PLACEHOLDER}]"#));
    waiting.extend(binary(&[7; 5_000]));
    waiting.extend(text("42[\"b\"]"));
    let rows = [
        row("W5", r#"42["a",1]xyz"#, Closed),
        row("W16", deep, Closed),
        row("W19", "40/nope,", Refused("/nope".into())),
        raw("W32", waiting, Closed),
    ];
    let node = node().await;
    check_growth(&node, &rows, 250, 12 << 20).await;
    node.finish().await;
}
