//! What a device finds that was away: everything, in order, once (rules D2, D5, D10, D12).

use super::{Reader, delivered, delivered_is, group, nothing_waits_for, send_many};
use crate::support::database::Kind;
use crate::support::lock::Held;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, enveloped, pair, register, second_device, shared};
use crate::support::proxy::Proxy;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::{ConversationId, DeviceId, Seq, UserId};
use std::collections::{BTreeMap, BTreeSet};

/// Reads by REST to the end, acknowledging each page; the messages in their order.
async fn sync_to_the_end(device: &Device, limit: u32) -> Vec<(ConversationId, Seq)> {
    let mut messages = Vec::new();
    for _ in 0..1000 {
        let page = device.rest.sync(Some(limit)).await.expect("a page");
        assert!(page.events.len() <= usize::try_from(limit).unwrap(), "a page is no longer than asked for");
        assert!(!page.has_more || !page.events.is_empty(), "a page that says that more waits brings something");
        messages.extend(page.events.iter().filter_map(|event| match event {
            Event::NewMessage(message) => Some((message.conversation_id, message.seq)),
            _ => None,
        }));
        device.rest.sync_ack(&page.cursor).await.expect("acknowledged");
        if !page.has_more {
            return messages;
        }
    }
    panic!("sync has no end");
}

