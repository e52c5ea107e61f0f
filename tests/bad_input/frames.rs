//! The socket: each client frame with each kind of wrong member, and what is no frame at all.

use super::cases::{Said, frames, hello};
use super::change::{May, nested, with, without};
use super::room::{BOUND, Room, check, points, unchanged};
use crate::support::on_both;
use crate::support::raw::{RawSocket, TEXT};
use crate::support::wire::next_of;
use serde_json::{Value, json};
use sotto_client::socket::ServerFrame;
use sotto_client::{Socket, SocketOptions};
use uuid::Uuid;

impl Said {
    fn frame(&self, id: u64, d: &str) -> String {
        format!("{{\"t\":\"{}\",\"id\":{id},\"d\":{d}}}", self.t)
    }
}

/// The next `err` or `ok`, passing over what nobody asked for.
async fn answer(socket: &mut Socket, asked: &str) -> ServerFrame {
    loop {
        let frame = socket.next_frame_within(BOUND).await.unwrap_or_else(|error| panic!("{asked}: {error}"));
        if ["err", "ok", "pong"].contains(&frame.t.as_str()) {
            return frame;
        }
    }
}

/// An `err` with a problem of the contract.
async fn err(socket: &mut Socket, re: Option<u64>, code: &str, asked: &str) -> Value {
    let frame = answer(socket, asked).await;
    let problem: Value = frame.data().unwrap();
    assert_eq!((frame.t.as_str(), frame.re), ("err", re), "{asked}: {problem}");
    check(&problem, asked);
    assert_eq!(problem["code"], code, "{asked}: {problem}");
    problem
}

/// A socket after `drained`.
async fn socket(room: &Room) -> Socket {
    let (mut socket, _) = room.alice.socket().await;
    next_of(&mut socket, "drained").await;
    socket
}

/// A socket that has said nothing yet.
async fn silent(room: &Room) -> Socket {
    Socket::open(&room.node.url, &SocketOptions::default()).await.unwrap()
}

async fn closes(socket: &mut Socket, code: u16, asked: &str) {
    assert_eq!(socket.closed_within(BOUND).await.unwrap(), Some(code), "{asked}");
}

