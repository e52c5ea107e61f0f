//! Reading a socket in tests: wait for the thing itself, with a bound.

use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::{Message, OutgoingMessage, Sent};
use sotto_client::{Socket, socket::ServerFrame};
use std::time::Duration;

/// Longer than anything here takes; a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The next frame of a type; others are passed over.
pub async fn next_of(socket: &mut Socket, t: &str) -> ServerFrame {
    loop {
        let frame = socket.next_frame_within(PATIENCE).await.unwrap_or_else(|error| panic!("waiting for {t}: {error}"));
        if frame.t == t {
            return frame;
        }
    }
}

/// The next message with its number on the connection.
pub async fn next_message(socket: &mut Socket) -> (u64, Message) {
    let frame = next_of(socket, "new_message").await;
    let n = frame.n.expect("durable events are numbered");
    match frame.event().expect("an event").expect("a durable event") {
        Event::NewMessage(message) => (n, message),
        other => panic!("not a message: {other:?}"),
    }
}

/// As many messages.
pub async fn messages(socket: &mut Socket, count: usize) -> Vec<(u64, Message)> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        all.push(next_message(socket).await);
    }
    all
}

/// Sends over the socket and waits for the answer.
pub async fn send(socket: &mut Socket, message: &OutgoingMessage) -> Sent {
    let id = socket.request("send_message", message).await.expect("sent");
    loop {
        let frame = socket.next_frame_within(PATIENCE).await.expect("an answer");
        if frame.re == Some(id) {
            return frame.answer::<Sent>().expect("ok");
        }
    }
}

/// Acknowledges and waits until it is confirmed.
pub async fn ack(socket: &mut Socket, n: u64) {
    socket.ack(n).await.expect("sent");
    while next_of(socket, "acked").await.data::<serde_json::Value>().expect("acked")["n"].as_u64() < Some(n) {}
}

/// Nothing durable comes for a while.
pub async fn quiet(socket: &mut Socket, wait: Duration) {
    let until = tokio::time::Instant::now() + wait;
    while let Some(left) = until.checked_duration_since(tokio::time::Instant::now()) {
        match socket.next_frame_within(left).await {
            Ok(frame) => assert!(frame.n.is_none(), "unexpected {}: {:?}", frame.t, frame.d),
            Err(_) => return,
        }
    }
}
