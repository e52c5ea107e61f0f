//! A session that ends at one node ends at all of them, within five seconds, with Redis or without.

use super::{Ear, cluster};
use crate::support::node::TestNode;
use crate::support::people::{Device, register};
use sotto_client::protocol::{ErrorCode, close};
use sotto_client::{Rest, Socket, SocketOptions};
use std::time::{Duration, Instant};

/// What the contract gives.
const EVERYWHERE: Duration = Duration::from_secs(5);

/// Waits until an access token is refused, and by the answer that it has ended.
async fn is_refused(rest: &Rest, since: Instant) {
    loop {
        match rest.me().await {
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::Unauthenticated), "{error}");
                return;
            }
            Ok(_) => assert!(since.elapsed() < EVERYWHERE, "it is taken after {:?}", since.elapsed()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The device signs out at the first node.
async fn signs_out(nodes: &[TestNode], redis_lives: bool) {
    let (alice, bystander) = (register(&nodes[0], "alice").await, register(&nodes[0], "bystander").await);
    let other = Ear::ready(&bystander, &nodes[1]).await;
    let ear = Ear::ready(&alice, &nodes[1]).await;
    // The third node has asked the database just now, and remembers.
    let elsewhere = alice.at(&nodes[2]);
    elsewhere.me().await.expect("signed in");
    let begun = Instant::now();
    alice.rest.logout().await.expect("204");
    assert_eq!(ear.close_code(EVERYWHERE).await, Some(close::DEVICE_REVOKED));
    if redis_lives {
        assert!(begun.elapsed() < Duration::from_millis(700), "the bus told it after {:?}", begun.elapsed());
    }
    is_refused(&elsewhere, begun).await;
    is_refused(&alice.at(&nodes[1]), begun).await;
    assert!(other.is_open());
}

/// A refresh token is presented again after its successor was used: the family ends.
async fn reuses(nodes: &[TestNode]) {
    let alice = register(&nodes[0], "alice").await;
    let first = alice.tokens.refresh_token.clone();
    let tokens = alice.rest.refresh(&first).await.expect("new tokens");
    let alice = Device { tokens, ..alice };
    let ear = Ear::ready(&alice, &nodes[1]).await;
    let elsewhere = alice.at(&nodes[2]);
    elsewhere.me().await.expect("signed in");
    let begun = Instant::now();
    let refused = alice.rest.refresh(&first).await.err().expect("it was used");
    assert_eq!(refused.code(), Some(ErrorCode::Unauthenticated));
    is_refused(&alice.at(&nodes[0]), begun).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "at once at that node");
    assert_eq!(ear.close_code(EVERYWHERE).await, Some(close::DEVICE_REVOKED));
    is_refused(&elsewhere, begun).await;
    // And no socket opens with it, anywhere.
    for node in nodes {
        is_refused(&alice.at(node), begun).await;
        let options = SocketOptions::hello(&alice.tokens.access_token);
        let mut socket = Socket::open(&node.url, &options).await.expect("an upgrade");
        let code = socket.closed_within(super::SWEPT).await.expect("closed");
        assert!(matches!(code, Some(close::UNAUTHENTICATED | close::DEVICE_REVOKED)), "{code:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_at_one_node_ends_at_all() {
    let (nodes, mut redis) = cluster(3).await;
    signs_out(&nodes, true).await;
    reuses(&nodes).await;
    redis.kill();
    signs_out(&nodes, false).await;
    reuses(&nodes).await;
}

/// Redis does not even refuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_everywhere_though_redis_hangs() {
    let (nodes, redis) = cluster(3).await;
    crate::support::process::signal("STOP", &[redis.pid()]);
    signs_out(&nodes, false).await;
    reuses(&nodes).await;
}
