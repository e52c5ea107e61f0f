//! A node that freezes between lock and commit: what it has locked is free again soon, and others go on.

use crate::support::cluster::{Between, Make};
use crate::support::database::connect;
use crate::support::node::text;
use crate::support::people::{pair, shared};
use crate::support::process::signal;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// PostgreSQL ends such a session after two seconds; the other node tries again every half second.
const SOON: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_does_not_keep_its_locks() {
    let mut make = Make::nodes(2);
    make.between = Between::Nothing;
    let cluster = make.start().await;
    let (frozen, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let (alice, bob, conversation) = pair(frozen).await;
    bob.rest.send_message(&shared(conversation, "go on"), None).await.unwrap();
    // Several at a time: a message that is alone is stored in one statement, which a frozen node does not hold up.
    let mut load = JoinSet::new();
    for _ in 0..8 {
        let rest = alice.rest.clone();
        load.spawn(async move {
            loop {
                let _ = rest.send_message(&shared(conversation, "under way"), None).await;
            }
        });
    }
    // Stopped again and again, until it is in the middle of a transaction that holds the conversation.
    let look = connect(&cluster.store_url).await;
    let free =
        format!("SELECT 1 FROM heads WHERE conversation_id = '{}' FOR NO KEY UPDATE SKIP LOCKED", text(conversation));
    let pid = [frozen.pid()];
    let begun = Instant::now();
    loop {
        signal("STOP", &pid);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if look.query(&free, &[]).await.unwrap().is_empty() {
            break;
        }
        signal("CONT", &pid);
        assert!(begun.elapsed() < Duration::from_secs(60), "it never froze in a transaction");
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    let (begun, rest) = (Instant::now(), bob.at(other));
    let mut answer = rest.send_message(&shared(conversation, "is it free?"), None).await;
    while answer.is_err() && begun.elapsed() < SOON {
        answer = rest.send_message(&shared(conversation, "is it free?"), None).await;
    }
    load.abort_all();
    signal("CONT", &pid);
    answer.expect("what a frozen node holds is free again");
}
