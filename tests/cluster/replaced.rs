//! A device has one socket in the whole cluster, and it is the one that it opened last (rule D7).

use super::gate::Gate;
use super::{Ear, SWEPT, becomes, cluster, nodes_on, registrations};
use crate::support::node::TestNode;
use crate::support::people::{Device, pair, register, second_device, shared};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use futures::future::join_all;
use sotto_client::protocol::close;
use sotto_client::{Socket, SocketOptions};
use std::time::Duration;

fn hello(device: &Device, attempt: i64) -> SocketOptions {
    SocketOptions::hello(&device.tokens.access_token).attempt(attempt)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_socket_closes_wherever_it_is_and_no_other() {
    let (nodes, redis) = cluster(3).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let tablet = second_device(&nodes[0], &bob, "tablet").await;
    // Beside the device that moves: another of its user at the same node, and somebody else.
    let bystanders = [Ear::ready(&tablet, &nodes[0]).await, Ear::ready(&alice, &nodes[0]).await];
    let mut before = Ear::attempt(&bob, &nodes[0], 1).await;
    for attempt in 2..8 {
        let after = Ear::attempt(&bob, &nodes[usize::try_from(attempt).unwrap() % 3], attempt).await;
        let code = before.close_code(Duration::from_secs(3)).await;
        assert_eq!(code, Some(close::REPLACED), "attempt {attempt}");
        before = after;
    }
    // A lower number comes too late, wherever it comes.
    for (node, late) in nodes.iter().zip([1, 6, 7]) {
        let mut socket = Socket::open(&node.url, &hello(&bob, late)).await.expect("an upgrade");
        assert_eq!(socket.closed_within(SWEPT).await.unwrap(), Some(close::REPLACED), "attempt {late} after 7");
    }
    // Without a number the later one stays, and nobody is told to stop for good.
    for round in 0..6 {
        let after = Ear::open(&bob, &nodes[round % 3]).await;
        assert_eq!(before.close_code(Duration::from_secs(3)).await, Some(close::DRAINING), "round {round}");
        before = after;
    }
    let higher = Ear::attempt(&bob, &nodes[2], 8).await;
    assert_eq!(before.close_code(Duration::from_secs(3)).await, Some(close::REPLACED));
    let sent = alice.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
    for ear in [&higher, &bystanders[0]] {
        ear.came(sent.message_id).await;
    }
    assert!(higher.is_open() && bystanders.iter().all(Ear::is_open));
    assert_eq!(registrations(&redis, &bob).await.len(), 2, "one for each of his devices");
}

/// Two hundred connections of one device over three nodes, in any order and overlapping: the newest lives, is the one
/// that is registered, and gets everything; every other one is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_quick_connections_the_newest_lives() {
    let (nodes, redis) = cluster(3).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let rest = alice.at(&nodes[1]);
    let writing = tokio::spawn(async move {
        let mut last = 0;
        for number in 0..60 {
            last = rest.send_message(&shared(conversation, &number.to_string()), None).await.expect("sent").seq;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        last
    });
    let mut jitter = 0x2545_f491_4f6c_dd1d_u64;
    let opening = (1..=200_u64).map(|attempt| {
        // xorshift: the same delays in every run.
        jitter ^= jitter << 13;
        jitter ^= jitter >> 7;
        jitter ^= jitter << 17;
        let wait = Duration::from_millis(attempt * 8 + jitter % 60);
        let (node, bob) = (&nodes[usize::try_from(jitter >> 32).unwrap() % 3], &bob);
        async move {
            tokio::time::sleep(wait).await;
            let attempt = i64::try_from(attempt).unwrap();
            (attempt, Socket::open(&node.url, &hello(bob, attempt)).await.expect("an upgrade"))
        }
    });
    let mut sockets = join_all(opening).await;
    let (_, mut newest) = sockets.pop().expect("two hundred");
    let closing = sockets.into_iter().map(|(attempt, mut socket)| async move {
        let code = socket.closed_within(super::PATIENCE).await.unwrap_or_else(|_| panic!("attempt {attempt} is open"));
        assert_eq!(code, Some(close::REPLACED), "attempt {attempt}");
    });
    join_all(closing).await;
    let last = writing.await.expect("all were sent");
    let mut came = Vec::new();
    while came.last() != Some(&last) {
        came.push(crate::support::wire::next_message(&mut newest).await.1.seq);
    }
    assert_eq!(came, (1..=last).collect::<Vec<_>>(), "nothing was ever acknowledged");
    let at = registrations(&redis, &bob).await;
    assert!(at.len() == 1 && at[0].contains(&format!(":{:020}:", 201 * 512)), "{at:?}");
}

/// Test 8: the first `hello` is taken, and then its registration is held past the second's, seed by seed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_was_held_past_the_newer_one_harms_nobody() {
    let redis = RedisServer::start().await;
    let gates = [Gate::to(redis.port).await, Gate::to(redis.port).await];
    let nodes = nodes_on(&[gates[0].url.clone(), gates[1].url.clone(), redis.url()], &[]).await;
    let devices = join_all((0..24).map(|_| register(&nodes[2], "device"))).await;
    for round in 0..4_u64 {
        let held = usize::try_from(round).unwrap() % 2;
        gates[held].hold_scripts(true);
        let first = 10 * i64::try_from(round).unwrap() + 1;
        // The node waits a second at most for Redis, then it welcomes all the same.
        let seeds = devices.iter().zip(0_u64..).map(|(device, seed)| {
            let (old_node, nodes) = (&nodes[held], &nodes);
            async move {
                let mut old = Socket::open(&old_node.url, &hello(device, first)).await.expect("an upgrade");
                // From before the older registration is asked for, to long after the node has given up on it.
                tokio::time::sleep(Duration::from_millis(seed * (7 + 20 * round) % 1700)).await;
                let newer = if seed % 2 == 0 { &nodes[2] } else { &nodes[1 - held] };
                let new = Ear::attempt(device, newer, first + 1).await;
                (old.next_frame_within(SWEPT).await.is_ok(), old, new, seed)
            }
        });
        let opened = join_all(seeds).await;
        assert!(gates[held].stopped() > 0, "something was held");
        gates[held].hold_scripts(false);
        for (welcomed, mut old, new, seed) in opened {
            let code = old.closed_within(super::PATIENCE).await;
            assert_eq!(code.ok(), Some(Some(close::REPLACED)), "round {round}, seed {seed}, welcomed {welcomed}");
            assert!(new.is_open(), "round {round}, seed {seed}: the newest socket lives");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for device in &devices {
            let at = registrations(&redis, device).await;
            let number = format!(":{:020}:", (first + 2) * 512);
            assert!(at.iter().all(|value| value.contains(&number)), "round {round}: {at:?}");
        }
    }
}

/// Where a device is, by the connection that its registration names.
async fn is_at(redis: &RedisServer, device: &Device, connection: &str) -> bool {
    let at = registrations(redis, device).await;
    at.iter().filter(|value| value.contains(connection)).count() == 1
}

async fn hears(alice: &Device, conversation: sotto_client::protocol::ConversationId, ear: &Ear) {
    let sent = alice.rest.send_message(&shared(conversation, "still there?"), None).await.unwrap();
    ear.came(sent.message_id).await;
    assert!(ear.is_open());
}

/// The node of the old socket sees its end long after the device has gone on at another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_late_end_of_an_old_socket_elsewhere_harms_nobody() {
    let (nodes, redis) = cluster(2).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let proxy = Proxy::to(&nodes[0].url).await;
    for round in 0..3 {
        let old = Ear::with(&hello(&bob, 2 * round + 1), &proxy.url, true).await;
        // Nothing reaches the device any more, not even the close.
        proxy.hold_up(true);
        proxy.hold_down(true);
        let new = Ear::attempt(&bob, &nodes[1], 2 * round + 2).await;
        hears(&alice, conversation, &new).await;
        proxy.cut();
        proxy.hold_up(false);
        proxy.hold_down(false);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(is_at(&redis, &bob, &new.connection).await, "round {round}");
        hears(&alice, conversation, &new).await;
        drop(old);
    }
}