on_both! {
    async fn a_kill_right_after_the_answer_loses_nothing(database) {
        let mut node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        for round in 1..=4 {
            let bobs = Reader::settled(&bob).await;
            // Connections of before the kill are not used again.
            let alices = alice.at(&node);
            let sent = alices.send_message(&shared(conversation, "before the end"), None).await.unwrap();
            node.kill();
            node.restart().await;
            drop(bobs);
            assert_eq!(sent.seq, round);
            let mut bobs = Reader::open(&bob).await;
            let message = bobs.message().await;
            assert_eq!((message.message_id, message.seq, message.after_seq), (sent.message_id, round, Some(round - 1)));
            bobs.drain().await;
            bobs.ack().await;
        }
    }

    async fn whoever_comes_while_others_write_gets_all_in_order(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let writing = async {
            for _ in 0..120 {
                alice.rest.send_message(&shared(conversation, "on and on"), None).await.unwrap();
            }
        };
        let reading = async {
            // Everything up to `stored` has been told and is on the device; acknowledged or not.
            let (mut stored, mut confirmed, mut round) = (0, 0, 0);
            while confirmed < 120 {
                let mut bobs = Reader::open(&bob).await;
                let first = bobs.message().await;
                assert_eq!(first.after_seq, Some(first.seq - 1), "nothing is between");
                assert!(first.seq > confirmed, "{} was confirmed and comes again", first.seq);
                assert!(first.seq <= stored + 1, "a gap before {}", first.seq);
                stored = stored.max(first.seq);
                for _ in 0..6 {
                    if stored < 120 {
                        stored = stored.max(bobs.message().await.seq);
                    }
                }
                round += 1;
                if round % 3 != 0 {
                    let last = *bobs.chain.get(&conversation).unwrap();
                    bobs.ack().await;
                    confirmed = confirmed.max(last);
                }
            }
        };
        tokio::join!(writing, reading);
        nothing_waits_for(&bob).await;
    }

    async fn rest_catches_up_beside_a_frozen_socket(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let proxy = Proxy::to(&node.url).await;
        let frozen = Reader::settled_at(&bob, &proxy.url).await;
        proxy.hold_down(true);
        send_many(&alice, conversation, 10).await;
        let page = bob.rest.sync(None).await.unwrap();
        let again = bob.rest.sync(None).await.unwrap();
        assert_eq!(page.events, again.events, "sync has no position of its own");
        let got = sync_to_the_end(&bob, 100).await;
        assert_eq!(got, (1..=10).map(|seq| (conversation, seq)).collect::<Vec<_>>());
        assert_eq!(delivered(&bob, conversation).await, 10);
        // One more goes into the dead socket; nothing says that it arrived.
        send_many(&alice, conversation, 1).await;
        proxy.cut();
        drop(frozen);
        let mut bobs = Reader::open(&bob).await;
        assert!(bobs.welcome.pending);
        let message = bobs.message().await;
        assert_eq!((message.seq, message.after_seq, bobs.n), (11, Some(10), 1));
        bobs.drain().await;
        bobs.quiet().await;
        bobs.ack().await;
        nothing_waits_for(&bob).await;
    }

    async fn what_rest_acknowledged_is_not_sent_by_the_socket_any_more(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        drop(Reader::settled(&bob).await);
        send_many(&alice, conversation, 300).await;
        let mut bobs = Reader::open(&bob).await;
        assert_eq!(bobs.seqs(256).await, (1..=256).collect::<Vec<_>>());
        bobs.quiet().await;
        assert_eq!(sync_to_the_end(&bob, 500).await.len(), 300);
        // The window is open again, but what was waiting behind it is on the device already.
        bobs.ack().await;
        bobs.drain().await;
        bobs.quiet().await;
        send_many(&alice, conversation, 1).await;
        let message = bobs.message().await;
        assert_eq!((message.seq, bobs.n), (301, 257));
    }

    async fn pages_of_one_step_through_fifty_conversations(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let mut expected = BTreeSet::new();
        for number in 0..50 {
            let conversation = group(&alice, &[&bob], &format!("group {number}")).await;
            send_many(&alice, conversation, 1).await;
            expected.insert((conversation, 1));
        }
        let got = sync_to_the_end(&bob, 1).await;
        assert_eq!(got.len(), 50, "each once");
        assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), expected);
        nothing_waits_for(&bob).await;
    }

    async fn numbers_that_are_not_for_a_device_are_passed_over(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        // One that only writes, by the socket and by REST; connected and away.
        let mut alices = Reader::settled(&alice).await;
        crate::support::wire::send(&mut alices.socket, &shared(conversation, "one")).await;
        send_many(&alice, conversation, 2).await;
        delivered_is(&alice, conversation, 3).await;
        drop(alices);
        send_many(&alice, conversation, 2).await;
        nothing_waits_for(&alice).await;
        delivered_is(&alice, conversation, 5).await;
        nothing_waits_for(&alice).await;

        // One that came in the middle: nothing before its sign-in is for it.
        let tablet = second_device(&node, &bob, "tablet").await;
        nothing_waits_for(&tablet).await;
        alice.rest.send_message(&enveloped(conversation, &[&bob, &tablet], "six"), None).await.unwrap();
        let mut tablets = Reader::open(&tablet).await;
        let message = tablets.message().await;
        assert_eq!((message.seq, message.after_seq), (6, Some(5)));
        tablets.drain().await;
        tablets.ack().await;
        nothing_waits_for(&tablet).await;
        let mut bobs = Reader::open(&bob).await;
        assert_eq!(bobs.seqs(6).await, [1, 2, 3, 4, 5, 6]);
        bobs.drain().await;
        bobs.ack().await;
        assert_eq!(delivered(&bob, conversation).await, 6);
        drop(bobs);
        nothing_waits_for(&bob).await;

        // Nobody there: a message without envelopes, and a device that signs in behind it.
        bob.rest.logout().await.unwrap();
        tablet.rest.logout().await.unwrap();
        alice.rest.send_message(&enveloped(conversation, &[], "seven"), None).await.unwrap();
        let phone = second_device(&node, &bob, "phone").await;
        nothing_waits_for(&phone).await;
        assert_eq!(delivered(&phone, conversation).await, 7);
        nothing_waits_for(&phone).await;
    }

    async fn two_hundred_receipts_are_told_once_for_each_reader_and_conversation(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let mut groups = Vec::new();
        for number in 0..50 {
            groups.push(group(&alice, &[&bob], &format!("group {number}")).await);
        }
        let mut bobs = Reader::settled(&bob).await;
        for round in 1..=2 {
            for conversation in &groups {
                send_many(&alice, *conversation, 1).await;
            }
            bobs.seqs(50).await;
            bobs.ack().await;
            let reads = groups.iter().map(|conversation| bob.rest.mark_read(*conversation, round));
            for read in futures::future::join_all(reads).await {
                read.unwrap();
            }
        }
        let mut by_sync = Receipts::default();
        let page = alice.rest.sync(Some(500)).await.unwrap();
        assert!(!page.has_more, "100 receipts and the groups");
        page.events.iter().for_each(|event| by_sync.note(event));
        let mut alices = Reader::open(&alice).await;
        let mut by_socket = Receipts::default();
        for frame in alices.drain().await {
            by_socket.note(&frame.event().unwrap().unwrap());
        }
        alices.ack().await;
        for (how, told) in [("sync", by_sync), ("socket", by_socket)] {
            let all = groups.iter();
            let delivered: BTreeMap<_, _> = all.clone().map(|id| ((*id, bob.device_id), 2)).collect();
            let read: BTreeMap<_, _> = all.map(|id| ((*id, bob.user_id), 2)).collect();
            assert_eq!(told.delivered, delivered, "by {how}");
            assert_eq!(told.read, read, "by {how}");
        }
        drop(alices);
        nothing_waits_for(&alice).await;
    }
}

