//! A client that does not read: it is cut, it costs the server nothing that grows, and nobody else notices.

use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, pair, second_device, shared};
use crate::support::raw::RawSocket;
use crate::support::wire::{PATIENCE, next_message, next_of};
use sotto_client::Socket;
use sotto_client::protocol::message::OutgoingMessage;
use sotto_client::protocol::{Binary, ConversationId, close};
use std::time::{Duration, Instant};

const MESSAGES: usize = 10_000;
/// Bytes of sends that wait for their answer at a time: as many as are written in a moment, so that the sender
/// itself hears what is due to it.
const ABREAST: usize = 120 * 1024;
const MEBIBYTE: u64 = 1 << 20;

fn message(conversation: ConversationId, bytes: usize) -> OutgoingMessage {
    OutgoingMessage { ciphertext: Some(Binary(vec![7; bytes])), ..shared(conversation, "") }
}

/// Sends over one socket, many abreast, until all are answered.
async fn flood(device: &Device, conversation: ConversationId, count: usize, bytes: usize) {
    let (mut socket, _) = device.socket().await;
    next_of(&mut socket, "drained").await;
    let abreast = (ABREAST / bytes).max(1);
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        while sent < count && sent - answered < abreast {
            socket.request("send_message", &message(conversation, bytes)).await.expect("sent");
            sent += 1;
        }
        let frame = socket.next_frame_within(PATIENCE).await.expect("an answer");
        if frame.re.is_some() {
            assert_eq!(frame.t, "ok", "{}", frame.d);
            answered += 1;
        }
        if let Some(n) = frame.n {
            socket.ack(n).await.expect("sent");
        }
    }
}

/// Reads and acknowledges until it has the last one; the longest silence meanwhile.
async fn follow(socket: &mut Socket, last: i64) -> Duration {
    let (mut worst, mut since) = (Duration::ZERO, None::<Instant>);
    let mut expected = None;
    loop {
        let (n, message) = next_message(socket).await;
        worst = worst.max(since.map_or(Duration::ZERO, |since| since.elapsed()));
        since = Some(Instant::now());
        assert!(expected.is_none_or(|expected| message.seq == expected), "{} instead of {expected:?}", message.seq);
        expected = Some(message.seq + 1);
        if n % 8 == 0 || message.seq == last {
            socket.ack(n).await.expect("sent");
        }
        if message.seq == last {
            return worst;
        }
    }
}

/// Two devices of one user get the same messages; one of them never reads.
async fn beside_a_reader(node: &TestNode, bytes: usize, count: usize, receive_buffer: u32) -> (RawSocket, u64) {
    let (alice, bob, conversation) = pair(node).await;
    let tablet = second_device(node, &bob, "tablet").await;
    // What the server needs anyway is not counted.
    let (mut reading, _) = tablet.socket().await;
    next_of(&mut reading, "drained").await;
    let warm = count / 10;
    let warm_last = i64::try_from(warm).unwrap();
    tokio::join!(flood(&alice, conversation, warm, bytes), follow(&mut reading, warm_last));
    let before = node.resident();

    let mut stuck = RawSocket::hello(&node.url, &bob.tokens.access_token, Some(receive_buffer)).await;
    stuck.next_of("welcome").await;
    let last = warm_last + i64::try_from(count).unwrap();
    let mut most = before;
    let sending = async { tokio::join!(flood(&alice, conversation, count, bytes), follow(&mut reading, last)).1 };
    tokio::pin!(sending);
    let worst = loop {
        tokio::select! {
            worst = &mut sending => break worst,
            () = tokio::time::sleep(Duration::from_millis(50)) => most = most.max(node.resident()),
        }
    };
    assert!(worst < Duration::from_secs(5), "another device of the same user waited {worst:?} for a message");
    let delivered = tablet.rest.conversation(conversation).await.unwrap();
    assert_eq!(delivered.delivered_up_to, 0, "the slow device has acknowledged nothing");
    (stuck, most - before)
}

on_both! {
    async fn ten_thousand_small_messages_for_one_who_never_reads(database) {
        let node = TestNode::with(database, &[
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_SOCKET__ACK_TIMEOUT", "2"),
        ]).await;
        let (mut stuck, grown) = beside_a_reader(&node, 600, MESSAGES, 4096).await;
        assert!(grown < 24 * MEBIBYTE, "{} MiB more", grown / MEBIBYTE);
        // Whatever was under way for it ends with the reason.
        let (frames, code) = stuck.read_out().await;
        assert!(
            [Some(close::NOT_ACKNOWLEDGED), Some(close::SLOW_CONSUMER), None].contains(&code),
            "it is cut for being slow, not with {code:?}"
        );
        // The window, and a few frames that are not durable.
        assert!((200..=270).contains(&frames), "{frames} frames were under way for it");
    }

    async fn large_messages_for_one_who_never_reads(database) {
        let node = TestNode::with(database, &[
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_SOCKET__ACK_TIMEOUT", "2"),
        ]).await;
        // 120 MiB go by; what may wait for him is one.
        let (mut stuck, grown) = beside_a_reader(&node, 60 * 1024, 2000, 4096).await;
        assert!(grown < 32 * MEBIBYTE, "{} MiB more", grown / MEBIBYTE);
        let (frames, code) = stuck.read_out().await;
        assert!(frames <= 20, "{frames} frames of 80 KiB were under way for it");
        assert!([Some(close::NOT_ACKNOWLEDGED), Some(close::SLOW_CONSUMER), None].contains(&code), "{code:?}");
    }
}
