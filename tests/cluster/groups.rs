//! Groups whose members are spread over the nodes.

use super::{Ear, cluster};
use crate::delivery_append::{assert_gapless, group, insist, log, socket_at};
use crate::support::people::{Device, register, shared};
use futures::future::join_all;
use std::collections::BTreeSet;

/// Sixty members on three nodes, six of whom write at once: everybody gets everything but his own, in one order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_members_on_three_nodes_hear_the_same_in_the_same_order() {
    let (nodes, _redis) = cluster(3).await;
    let mut members: Vec<Device> = Vec::new();
    for part in 0..6 {
        let fresh = (0..10).map(|place| register(&nodes[(part + place) % 3], "member"));
        members.extend(join_all(fresh).await);
    }
    let others: Vec<&Device> = members.iter().skip(1).collect();
    let conversation = group(&members[0], &others).await;
    let at = |place: usize| &nodes[place % 3];
    let opening = members.iter().enumerate().map(|(place, member)| Ear::ready(member, at(place)));
    let ears = join_all(opening).await;
    // Two writers at each node, by REST beside their own sockets.
    let writing = (0..6).map(|place| {
        let (writer, members) = (members[place].at(at(place)), &members);
        async move {
            for number in 0..10 {
                let message = shared(conversation, &format!("{number} of {}", members[place].device_id));
                writer.send_message(&message, None).await.expect("sent");
            }
        }
    });
    join_all(writing).await;

    let all = log(&members[0].rest, conversation).await;
    assert_gapless(&all);
    assert_eq!(all.len(), 60);
    for (place, ear) in ears.iter().enumerate() {
        let expected = if place < 6 { 50 } else { 60 };
        ear.until("everything", |heard| heard.messages.len() >= expected).await;
        let came = ear.messages(conversation);
        assert_eq!(came.len(), expected, "member {place}: nothing comes twice");
        let ids: BTreeSet<_> = came.iter().map(|(_, id)| *id).collect();
        let theirs: Vec<_> = all.iter().filter(|(_, id)| ids.contains(id)).copied().collect();
        assert_eq!(came, theirs, "member {place}: the order of the log");
        ear.is_in_order();
    }
}

/// Members come and go at one node while another one sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_who_join_and_leave_elsewhere_get_exactly_their_interval() {
    let (nodes, _redis) = cluster(3).await;
    let (alice, bob) = (register(&nodes[0], "alice").await, register(&nodes[1], "bob").await);
    let carol = register(&nodes[2], "carol").await;
    let conversation = group(&alice, &[&bob]).await;
    let carols = Ear::ready(&carol, &nodes[2]).await;
    let mut bobs = socket_at(&bob, &nodes[1]).await;
    let mut expected: Vec<i64> = Vec::new();
    for round in 0..4 {
        let before = insist(&mut bobs, &shared(conversation, "before")).await.seq;
        assert_eq!(before, 6 * round + 1, "two entries of the log and four messages in each round");
        alice.rest.add_members(conversation, &[carol.user_id]).await.unwrap();
        // Her own entry, then what bob's node sends though nobody has told it of her.
        for place in 0..3 {
            let sent = insist(&mut bobs, &shared(conversation, "for carol")).await;
            assert_eq!(sent.seq, before + 2 + place, "round {round}");
        }
        alice.rest.remove_members(conversation, &[carol.user_id]).await.unwrap();
        expected.extend(before + 1..before + 5);
    }
    carols.until("all intervals", |heard| heard.messages.len() >= expected.len()).await;
    insist(&mut bobs, &shared(conversation, "behind her back")).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let came: Vec<_> = carols.messages(conversation).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(came, expected);
}
