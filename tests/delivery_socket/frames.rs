//! Frames that are right, and what becomes of those that are not (protocol, section 3).

use super::Reader;
use crate::delivery_append::{assert_gapless, group, log};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, register, shared};
use crate::support::raw::{RawSocket, TEXT};
use crate::support::wire::PATIENCE;
use sotto_client::protocol::{ConversationId, ErrorCode, Problem, close, limits};
use sotto_client::{Error, Socket, SocketOptions, socket::ServerFrame};
use uuid::Uuid;

fn problem(frame: &ServerFrame) -> Problem {
    assert_eq!(frame.t, "err", "{}", frame.d);
    frame.data().expect("a problem")
}

async fn live(device: &Device) -> Socket {
    Reader::settled(device).await.socket
}

async fn code_of(socket: &mut Socket) -> Option<u16> {
    socket.closed_within(PATIENCE).await.expect("the socket closes")
}

/// A live raw socket; what waited for it is told.
async fn raw(device: &Device) -> RawSocket {
    let mut socket = RawSocket::hello(&device.url, &device.tokens.access_token, None).await;
    socket.next_of("welcome").await;
    socket
}

on_both! {
    async fn what_is_no_frame_ends_the_socket(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let deep = format!(r#"{{"t":"ping","d":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
        for text in ["", "{", "[]", "7", "null", r#""ping""#, r#"{"t":"ping"} {}"#, "not json", &deep] {
            let mut socket = live(&device).await;
            socket.send_text(text).await.unwrap();
            let frame = socket.next_frame_within(PATIENCE).await.unwrap();
            assert_eq!((problem(&frame).code, frame.re), (ErrorCode::InvalidFrame, None), "{text}");
            assert_eq!(code_of(&mut socket).await, Some(close::PROTOCOL_ERROR), "{text}");
        }
    }

    async fn wrong_content_is_answered_and_the_socket_stays(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let mut socket = live(&device).await;
        for text in [
            r#"{"t":"nonsense","id":5,"d":{}}"#,
            r#"{"t":"nonsense","id":5}"#,
            r#"{"t":"new_message","id":5,"d":{}}"#,
            r#"{"t":"send_message","id":5,"d":{}}"#,
            r#"{"t":"send_message","id":5,"d":[]}"#,
            r#"{"t":"send_message","id":5}"#,
            r#"{"t":"ack","id":5,"d":{"n":-1}}"#,
            r#"{"t":"ack","id":5,"d":{"n":"1"}}"#,
            r#"{"t":"mark_read","id":5,"d":{"conversation_id":"x","up_to":1}}"#,
            r#"{"t":"typing","id":5,"d":{"state":"started"}}"#,
            r#"{"t":"presence","id":5,"d":{"state":"asleep"}}"#,
            r#"{"t":"auth","id":5,"d":{}}"#,
        ] {
            socket.send_text(text).await.unwrap();
            let frame = socket.next_frame_within(PATIENCE).await.unwrap();
            let problem = problem(&frame);
            assert_eq!((problem.code, frame.re), (ErrorCode::ValidationFailed, Some(5)), "{text}");
            assert!(!problem.request_id.is_empty() && !problem.retryable, "{text}");
        }
        // Nothing to answer to.
        for text in ["{}", r#"{"t":7}"#, r#"{"t":"ping","id":0}"#, r#"{"t":"ping","id":9007199254740992}"#,
            r#"{"t":"ping","id":"1"}"#, r#"{"t":"ping","id":-1}"#, r#"{"t":"nonsense"}"#] {
            socket.send_text(text).await.unwrap();
            let frame = socket.next_frame_within(PATIENCE).await.unwrap();
            assert_eq!((problem(&frame).code, frame.re), (ErrorCode::ValidationFailed, None), "{text}");
        }
        // Unknown fields are ignored, null counts as absent, the highest id is one.
        for (text, re) in [
            (r#"{"t":"ping","id":9007199254740991,"d":{"t":1,"new":true},"new":{}}"#, Some(9_007_199_254_740_991)),
            (r#"{"t":"ping","id":null,"d":{"t":1}}"#, None),
            (r#" { "d" : { "t" : 1 } , "id" : 3, "t" : "p\u0069ng" } "#, Some(3)),
        ] {
            socket.send_text(text).await.unwrap();
            let frame = socket.next_frame_within(PATIENCE).await.unwrap();
            assert_eq!((frame.t.as_str(), frame.re), ("pong", re), "{text}");
            assert_eq!(frame.data::<serde_json::Value>().unwrap()["t"], 1, "{text}");
        }
        // Where the caller is no member, a conversation does not exist.
        let id = socket.request("send_message", &shared(ConversationId(Uuid::new_v4()), "x")).await.unwrap();
        let frame = socket.next_frame_within(PATIENCE).await.unwrap();
        assert_eq!((problem(&frame).code, frame.re), (ErrorCode::NotFound, Some(id)));
    }

    async fn broken_framing_has_its_close_codes(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let mut socket = live(&device).await;
        socket.send_binary(b"{}".to_vec()).await.unwrap();
        assert_eq!(code_of(&mut socket).await, Some(1003));

        let mut socket = raw(&device).await;
        socket.send(TEXT, b"{\"t\":\"\xff\"}").await;
        assert_eq!(socket.close_code().await, Some(1007));

        // The largest frame is one; a byte more is not.
        let mut socket = live(&device).await;
        let frame = |bytes: usize| {
            let empty = r#"{"t":"ping","d":{"t":""}}"#;
            empty.replace(r#""""#, &format!(r#""{}""#, "x".repeat(bytes - empty.len())))
        };
        socket.send_text(frame(limits::MAX_FRAME)).await.unwrap();
        assert_eq!(socket.next_frame_within(PATIENCE).await.unwrap().t, "pong");
        let _ = socket.send_text(frame(limits::MAX_FRAME + 1)).await;
        assert_eq!(code_of(&mut socket).await, Some(1009));

        // A first frame is smaller.
        let mut socket = RawSocket::open(&device.url, None).await;
        socket.send(TEXT, frame(limits::MAX_HELLO + 1).as_bytes()).await;
        assert_eq!(socket.close_code().await, Some(1009));
    }

    async fn nothing_comes_before_hello(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let token = &device.tokens.access_token;
        let refused = [
            (r#"{"t":"ping","id":4,"d":{}}"#.to_owned(), ErrorCode::InvalidFrame, close::PROTOCOL_ERROR),
            (r#"{"t":"hello","id":4,"d":{"version":1}}"#.to_owned(), ErrorCode::ValidationFailed, close::PROTOCOL_ERROR),
            (r#"{"t":"hello","id":4,"d":{"token":"x","version":1}}"#.to_owned(), ErrorCode::Unauthenticated,
                close::UNAUTHENTICATED),
            (format!(r#"{{"t":"hello","id":4,"d":{{"token":"{token}","version":2}}}}"#), ErrorCode::UnsupportedVersion,
                close::UPGRADE_REQUIRED),
            (format!(r#"{{"t":"hello","id":4,"d":{{"token":"{token}","version":1,"attempt":-1}}}}"#),
                ErrorCode::ValidationFailed, close::PROTOCOL_ERROR),
        ];
        for (text, code, closed) in refused {
            let mut socket = Socket::open(&device.url, &SocketOptions::default()).await.unwrap();
            socket.send_text(text.as_str()).await.unwrap();
            let frame = socket.next_frame_within(PATIENCE).await.unwrap();
            assert_eq!((problem(&frame).code, frame.re), (code, Some(4)), "{text}");
            assert_eq!(code_of(&mut socket).await, Some(closed), "{text}");
        }
        // What is sent behind hello waits for welcome, and a second hello is one too many.
        let mut socket = Socket::open(&device.url, &SocketOptions::default()).await.unwrap();
        socket.send_text(format!(r#"{{"t":"hello","id":8,"d":{{"token":"{token}","version":1}}}}"#)).await.unwrap();
        socket.send_text(r#"{"t":"ping","id":9,"d":{"t":1}}"#).await.unwrap();
        let welcome = socket.next_frame_within(PATIENCE).await.unwrap();
        assert_eq!((welcome.t.as_str(), welcome.re), ("welcome", Some(8)));
        while socket.next_frame_within(PATIENCE).await.unwrap().re != Some(9) {}
        socket.send_text(format!(r#"{{"t":"hello","id":10,"d":{{"token":"{token}","version":1}}}}"#)).await.unwrap();
        loop {
            let frame = socket.next_frame_within(PATIENCE).await.unwrap();
            if frame.n.is_none() && frame.t != "drained" {
                assert_eq!((problem(&frame).code, frame.re), (ErrorCode::InvalidFrame, Some(10)));
                break;
            }
        }
        assert_eq!(code_of(&mut socket).await, Some(close::PROTOCOL_ERROR));
    }

    async fn the_upgrade_asks_for_subprotocol_and_origin(database) {
        let node = TestNode::with(database, &[
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_HTTP__ALLOWED_ORIGINS", "https://chat.example"),
        ]).await;
        let device = register(&node, "alice").await;
        let token = &device.tokens.access_token;
        for (subprotocol, origin, refusal) in [
            (None, None, Some(ErrorCode::InvalidFrame)),
            (Some("chat"), None, Some(ErrorCode::InvalidFrame)),
            (Some(limits::SUBPROTOCOL), Some("https://elsewhere.example"), Some(ErrorCode::Forbidden)),
            (Some(limits::SUBPROTOCOL), Some("https://chat.example.elsewhere.example"), Some(ErrorCode::Forbidden)),
            (Some(limits::SUBPROTOCOL), Some("null"), Some(ErrorCode::Forbidden)),
            (Some(limits::SUBPROTOCOL), Some("https://chat.example"), None),
            (Some("sotto.v9.json, sotto.v1.json"), None, None),
        ] {
            let options = SocketOptions {
                subprotocol: subprotocol.map(str::to_owned),
                origin: origin.map(str::to_owned),
                ..SocketOptions::hello(token)
            };
            let opened = Socket::open(&device.url, &options).await;
            match (opened, refusal) {
                (Ok(socket), None) => {
                    let chosen = socket.response().headers().get("sec-websocket-protocol");
                    assert_eq!(chosen.unwrap(), limits::SUBPROTOCOL);
                }
                (Err(Error::Problem(problem)), Some(code)) => {
                    assert_eq!(problem.code, code, "{subprotocol:?} {origin:?}");
                    assert_eq!(problem.status, if code == ErrorCode::Forbidden { 403 } else { 400 });
                }
                (opened, _) => panic!("{subprotocol:?} {origin:?}: {opened:?}"),
            }
        }
    }

    async fn a_token_at_the_upgrade_is_the_hello(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let header = SocketOptions::header(&device.tokens.access_token);
        let (mut socket, welcome) = Socket::connect(&device.url, &header).await.expect("welcome at once");
        assert_eq!(welcome.heartbeat_ms, 30_000);
        socket.request("ping", &serde_json::json!({ "t": 1 })).await.unwrap();
        while socket.next_frame_within(PATIENCE).await.unwrap().t != "pong" {}
        let hello = serde_json::json!({ "token": device.tokens.access_token, "version": 1 });
        let id = socket.request("hello", &hello).await.unwrap();
        let frame = socket.next_frame_within(PATIENCE).await.unwrap();
        assert_eq!((problem(&frame).code, frame.re), (ErrorCode::InvalidFrame, Some(id)));
        assert_eq!(code_of(&mut socket).await, Some(close::PROTOCOL_ERROR));
        // One that is not valid counts as absent: hello is waited for.
        let mut socket = Socket::open(&device.url, &SocketOptions::header("nonsense")).await.unwrap();
        let id = socket.request("hello", &hello).await.unwrap();
        let frame = socket.next_frame_within(PATIENCE).await.unwrap();
        assert_eq!((frame.t.as_str(), frame.re), ("welcome", Some(id)));
    }
    /// Nothing is written to such a client, and the server must read on all the same.
    async fn messages_without_an_id_are_read_however_many_come(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let conversation = group(&alice, &[&bob]).await;
        let mut socket = live(&alice).await;
        let count = 3 * limits::MAX_UNANSWERED;
        for number in 0..count {
            socket.send("send_message", &shared(conversation, &number.to_string())).await.unwrap();
        }
        let id = socket.request("ping", &serde_json::json!({})).await.unwrap();
        while socket.next_frame_within(PATIENCE).await.unwrap().re != Some(id) {}
        for _ in 0..100 {
            if log(&alice.rest, conversation).await.len() >= count {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let stored = log(&alice.rest, conversation).await;
        assert_gapless(&stored);
        assert!(stored.len() >= count, "{} of {count}", stored.len());
    }
}