on_both! {
    async fn every_frame_refuses_wrong_members_and_the_socket_stays(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let mut socket = socket(&room).await;
        for said in frames(&room) {
            for member in &said.members {
                let absent = (member.may == May::NotBeAbsent).then(|| without(&said.d, member.pointer));
                let wrong = member.wrong().into_iter().map(|value| with(&said.d, member.pointer, &value));
                for d in wrong.chain(absent) {
                    let asked: String = format!("{} with {} in {d}", said.t, member.pointer).chars().take(300).collect();
                    let id = socket.next_id();
                    socket.send_text(said.frame(id, &d)).await.unwrap();
                    points(&err(&mut socket, Some(id), "validation_failed", &asked).await, member.pointer, &asked);
                }
            }
            for d in ["7", "[]", "\"x\"", "true", "[[]]", "{}"] {
                let asked = format!("{} with {d}", said.t);
                let id = socket.next_id();
                socket.send_text(said.frame(id, d)).await.unwrap();
                err(&mut socket, Some(id), "validation_failed", &asked).await;
            }
            // Without a `d`, and without an id.
            socket.send_text(format!("{{\"t\":\"{}\"}}", said.t)).await.unwrap();
            err(&mut socket, None, "validation_failed", said.t).await;
        }
        for (id, pointer) in [("0", "/id"), ("-1", "/id"), ("9007199254740992", "/id"), ("1e400", "/id"), ("\"x\"", "/id"), ("1.5", "/id")] {
            socket.send_text(format!("{{\"t\":\"ping\",\"id\":{id}}}")).await.unwrap();
            points(&err(&mut socket, None, "validation_failed", id).await, pointer, id);
        }
        for text in ["{}", r#"{"t":7}"#, r#"{"t":null}"#, r#"{"d":{}}"#, r#"{"t":["ping"]}"#, r#"{"t":"ping","t":"ping"}"#] {
            socket.send_text(text).await.unwrap();
            err(&mut socket, None, "validation_failed", text).await;
        }
        for t in ["", "nonsense", "new_message", "welcome", "acked", "ok", "err", "PING", "goaway", "\\u0000"] {
            let id = socket.next_id();
            socket.send_text(format!("{{\"t\":\"{t}\",\"id\":{id},\"d\":{{}}}}")).await.unwrap();
            points(&err(&mut socket, Some(id), "validation_failed", t).await, "/t", t);
        }
        // The highest id, members that nobody knows, and white space are all in order.
        socket.send_text("  {\"x\":{\"y\":1e400},\"t\":\"ping\",\n\"id\":9007199254740991,\"d\":{\"t\":1}} ").await.unwrap();
        let pong = answer(&mut socket, "a ping").await;
        assert_eq!((pong.t.as_str(), pong.re), ("pong", Some(9_007_199_254_740_991)));
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn frames_about_what_is_not_yours_are_answered_like_nothing(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let mut socket = socket(&room).await;
        for id in [Uuid::from(room.theirs), Uuid::new_v4(), Uuid::from(room.bob.user_id), Uuid::nil()] {
            let message = json!({"message_id": Uuid::now_v7(), "conversation_id": id, "kind": "text", "ciphertext": "AAEC"});
            for (t, d) in [("send_message", message), ("mark_read", json!({"conversation_id": id, "up_to": 1}))] {
                let re = socket.request(t, &d).await.unwrap();
                err(&mut socket, Some(re), "not_found", t).await;
            }
            // Typing is never answered, wherever it goes.
            socket.send("typing", &json!({"conversation_id": id, "state": "started"})).await.unwrap();
        }
        let re = socket.request("mark_read", &json!({"conversation_id": room.direct, "up_to": i64::MAX})).await.unwrap();
        points(&err(&mut socket, Some(re), "validation_failed", "above the last").await, "/up_to", "above the last");
        let re = socket.request("auth", &json!({"token": "x"})).await.unwrap();
        err(&mut socket, Some(re), "unauthenticated", "a token that is none").await;
        let re = socket.request("ping", &json!({"t": 7})).await.unwrap();
        assert_eq!(answer(&mut socket, "a ping").await.re, Some(re), "the socket is still there");
        let re = socket.request("auth", &json!({"token": room.tablet.tokens.access_token})).await.unwrap();
        err(&mut socket, Some(re), "unauthenticated", "another device's token").await;
        closes(&mut socket, 4501, "another device's token").await;
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn what_is_no_frame_ends_the_connection(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let deep = format!("{{\"t\":\"ping\",\"d\":{}}}", nested(32));
        let mut texts: Vec<String> = ["", " ", "[]", "7", "null", "true", "\"x\"", "[\"ping\"]", "[\"ping\",1,null,null,{}]", "{", "{\"t\":\"ping\"", "{\"t\":\"ping\"}}", "{'t':'ping'}", "\u{feff}{\"t\":\"ping\"}"]
            .map(str::to_owned)
            .to_vec();
        texts.extend([deep, nested(33), nested(10_000), "[".repeat(10_000)]);
        for text in texts {
            let mut socket = socket(&room).await;
            let asked: String = text.chars().take(100).collect();
            socket.send_text(text).await.unwrap();
            err(&mut socket, None, "invalid_frame", &asked).await;
            closes(&mut socket, 4500, &asked).await;
        }
        let mut binary = socket(&room).await;
        binary.send_binary(b"{\"t\":\"ping\"}".to_vec()).await.unwrap();
        closes(&mut binary, 1003, "a binary frame").await;
        let mut large = socket(&room).await;
        large.send_text(format!("{{\"t\":\"ping\",\"d\":\"{}\"}}", "x".repeat(256 * 1024))).await.unwrap();
        closes(&mut large, 1009, "a large frame").await;
        let mut raw = RawSocket::hello(&room.node.url, &room.alice.tokens.access_token, None).await;
        raw.next_of("drained").await;
        raw.send(TEXT, b"{\"t\":\"\xff\xfe\"}").await;
        assert_eq!(raw.close_code().await, Some(1007));
        let mut ahead = socket(&room).await;
        ahead.ack(1_000_000).await.unwrap();
        closes(&mut ahead, 4500, "an acknowledgement of what was never sent").await;
        let mut twice = socket(&room).await;
        let re = twice.request("hello", &json!({"token": room.alice.tokens.access_token, "version": 1})).await.unwrap();
        err(&mut twice, Some(re), "invalid_frame", "a second hello").await;
        closes(&mut twice, 4500, "a second hello").await;
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn a_wrong_hello_ends_the_connection(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let said = hello(&room);
        for member in &said.members {
            let absent = (member.may == May::NotBeAbsent).then(|| without(&said.d, member.pointer));
            for d in member.wrong().into_iter().map(|value| with(&said.d, member.pointer, &value)).chain(absent) {
                let asked = format!("hello with {} in {}", member.pointer, &d[..d.len().min(60)]);
                let mut socket = silent(&room).await;
                socket.send_text(said.frame(5, &d)).await.unwrap();
                points(&err(&mut socket, Some(5), "validation_failed", &asked).await, member.pointer, &asked);
                closes(&mut socket, 4500, &asked).await;
            }
        }
        for (version, number) in [("0", 0), ("2", 2), ("-1", -1), ("9223372036854775807", i64::MAX)] {
            let mut socket = silent(&room).await;
            socket.send_text(said.frame(5, &with(&said.d, "/version", version))).await.unwrap();
            err(&mut socket, Some(5), "unsupported_version", &number.to_string()).await;
            closes(&mut socket, 4505, version).await;
        }
        for (text, code) in [
            (r#"{"t":"ping","id":5,"d":{}}"#.to_owned(), "invalid_frame"),
            (r#"{"t":"ack","id":5,"d":{"n":1}}"#.to_owned(), "invalid_frame"),
            (r#"{"t":"hello","id":5,"d":["x",1]}"#.to_owned(), "validation_failed"),
            (r#"{"t":"hello","id":5}"#.to_owned(), "validation_failed"),
        ] {
            let mut socket = silent(&room).await;
            socket.send_text(text.as_str()).await.unwrap();
            err(&mut socket, Some(5), code, &text).await;
            closes(&mut socket, 4500, &text).await;
        }
        let mut large = silent(&room).await;
        large.send_text(said.frame(5, &with(&said.d, "/client", &format!("\"{}\"", "c".repeat(8 * 1024))))).await.unwrap();
        closes(&mut large, 1009, "a large hello").await;
        // The largest number that an attempt may have does not lock the device out.
        for attempt in [Some((1_i64 << 53) - 1), None, None] {
            let mut socket = silent(&room).await;
            socket.send("hello", &json!({"token": room.alice.tokens.access_token, "version": 1, "attempt": attempt})).await.unwrap();
            next_of(&mut socket, "welcome").await;
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }
}