/// Whoever erases the old registration comes too late: the device is back already, at the same node or at another,
/// or at the same one after its restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_comes_late_erases_nothing_newer() {
    let redis = RedisServer::start().await;
    let gate = Gate::to(redis.port).await;
    let mut nodes: Vec<TestNode> = nodes_on(&[gate.url.clone(), redis.url()], &[]).await;
    let (alice, bob, conversation) = pair(&nodes[1]).await;
    let tablet = second_device(&nodes[1], &bob, "tablet").await;
    let bystander = Ear::ready(&tablet, &nodes[0]).await;
    for round in 0..3 {
        let old = Ear::ready(&bob, &nodes[0]).await;
        becomes("the registration", SWEPT, async || is_at(&redis, &bob, &old.connection).await).await;
        let stopped = gate.stopped();
        gate.hold_scripts(true);
        drop(old);
        becomes("the erasure is on its way", SWEPT, async || gate.stopped() > stopped).await;
        if round == 2 {
            // Told to close what was closed already, the node has closed nothing else.
            assert!(bystander.is_open());
            // What the node has asked for is still on the wire when it is long dead.
            nodes[0].kill();
        }
        let new = Ear::ready(&bob, &nodes[1]).await;
        becomes("the newer one", SWEPT, async || is_at(&redis, &bob, &new.connection).await).await;
        gate.hold_scripts(false);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(is_at(&redis, &bob, &new.connection).await, "round {round}");
        hears(&alice, conversation, &new).await;
    }
    nodes[0].restart().await;
    let back = Ear::ready(&bob, &nodes[0]).await;
    becomes("at the node that was dead", SWEPT, async || is_at(&redis, &bob, &back.connection).await).await;
    hears(&alice, conversation, &back).await;
}
