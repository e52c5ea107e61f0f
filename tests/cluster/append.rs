//! Several nodes append to one log: one order, no hole, no id twice.

use super::{Ear, cluster};
use crate::delivery_append::{assert_gapless, group, log, pipeline, post, socket_at};
use crate::support::people::{Device, pair, register, shared};
use futures::future::join_all;
use sotto_client::protocol::MessageId;

/// Two hundred ids, each at two nodes in the same moment: one stores it, both say the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_at_two_nodes_at_once_is_stored_once() {
    let (nodes, _redis) = cluster(3).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let bobs = Ear::ready(&bob, &nodes[2]).await;
    let mut ids = Vec::new();
    let rests = [alice.at(&nodes[0]), alice.at(&nodes[1])];
    for _ in 0..25 {
        let messages: Vec<_> = (0..8).map(|_| shared(conversation, "twice")).collect();
        let both =
            messages.iter().map(|message| async { tokio::join!(post(&rests[0], message), post(&rests[1], message)) });
        for (message, ((here, first), (there, second))) in messages.iter().zip(join_all(both).await) {
            let mut statuses = [here, there];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 201], "{first} {second}");
            assert_ne!(first["duplicate"], second["duplicate"], "{first} {second}");
            for part in ["message_id", "conversation_id", "seq", "server_time"] {
                assert_eq!(first[part], second[part], "{first} {second}");
            }
            ids.push((first["seq"].as_i64().unwrap(), message.message_id));
        }
    }
    ids.sort_unstable();
    let all = log(&bob.rest, conversation).await;
    assert_gapless(&all);
    assert_eq!(all, ids, "the log says what the answers said");
    bobs.until("everything", |heard| heard.messages.len() >= all.len()).await;
    assert_eq!(bobs.messages(conversation), all);
}

/// Three members at three nodes write as fast as they are answered, and all read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_append_to_one_log_at_full_speed() {
    const EACH: usize = 240;
    let (nodes, _redis) = cluster(3).await;
    let mut members: Vec<Device> = Vec::new();
    for node in &nodes {
        members.push(register(node, "member").await);
    }
    let reader = register(&nodes[1], "reader").await;
    let conversation = group(&members[0], &[&members[1], &members[2], &reader]).await;
    let readers = Ear::ready(&reader, &nodes[1]).await;
    let writing = members.iter().zip(&nodes).map(|(member, node)| async move {
        // A socket of its own carries the requests; the same device's events come there too and are passed over.
        let mut socket = socket_at(member, node).await;
        let mut sent: Vec<(i64, MessageId)> = Vec::new();
        for _ in 0..EACH / 8 {
            let messages: Vec<_> = (0..8).map(|_| shared(conversation, "fast")).collect();
            for answer in pipeline(&mut socket, &messages).await {
                let answer = answer.expect("ok");
                sent.push((answer.seq, answer.message_id));
            }
        }
        sent
    });
    let sent = join_all(writing).await;
    let all = log(&reader.rest, conversation).await;
    assert_gapless(&all);
    assert_eq!(all.len(), 3 * EACH);
    for own in &sent {
        assert!(own.is_sorted(), "the order of a sender's frames is the order of his numbers");
        assert!(own.iter().all(|entry| all.binary_search(entry).is_ok()), "the log says what the answers said");
    }
    let mixed = all.windows(2).filter(|two| {
        let of = |entry| sent.iter().position(|own| own.binary_search(entry).is_ok());
        of(&two[0]) != of(&two[1])
    });
    assert!(mixed.count() > 20, "they wrote at the same time");
    readers.until("everything", |heard| heard.messages.len() >= all.len()).await;
    assert_eq!(readers.messages(conversation), all);
    // The others have the rest of it, in the same order.
    for (place, member) in members.iter().enumerate() {
        let ear = Ear::open(member, &nodes[(place + 1) % 3]).await;
        let theirs: Vec<_> = all.iter().filter(|entry| sent[place].binary_search(entry).is_err()).copied().collect();
        let last = theirs.last().copied();
        ear.until("everything", |heard| heard.messages.last().map(|message| (message.seq, message.id)) == last).await;
        let came = ear.messages(conversation);
        assert!(theirs.ends_with(&came), "what was not acknowledged, in the order of the log");
    }
}
