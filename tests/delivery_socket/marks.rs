//! Marks belong to what a device confirmed on that very connection, and only grow (rules D4 and D6).

use super::{Reader, delivered, delivered_is, send_many};
use crate::support::database::Kind;
use crate::support::lock::Held;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::pair;
use crate::support::proxy::Proxy;
use crate::support::wire::PATIENCE;
use sotto_client::protocol::close;
use std::process::Command;
use std::time::Duration;

on_both! {
    async fn a_late_acknowledgement_of_the_replaced_socket_marks_nothing(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let proxy = Proxy::to(&node.url).await;
        let mut first = Reader::settled_at(&bob, &proxy.url).await;
        send_many(&alice, conversation, 3).await;
        assert_eq!(first.seqs(3).await, [1, 2, 3]);
        // The acknowledgement is on the wire when the second socket takes over.
        proxy.hold_up(true);
        first.socket.ack(first.n).await.unwrap();
        let mut second = Reader::open(&bob).await;
        assert_eq!(second.seqs(1).await, [1]);
        proxy.hold_up(false);
        assert_eq!(first.close_code().await, Some(close::DRAINING));
        assert_eq!(second.seqs(2).await, [2, 3]);
        second.drain().await;
        second.lives().await;
        assert_eq!(delivered(&bob, conversation).await, 0, "nothing of this was confirmed");
        // Nor is the numbering of the second one touched: its own acknowledgement counts from its own 1.
        second.socket.ack(1).await.unwrap();
        second.next_of("acked").await;
        assert_eq!(delivered(&bob, conversation).await, 1);
    }

    async fn an_acknowledgement_of_what_was_never_sent_ends_the_socket(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        for beyond in [1, 1000] {
            let mut bobs = Reader::settled(&bob).await;
            send_many(&alice, conversation, 1).await;
            let seq = bobs.message().await.seq;
            bobs.socket.ack(bobs.n + beyond).await.unwrap();
            assert_eq!(bobs.close_code().await, Some(close::PROTOCOL_ERROR));
            assert_eq!(delivered(&bob, conversation).await, seq - 1, "it marks nothing");
        }
        // Below the last, and 0: ignored.
        let mut bobs = Reader::settled(&bob).await;
        send_many(&alice, conversation, 2).await;
        bobs.seqs(2).await;
        bobs.ack().await;
        for n in [0, 1, bobs.n - 1] {
            bobs.socket.ack(n).await.unwrap();
        }
        bobs.lives().await;
        assert_eq!(delivered(&bob, conversation).await, 4);
    }

    async fn what_was_confirmed_outlives_a_kill_and_nothing_falls(database) {
        let mut node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        drop(Reader::settled(&bob).await);
        let mut expected = 0;
        for round in 0..5 {
            for _ in 0..5 {
                alice.at(&node).send_message(&crate::support::people::shared(conversation, "x"), None).await.unwrap();
            }
            expected += 5;
            let mut bobs = Reader::open(&bob).await;
            let mut seqs = Vec::new();
            while seqs.last() != Some(&expected) {
                seqs.extend(bobs.seqs(1).await);
            }
            // All but two are confirmed; the rest is on its way when the node dies.
            bobs.socket.ack(bobs.n - 2).await.unwrap();
            bobs.next_of("acked").await;
            let confirmed = expected - 2;
            bobs.socket.ack(bobs.n).await.unwrap();
            if round % 2 == 0 {
                bobs.lives().await;
            }
            node.kill();
            node.restart().await;
            let now = bob.at(&node).conversation(conversation).await.unwrap().delivered_up_to;
            assert!((confirmed..=expected).contains(&now), "{now} after {confirmed} was confirmed");
            let mut bobs = Reader::open(&bob).await;
            let mut again = Vec::new();
            for frame in bobs.drain().await {
                if frame.t == "new_message" {
                    again.push(frame.data::<serde_json::Value>().unwrap()["seq"].as_i64().unwrap());
                }
            }
            assert_eq!(again, (now + 1..=expected).collect::<Vec<_>>(), "exactly what has no mark comes again");
        }
    }
}

fn signal(node: &TestNode, name: &str) {
    let status = Command::new("kill").args([name, &node.pid().to_string()]).status().expect("kill");
    assert!(status.success());
}

