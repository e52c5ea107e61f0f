//! How long a socket lives: its pulse, its token, its device, its node; and what it hears of other people.

use super::{Reader, group, pair, send_many};
use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, register, second_device, shared};
use crate::support::raw::{PING, RawSocket};
use crate::support::wire::PATIENCE;
use serde_json::{Value, json};
use sotto_client::protocol::frame::Auth;
use sotto_client::protocol::{ErrorCode, Problem, Timestamp, close};
use sotto_client::{Rest, Socket, SocketOptions};
use std::time::{Duration, Instant};

/// The next tokens of a device, by its latest refresh token.
async fn renew(device: &mut Device) -> String {
    let rest = Rest::new(&device.url).unwrap();
    device.tokens = rest.refresh(&device.tokens.refresh_token).await.expect("refreshed");
    device.tokens.access_token.clone()
}

/// Sends `auth` and tells what the answer is.
async fn auth(reader: &mut Reader, token: &str) -> Result<(), Problem> {
    let id = reader.socket.request("auth", &Auth { token: token.to_owned() }).await.unwrap();
    loop {
        let frame = reader.frame().await;
        if frame.re == Some(id) {
            return if frame.t == "ok" { Ok(()) } else { Err(frame.data().unwrap()) };
        }
    }
}

async fn says(reader: &mut Reader, t: &str, d: Value) {
    reader.socket.send(t, &d).await.unwrap();
}

/// Neither typing nor presence comes for a while.
async fn hears_nothing(reader: &mut Reader) {
    let until = Instant::now() + Duration::from_millis(400);
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if let Ok(frame) = reader.frame_within(left).await {
            assert!(!["typing", "presence"].contains(&frame.t.as_str()), "unexpected {}: {}", frame.t, frame.d);
        }
    }
}

