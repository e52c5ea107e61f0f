//! REST at one node beside a socket at another: one set of acknowledged events (rule D5).

use super::{Ear, SWEPT, becomes, cluster};
use crate::support::people::{Device, pair, shared};
use crate::support::wire::quiet;
use sotto_client::protocol::ConversationId;
use sotto_client::protocol::event::Event;
use sotto_client::{Rest, Socket, SocketOptions};
use std::time::Duration;

async fn send_many(from: &Device, conversation: ConversationId, count: usize) {
    for number in 0..count {
        from.rest.send_message(&shared(conversation, &number.to_string()), None).await.expect("sent");
    }
}

/// Reads page by page to the end, acknowledging each; tells the messages' numbers.
async fn read_all(rest: &Rest, limit: u32) -> Vec<i64> {
    let mut seqs = Vec::new();
    loop {
        let page = rest.sync(Some(limit)).await.expect("a page");
        for event in &page.events {
            if let Event::NewMessage(message) = event {
                seqs.push(message.seq);
            }
        }
        rest.sync_ack(&page.cursor).await.expect("204");
        if !page.has_more {
            return seqs;
        }
    }
}

/// The events on the socket are in flight and never acknowledged; REST elsewhere takes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rest_acknowledged_at_one_node_is_not_sent_at_another() {
    let (nodes, _redis) = cluster(3).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let options = SocketOptions::hello(&bob.tokens.access_token);
    for (round, limit) in [(0, 7), (1, 500), (2, 1)] {
        let held = Ear::with(&options, &nodes[1].url, false).await;
        send_many(&alice, conversation, 20).await;
        held.until("in flight", |heard| heard.messages.len() >= 20).await;
        let expected: Vec<i64> = (20 * round + 1..=20 * round + 20).collect();
        assert_eq!(read_all(&bob.at(&nodes[2]), limit).await, expected, "a page begins at the marks");
        // At every node, and at once: the 204 was the promise.
        for node in &nodes {
            let (mut socket, _) = Socket::connect(&node.url, &options).await.expect("welcome");
            quiet(&mut socket, Duration::from_millis(250)).await;
        }
        drop(held);
    }
}

/// A socket that cannot take more, because nothing was acknowledged, learns from the other node that all of it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_socket_goes_on_from_what_rest_acknowledged_elsewhere() {
    let (nodes, _redis) = cluster(2).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let options = SocketOptions::hello(&bob.tokens.access_token);
    let held = Ear::with(&options, &nodes[1].url, false).await;
    // More than a window: the rest waits in the database, not in the node.
    let sending = (0..4).map(|_| send_many(&alice, conversation, 75));
    futures::future::join_all(sending).await;
    held.until("a full window", |heard| heard.n >= 256).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (n, in_flight) = held.look(|heard| (heard.n, heard.messages.len()));
    assert!(n == 256 && in_flight < 290, "no more than the window: {n}, {in_flight} of them messages");
    let taken = read_all(&bob.at(&nodes[0]), 500).await;
    assert_eq!(taken, (1..=300).collect::<Vec<i64>>());
    // What waited behind the window was acknowledged before it was sent: room for it brings only what is newer.
    tokio::time::sleep(Duration::from_millis(500)).await;
    held.say("ack", serde_json::json!({ "n": n }));
    let last = alice.rest.send_message(&shared(conversation, "after"), None).await.unwrap();
    held.came(last.message_id).await;
    let more: Vec<i64> = held.messages(conversation).into_iter().map(|(seq, _)| seq).skip(in_flight).collect();
    assert_eq!(more, [last.seq], "what the socket elsewhere was told is not sent there");
    let (mut socket, _) = Socket::connect(&nodes[0].url, &options).await.expect("welcome");
    let (_, message) = tokio::time::timeout(SWEPT, crate::support::wire::next_message(&mut socket)).await.unwrap();
    assert_eq!(
        (message.seq, message.message_id),
        (last.seq, last.message_id),
        "the newer socket begins behind the 204"
    );
}

/// The window of the live socket is open: it must not send again what REST has just confirmed elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_twice_while_rest_and_a_socket_read_together() {
    let (nodes, _redis) = cluster(2).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let ear = Ear::ready(&bob, &nodes[1]).await;
    let rest = bob.at(&nodes[0]);
    let reading = tokio::spawn(async move {
        for _ in 0..40 {
            read_all(&rest, 3).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    send_many(&alice, conversation, 150).await;
    reading.await.expect("read");
    let last = alice.rest.send_message(&shared(conversation, "last"), None).await.unwrap();
    ear.came(last.message_id).await;
    // Some of it the socket has passed over, for REST was sooner; nothing came again or in another order.
    let came: Vec<i64> = ear.messages(conversation).into_iter().map(|(seq, _)| seq).collect();
    assert!(came.windows(2).all(|two| two[0] < two[1]), "{came:?}");
    let nothing_waits = async || bob.at(&nodes[0]).sync(None).await.unwrap().events.is_empty();
    becomes("all of it is acknowledged", SWEPT, nothing_waits).await;
}