/// The older acknowledgement is written last, by another node than the newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_flush_in_reverse_order_lower_nothing() {
    let first = TestNode::start(Kind::Postgres).await;
    let second = first.sibling().await;
    let (alice, bob, conversation) = pair(&second).await;
    let mut old = Reader::settled_at(&bob, &first.url).await;
    let mut alices = Reader::settled(&alice).await;
    send_many(&alice, conversation, 5).await;
    assert_eq!(old.seqs(5).await, [1, 2, 3, 4, 5]);
    let n = old.n - 2;
    // Asleep, the first node has the acknowledgement in its socket and in no mark.
    signal(&first, "-STOP");
    old.socket.ack(n).await.unwrap();
    let mut new = Reader::open(&bob).await;
    assert_eq!(new.seqs(5).await, [1, 2, 3, 4, 5]);
    new.drain().await;
    new.ack().await;
    assert_eq!(delivered(&bob, conversation).await, 5);
    let told = alices.next_of("message_delivered").await.data::<serde_json::Value>().unwrap();
    assert_eq!(told["up_to"], 5);
    signal(&first, "-CONT");
    // It answers only after its own transaction.
    old.next_of("acked").await;
    assert_eq!(delivered(&bob, conversation).await, 5);
    alices.quiet().await;
    drop((old, new));
    let mut bobs = Reader::open(&bob).await;
    assert_eq!(bobs.drain().await, []);
    bobs.quiet().await;
    delivered_is(&bob, conversation, 5).await;
}

/// The node that was asleep wakes up behind a peer that has gone on; its reader gets the rest from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_sends_what_it_missed() {
    let first = TestNode::start(Kind::Postgres).await;
    let second = first.sibling().await;
    let (alice, bob, conversation) = pair(&second).await;
    let mut bobs = Reader::settled_at(&bob, &first.url).await;
    signal(&first, "-STOP");
    send_many(&alice, conversation, 20).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    signal(&first, "-CONT");
    assert_eq!(bobs.seqs(20).await, (1..=20).collect::<Vec<_>>());
    bobs.ack().await;
    assert_eq!(delivered(&bob, conversation).await, 20);
    assert!(bobs.socket.next_frame_within(PATIENCE / 100).await.is_err());
}

/// A page was fetched by REST, and the socket is reading the same events when the page is acknowledged. What was
/// read before the 204 is not sent after it.
async fn acknowledged_while_it_is_read(lock: &str, is_welcome_first: bool) {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob, conversation) = pair(&node).await;
    let mut bobs = Reader::settled(&bob).await;
    send_many(&alice, conversation, 1).await;
    bobs.seqs(1).await;
    bobs.ack().await;
    bob.rest.mark_read(conversation, 1).await.unwrap();
    send_many(&bob, conversation, 3).await;

    let page = alice.rest.sync(None).await.unwrap();
    assert!(page.events.len() >= 6 && !page.has_more, "the conversation, two receipts, three messages");
    let held = Held::by(&node, lock).await;
    let mut opening = Box::pin(Reader::open(&alice));
    let mut alices = None;
    if is_welcome_first {
        alices = Some(opening.as_mut().await);
        held.blocks(1).await;
    } else {
        tokio::select! {
            _ = opening.as_mut() => panic!("welcome comes after the look at the backlog"),
            () = held.blocks(1) => {}
        }
    }
    alice.rest.sync_ack(&page.cursor).await.unwrap();
    held.release().await;
    let mut alices = match alices {
        Some(alices) => alices,
        None => opening.await,
    };
    // Messages that were read before the lock was met had gone out before the acknowledgement.
    let events = alices.drain().await;
    let late = events.iter().filter(|frame| !is_welcome_first || frame.t != "new_message");
    assert_eq!(late.map(|frame| (&*frame.t, &*frame.d)).collect::<Vec<_>>(), []);
    alices.quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rest_acknowledged_during_the_first_look_is_not_sent() {
    acknowledged_while_it_is_read("LOCK TABLE prekeys, key_counters IN ACCESS EXCLUSIVE MODE", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_rest_acknowledged_while_they_were_read_are_not_sent() {
    acknowledged_while_it_is_read("LOCK TABLE reads IN ACCESS EXCLUSIVE MODE", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn account_events_that_rest_acknowledged_while_they_were_read_are_not_sent() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, _, _) = pair(&node).await;
    let page = alice.rest.sync(None).await.unwrap();
    assert!(!page.events.is_empty() && !page.has_more, "the conversation is news");
    // The event is read with the conversation that it tells of.
    let held = Held::by(&node, "LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE").await;
    let mut alices = Reader::open(&alice).await;
    held.blocks(1).await;
    alice.rest.sync_ack(&page.cursor).await.unwrap();
    held.release().await;
    assert_eq!(alices.drain().await, []);
    alices.quiet().await;
}