/// The newest receipt of each reader and conversation; a second one fails.
#[derive(Default)]
struct Receipts {
    delivered: BTreeMap<(ConversationId, DeviceId), Seq>,
    read: BTreeMap<(ConversationId, UserId), Seq>,
}

impl Receipts {
    fn note(&mut self, event: &Event) {
        let before = match event {
            Event::MessageDelivered(mark) => self.delivered.insert((mark.conversation_id, mark.device_id), mark.up_to),
            Event::MessageReadUpdate(mark) => self.read.insert((mark.conversation_id, mark.user_id), mark.up_to),
            _ => None,
        };
        assert_eq!(before, None, "a second one: {event:?}");
    }
}

/// The receiver lives on another node: nobody tells it but the wake in the database (rule D1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_after_its_answer_leaves_the_message_to_the_others() {
    let mut first = TestNode::start(Kind::Postgres).await;
    let second = first.sibling().await;
    let (alice, bob, conversation) = pair(&first).await;
    for round in 1..=3 {
        let mut bobs = Reader::settled_at(&bob, &second.url).await;
        let sent = alice.at(&first).send_message(&shared(conversation, "the last one"), None).await.unwrap();
        first.kill();
        let message = bobs.message().await;
        assert_eq!((message.message_id, message.seq), (sent.message_id, round));
        bobs.ack().await;
        drop(bobs);
        first.restart().await;
    }
}

/// While a backlog is being read, three messages arrive. They come as 1, 2, 3, and the first acknowledgement
/// covers what was sent and nothing else (rule D2).
async fn three_arrive_while(lock: &str, before: usize) {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob, conversation) = pair(&node).await;
    drop(Reader::settled(&bob).await);
    // The conversation is at hand from here on: its sends need none of the tables that are held.
    send_many(&alice, conversation, 1).await;
    assert_eq!(sync_to_the_end(&bob, 100).await.len(), 1);
    send_many(&alice, conversation, before).await;
    let before = Seq::try_from(before).unwrap();

    let held = Held::by(&node, lock).await;
    let (opened, ()) = tokio::join!(Reader::open(&bob), async {
        held.blocks(1).await;
        for number in 1..=3 {
            let sent = alice.rest.send_message(&shared(conversation, "meanwhile"), None).await.unwrap();
            assert_eq!(sent.seq, 1 + before + number, "sends go on while the backlog is held");
        }
        held.release().await;
    });
    let mut bobs = opened;
    let all: Vec<Seq> = (2..=4 + before).collect();
    assert_eq!(bobs.seqs(1).await, [2]);
    assert_eq!((bobs.n, bobs.chain.len()), (1, 1));
    bobs.ack().await;
    assert_eq!(delivered(&bob, conversation).await, 2, "the first acknowledgement covers the first message");
    assert_eq!(bobs.seqs(all.len() - 1).await, all[1..]);
    bobs.drain().await;
    bobs.ack().await;
    assert_eq!(delivered(&bob, conversation).await, 4 + before);
    drop(bobs);
    nothing_waits_for(&bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_arrive_before_the_backlog_is_read_come_in_order() {
    three_arrive_while("LOCK TABLE marks IN ACCESS EXCLUSIVE MODE", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_arrive_beside_an_older_backlog_come_in_order() {
    three_arrive_while("LOCK TABLE marks IN ACCESS EXCLUSIVE MODE", 2).await;
}

/// The backlog was read and was empty, then they arrive, then the socket learns of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_arrive_after_the_backlog_was_read_come_in_order() {
    three_arrive_while("LOCK TABLE prekeys, key_counters IN ACCESS EXCLUSIVE MODE", 0).await;
}