on_both! {
    async fn silence_ends_a_socket_and_an_answer_keeps_it(database) {
        let node = TestNode::with(database, &[
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_SOCKET__HELLO_TIMEOUT", "1"),
            ("SOTTO_SOCKET__HEARTBEAT_MS", "200"),
        ]).await;
        let device = register(&node, "alice").await;
        // It answers no ping, and it never says hello: two reasons, one code.
        let begun = Instant::now();
        let mut mute = RawSocket::hello(&node.url, &device.tokens.access_token, None).await;
        assert_eq!(mute.next_of("welcome").await["d"]["heartbeat_ms"], 200);
        loop {
            let (opcode, _) = mute.frame().await.expect("a ping before the end");
            if opcode == PING {
                break;
            }
        }
        assert_eq!(mute.close_code().await, Some(close::TIMEOUT));
        let lived = begun.elapsed();
        assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&lived), "{lived:?}");

        let begun = Instant::now();
        let mut silent = Socket::open(&node.url, &SocketOptions::default()).await.unwrap();
        let code = silent.closed_within(PATIENCE).await.unwrap();
        assert_eq!(code, Some(close::TIMEOUT));
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());

        // One that only answers pings stays.
        let mut patient = Reader::open(&device).await;
        let until = Instant::now() + Duration::from_millis(1500);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match patient.frame_within(left).await {
                Ok(_) | Err(sotto_client::Error::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
        }
        patient.lives().await;
    }

    async fn a_token_runs_out_unless_it_is_renewed(database) {
        let node = TestNode::with(database, &[
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_AUTH__ACCESS_TTL", "4"),
        ]).await;
        let mut device = register(&node, "alice").await;
        let mut other = register(&node, "bob").await;
        let mut left_alone = Reader::open(&other).await;
        let mut renewed = Reader::open(&device).await;
        let first_end = renewed.welcome.token_expires_at;
        assert_eq!(auth(&mut renewed, "nonsense").await.unwrap_err().code, ErrorCode::Unauthenticated);
        while Timestamp::now() < first_end.minus(Duration::from_millis(1500)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let token = renew(&mut device).await;
        auth(&mut renewed, &token).await.unwrap();
        left_alone.drain().await;
        assert_eq!(left_alone.close_code().await, Some(close::TOKEN_EXPIRED));
        while Timestamp::now() < first_end.plus(Duration::from_millis(300)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        renewed.lives().await;
        assert_eq!(renewed.close_code().await, Some(close::TOKEN_EXPIRED));
        assert!(Timestamp::now() > first_end.plus(Duration::from_millis(1000)), "the new token had longer to live");
        // Somebody else's token ends it.
        let fresh = renew(&mut other).await;
        renew(&mut device).await;
        let mut reader = Reader::open(&device).await;
        assert_eq!(auth(&mut reader, &fresh).await.unwrap_err().code, ErrorCode::Unauthenticated);
        assert_eq!(reader.close_code().await, Some(close::UNAUTHENTICATED));
    }

    async fn a_minute_before_its_end_a_token_is_called(database) {
        let node = TestNode::with(database, &[
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_AUTH__ACCESS_TTL", "62"),
        ]).await;
        let mut device = register(&node, "alice").await;
        let mut reader = Reader::settled(&device).await;
        let frame = reader.next_of("auth_expiring").await;
        assert_eq!(frame.data::<Value>().unwrap()["expires_in"], 60);
        let token = renew(&mut device).await;
        auth(&mut reader, &token).await.unwrap();
        // The new one is called in its turn.
        reader.next_of("auth_expiring").await;
    }

    async fn whoever_signs_out_is_closed(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let tablet = second_device(&node, &bob, "tablet").await;
        let phones = Reader::settled(&bob).await;
        let mut tablets = Reader::settled(&tablet).await;
        bob.rest.logout().await.unwrap();
        assert_eq!(phones.close_code().await, Some(close::DEVICE_REVOKED));
        let refused = bob.socket_with(50).await.unwrap_err();
        assert!(
            matches!(refused.code(), Some(ErrorCode::Unauthenticated)),
            "its token is dead: {refused}"
        );
        send_many(&alice, conversation, 1).await;
        assert_eq!(tablets.seqs(1).await, [1]);
    }

    async fn typing_reaches_members_and_nobody_else(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let (tablet, eve) = (second_device(&node, &alice, "tablet").await, register(&node, "eve").await);
        let mut alices = Reader::settled(&alice).await;
        let mut tablets = Reader::settled(&tablet).await;
        let mut bobs = Reader::settled(&bob).await;
        let mut eves = Reader::settled(&eve).await;
        for state in ["started", "stopped"] {
            says(&mut alices, "typing", json!({ "conversation_id": conversation, "state": state })).await;
            for reader in [&mut bobs, &mut tablets] {
                let told = reader.next_of("typing").await;
                assert_eq!(told.n, None, "it is not durable");
                let told: Value = told.data().unwrap();
                assert_eq!(told["state"], state);
                assert_eq!(told["conversation_id"], conversation.to_string());
                assert_eq!(told["user_id"], alice.user_id.to_string());
                assert_eq!(told["device_id"], alice.device_id.to_string());
            }
        }
        // A stranger is heard by nobody; nobody hears himself.
        says(&mut eves, "typing", json!({ "conversation_id": conversation, "state": "started" })).await;
        for reader in [&mut alices, &mut bobs, &mut eves] {
            hears_nothing(reader).await;
        }
        eves.lives().await;
        // It is not kept for whoever comes later.
        says(&mut bobs, "typing", json!({ "conversation_id": conversation, "state": "started" })).await;
        alices.next_of("typing").await;
        let mut later = Reader::open(&tablet).await;
        later.drain().await;
        hears_nothing(&mut later).await;
    }

    async fn presence_is_for_those_who_write_to_each_other(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let carol = register(&node, "carol").await;
        let together = group(&alice, &[&bob, &carol], "three").await;
        let mut alices = Reader::settled(&alice).await;
        let mut bobs = Reader::settled(&bob).await;
        let mut carols = Reader::settled(&carol).await;
        // In a group all write; in the direct conversation only one does.
        for device in [&alice, &bob, &carol] {
            send_many(device, together, 1).await;
        }
        send_many(&alice, conversation, 1).await;
        says(&mut bobs, "presence", json!({ "state": "idle" })).await;
        says(&mut bobs, "presence", json!({ "state": "active" })).await;
        hears_nothing(&mut alices).await;
        send_many(&bob, conversation, 1).await;
        for (up, down) in [("idle", "offline"), ("active", "online")] {
            says(&mut bobs, "presence", json!({ "state": up })).await;
            let told = alices.next_of("presence").await;
            assert_eq!(told.n, None);
            let told: Value = told.data().unwrap();
            assert_eq!((&told["user_id"], &told["state"]), (&json!(bob.user_id), &json!(down)));
            assert_eq!(told.get("last_seen_at").is_some(), down == "offline");
        }
        // Another device is still there, then none.
        let tablet = second_device(&node, &bob, "tablet").await;
        let tablets = Reader::settled(&tablet).await;
        drop(bobs);
        hears_nothing(&mut alices).await;
        drop(tablets);
        assert_eq!(alices.next_of("presence").await.data::<Value>().unwrap()["state"], "offline");
        // Who comes hears who is there.
        let mut bobs = Reader::open(&bob).await;
        assert_eq!(bobs.next_of("presence").await.data::<Value>().unwrap()["user_id"], json!(alice.user_id));
        assert_eq!(alices.next_of("presence").await.data::<Value>().unwrap()["state"], "online");
        hears_nothing(&mut carols).await;
    }

    async fn a_drain_sends_everybody_elsewhere_and_ends_with_0(database) {
        let mut node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let mut alices = Reader::settled(&alice).await;
        let mut bobs = Reader::settled(&bob).await;
        // Something is on its way: it is answered, and what was answered is stored.
        let mut asked = Vec::new();
        for _ in 0..20 {
            asked.push(alices.socket.request("send_message", &shared(conversation, "on the way")).await.unwrap());
        }
        assert_eq!(bobs.seqs(5).await, [1, 2, 3, 4, 5]);
        bobs.socket.ack(bobs.n).await.unwrap();
        let (code, (answered, went), ()) = tokio::join!(
            node.terminate(),
            async {
                let (mut answered, mut went) = (0, false);
                loop {
                    match alices.frame_within(PATIENCE).await {
                        Ok(frame) if frame.t == "ok" && frame.re.is_some() => answered += 1,
                        Ok(frame) if frame.t == "goaway" => {
                            let d: Value = frame.data().unwrap();
                            assert!(d["reconnect_after_ms"].as_u64().is_some() && d["reason"].is_string());
                            went = true;
                        }
                        Ok(_) => {}
                        Err(sotto_client::Error::Closed { code, .. }) => {
                            assert_eq!(code, Some(close::DRAINING));
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                (answered, went)
            },
            async {
                bobs.next_of("goaway").await;
                assert_eq!(bobs.close_code().await, Some(close::DRAINING));
            }
        );
        assert_eq!(code, Some(0), "SIGTERM ends with 0:\n{}", node.log());
        assert!(went, "goaway comes before the close");
        node.restart().await;
        let mut bobs = Reader::open_at(&bob, &node.url).await;
        assert!(super::delivered_at(&bob, &node, conversation).await >= 5, "marks are flushed by the drain");
        let last = alice.at(&node).conversation(conversation).await.unwrap().last_seq;
        assert!(last >= answered, "{answered} were answered, {last} are stored");
        if last > 5 {
            assert_eq!(bobs.seqs(1).await, [6]);
        }
    }
}

/// A socket that has not said hello yet holds up the drain for its time and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_in_time_beside_a_socket_without_hello() {
    let settings = [("SOTTO_DRAIN__TIMEOUT", "1"), ("SOTTO_SOCKET__HELLO_TIMEOUT", "60")];
    let mut node = TestNode::with(Kind::Sqlite, &settings).await;
    // The paused accept loop meets its closed listener when the node ends.
    node.expect_log("actix_server::accept");
    let _silent = RawSocket::open(&node.url, None).await;
    let begun = Instant::now();
    assert_eq!(node.terminate().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}
