//! What may be in flight: the window of events, and requests that are not answered yet.

use super::{Reader, pair, send_many};
use crate::support::database::Kind;
use crate::support::lock::Held;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::shared;
use crate::support::wire::PATIENCE;
use sotto_client::protocol::message::{OutgoingMessage, Sent};
use sotto_client::protocol::{Binary, ConversationId, close};
use std::time::{Duration, Instant};

fn large(conversation: ConversationId, bytes: usize) -> OutgoingMessage {
    OutgoingMessage { ciphertext: Some(Binary(vec![7; bytes])), ..shared(conversation, "") }
}

/// Reads until the server waits; how many messages came.
async fn in_flight(reader: &mut Reader) -> i64 {
    let (mut bytes, mut largest, mut count) = (0, 0, 0);
    while let Ok(frame) = reader.frame_within(Duration::from_millis(500)).await {
        if frame.t == "new_message" {
            (bytes, largest, count) = (bytes + frame.d.len(), largest.max(frame.d.len()), count + 1);
        }
    }
    assert!(bytes < (1 << 20) + largest, "{bytes} bytes in flight");
    assert!(bytes > (1 << 19), "only {bytes} bytes in flight");
    count
}

on_both! {
    async fn the_window_holds_256_events_and_goes_on_after_an_acknowledgement(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        drop(Reader::settled(&bob).await);
        send_many(&alice, conversation, 300).await;
        let mut bobs = Reader::open(&bob).await;
        assert!(bobs.welcome.pending);
        assert_eq!(bobs.welcome.window, 256);
        assert_eq!(bobs.seqs(256).await, (1..=256).collect::<Vec<_>>());
        bobs.quiet().await;
        assert!(!bobs.drained, "drained comes after the backlog");
        // What is new waits behind it.
        send_many(&alice, conversation, 1).await;
        bobs.quiet().await;
        bobs.socket.ack(10).await.unwrap();
        assert_eq!(bobs.seqs(10).await, (257..=266).collect::<Vec<_>>());
        bobs.quiet().await;
        assert!(!bobs.drained);
        bobs.ack().await;
        assert_eq!(bobs.seqs(35).await, (267..=301).collect::<Vec<_>>());
        bobs.drain().await;
        bobs.ack().await;
        // The same for what comes live.
        send_many(&alice, conversation, 260).await;
        assert_eq!(bobs.seqs(256).await.last(), Some(&557));
        bobs.quiet().await;
        bobs.ack().await;
        assert_eq!(bobs.seqs(4).await, [558, 559, 560, 561]);
    }

    async fn the_window_holds_a_mebibyte(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let mut bobs = Reader::settled(&bob).await;
        for _ in 0..24 {
            alice.rest.send_message(&large(conversation, 60 * 1024), None).await.unwrap();
        }
        let count = in_flight(&mut bobs).await;
        // The same for a backlog.
        let mut bobs = Reader::open(&bob).await;
        assert_eq!(in_flight(&mut bobs).await, count);
        bobs.ack().await;
        assert_eq!(bobs.seqs(1).await, [count + 1]);
    }

    async fn two_hundred_and_fifty_six_requests_may_be_unanswered(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let mut alices = Reader::settled(&alice).await;
        let mut bobs = Reader::settled(&bob).await;
        let mut asked = Vec::new();
        for number in 0..256 {
            let message = shared(conversation, &format!("{number}"));
            asked.push(alices.socket.request("send_message", &message).await.unwrap());
        }
        let mut answers = Vec::new();
        while answers.len() < 256 {
            let frame = alices.frame().await;
            if let Some(re) = frame.re {
                answers.push((re, frame.answer::<Sent>().unwrap().seq));
            }
        }
        assert_eq!(answers, asked.into_iter().zip(1..=256).collect::<Vec<_>>(), "numbered in the order of the frames");
        assert_eq!(bobs.seqs(256).await, (1..=256).collect::<Vec<_>>());
    }

    async fn whoever_acknowledges_nothing_is_cut(database) {
        let node = TestNode::with(database, &[
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_SOCKET__ACK_TIMEOUT", "1"),
        ]).await;
        let (alice, bob, conversation) = pair(&node).await;
        let mut bobs = Reader::settled(&bob).await;
        // Nothing is due: it may stay.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        bobs.lives().await;
        send_many(&alice, conversation, 1).await;
        let begun = Instant::now();
        bobs.seqs(1).await;
        assert_eq!(bobs.close_code().await, Some(close::NOT_ACKNOWLEDGED));
        assert!(begun.elapsed() >= Duration::from_millis(900), "after {:?}", begun.elapsed());
        // Who acknowledges now and then stays; who only repeats an old acknowledgement does not.
        let mut bobs = Reader::settled(&bob).await;
        for _ in 0..3 {
            send_many(&alice, conversation, 1).await;
            tokio::time::sleep(Duration::from_millis(600)).await;
            bobs.seqs(1).await;
            bobs.ack().await;
        }
        bobs.lives().await;
        let old = bobs.n;
        send_many(&alice, conversation, 1).await;
        bobs.seqs(1).await;
        let begun = Instant::now();
        let code = loop {
            assert!(begun.elapsed() < Duration::from_secs(5), "an old acknowledgement keeps the socket");
            let _ = bobs.socket.ack(old).await;
            match bobs.frame_within(Duration::from_millis(100)).await {
                Err(sotto_client::Error::Closed { code, .. }) => break code,
                Ok(_) | Err(sotto_client::Error::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(code, Some(close::NOT_ACKNOWLEDGED));
    }
}

/// With 256 requests unanswered nothing more is read; no request is lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_256_unanswered_requests_the_server_stops_reading() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, _, conversation) = pair(&node).await;
    let mut alices = Reader::settled(&alice).await;
    // The first look at the conversation waits; all sends wait behind it.
    let held = Held::by(&node, "LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE").await;
    for _ in 0..255 {
        alices.socket.request("send_message", &shared(conversation, "x")).await.unwrap();
    }
    held.blocks(1).await;
    alices.lives().await;
    alices.socket.request("send_message", &shared(conversation, "the last one")).await.unwrap();
    let ping = alices.socket.request("ping", &serde_json::json!({ "t": 2 })).await.unwrap();
    alices.quiet().await;
    held.release().await;
    let (mut seqs, mut pong) = (Vec::new(), false);
    let begun = Instant::now();
    while seqs.len() < 256 || !pong {
        assert!(begun.elapsed() < PATIENCE, "{} answers", seqs.len());
        let frame = alices.frame().await;
        if frame.re == Some(ping) {
            assert!(!seqs.is_empty(), "the ping was read before anything was answered");
            pong = true;
        } else if frame.re.is_some() {
            seqs.push(frame.answer::<Sent>().unwrap().seq);
        }
    }
    assert_eq!(seqs, (1..=256).collect::<Vec<_>>());
}
