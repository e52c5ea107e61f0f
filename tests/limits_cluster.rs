//! Limits over several nodes: together they allow what one would, and Redis is asked no more often for a flood.

use crate::delivery_append::{group, socket_at, try_send};
use crate::support::cluster::{Cluster, Make};
use crate::support::people::{Device, fresh_phone, register, second_device, shared};
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::{ConversationId, ErrorCode};
use sotto_client::{Error, Rest, Socket};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Portions that a node has not used come back within this time: they are valid for 5 s.
const LAPSED: Duration = Duration::from_secs(9);
/// Between two refusals: more than a hundred in a minute close a socket.
const PAUSE: Duration = Duration::from_millis(200);

async fn two_nodes() -> Cluster {
    Make::nodes(2).set("SOTTO_LIMITS__ENABLED", "true").set("SOTTO_AUTH__RESEND_DELAY", "0").start().await
}

/// Sends as fast as it goes; how many were stored. Everything else is a refusal for the limit.
async fn flood(socket: &mut Socket, conversation: ConversationId, time: Duration) -> usize {
    let begun = Instant::now();
    let mut stored = 0;
    while begun.elapsed() < time {
        match try_send(socket, &shared(conversation, "flood")).await {
            Ok(_) => stored += 1,
            Err(error) => {
                let problem = error.problem().expect("a refusal");
                assert_eq!(problem.code, ErrorCode::RateLimited, "{error}");
                let wait = problem.retry_after_ms.expect("when to come back");
                assert!((1..=70_000).contains(&wait), "{wait}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    stored
}

/// Asks as fast as it goes: how often that was answered, and how often refused.
async fn ask(rest: &Rest, time: Duration) -> (usize, usize) {
    let begun = Instant::now();
    let (mut answered, mut refused) = (0, 0);
    while begun.elapsed() < time {
        match rest.me().await {
            Ok(_) => answered += 1,
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::RateLimited), "{error}");
                refused += 1;
            }
        }
    }
    (answered, refused)
}

/// A user with a device at each of two nodes, in a conversation.
async fn at_both(cluster: &Cluster) -> (Device, Socket, Socket, ConversationId) {
    let [here, there] = &cluster.nodes[..] else { panic!("two nodes") };
    let (alice, bob) = (register(here, "alice").await, register(here, "bob").await);
    let conversation = group(&alice, &[&bob]).await;
    let tablet = second_device(here, &alice, "tablet").await;
    let sockets = (socket_at(&alice, here).await, socket_at(&tablet, there).await);
    (alice, sockets.0, sockets.1, conversation)
}

/// How often the scripts of all nodes have run.
async fn scripts(cluster: &mut Cluster) -> u64 {
    let statistics = cluster.redis().command(&["INFO", "commandstats"]).await.expect("statistics");
    let calls = |line: &str| {
        let (_, calls) =
            line.strip_prefix("cmdstat_evalsha:").or(line.strip_prefix("cmdstat_eval:"))?.split_once("calls=")?;
        calls.split(',').next()?.parse::<u64>().ok()
    };
    statistics.lines().filter_map(calls).sum()
}

fn is_unavailable<T>(answer: Result<T, Error>) {
    let Err(error) = answer else { panic!("the database is away") };
    let problem = error.problem().unwrap_or_else(|| panic!("a problem, not {error}"));
    assert_eq!((problem.status, problem.code), (503, ErrorCode::Unavailable), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_at_two_nodes_sends_and_asks_what_one_node_would_allow() {
    let cluster = two_nodes().await;
    let (_alice, mut first, mut second, conversation) = at_both(&cluster).await;
    let carol = register(&cluster.nodes[0], "carol").await;
    let elsewhere = carol.at(&cluster.nodes[1]);
    let begun = Instant::now();
    let (a, b, (c, _), (d, _)) = tokio::join!(
        flood(&mut first, conversation, LAPSED),
        flood(&mut second, conversation, LAPSED),
        ask(&carol.rest, LAPSED),
        ask(&elsewhere, LAPSED),
    );
    assert!(begun.elapsed() < Duration::from_secs(50), "one window");
    assert_eq!(a + b, 20, "{a} + {b} messages");
    assert_eq!(c + d, 100, "{c} + {d} requests");
    assert!(a > 0 && b > 0 && c > 0 && d > 0, "{a} {b} {c} {d}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_node_counts_alone_and_nobody_waits() {
    let mut cluster = two_nodes().await;
    let (_alice, mut first, mut second, conversation) = at_both(&cluster).await;
    let (a, b) = tokio::join!(
        flood(&mut first, conversation, Duration::from_secs(2)),
        flood(&mut second, conversation, Duration::from_secs(2)),
    );
    assert!(a + b <= 20, "{a} + {b}");
    cluster.redis().kill();
    let (c, d) = tokio::join!(
        flood(&mut first, conversation, Duration::from_secs(4)),
        flood(&mut second, conversation, Duration::from_secs(4)),
    );
    assert_eq!((a + c, b + d), (20, 20), "each node's own window");
    // It comes back empty; what was sent meanwhile is told to it, and nothing more is allowed.
    cluster.redis().restart().await;
    let (e, f) = tokio::join!(flood(&mut first, conversation, LAPSED), flood(&mut second, conversation, LAPSED),);
    assert_eq!((e, f), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_reach_redis() {
    let mut cluster = two_nodes().await;
    let carol = register(&cluster.nodes[0], "carol").await;
    let elsewhere = carol.at(&cluster.nodes[1]);
    let before = scripts(&mut cluster).await;
    let (answered, _) = ask(&carol.rest, Duration::from_secs(2)).await;
    assert_eq!(answered, 100);
    let portions = scripts(&mut cluster).await - before;
    assert!(portions <= 25, "a portion is a quarter of the limit: {portions} scripts for 100 requests");
    // One node is full itself, the other hears of it from Redis.
    let before = scripts(&mut cluster).await;
    let time = Duration::from_secs(4);
    let ((a, refused_here), (b, refused_there)) = tokio::join!(ask(&carol.rest, time), ask(&elsewhere, time));
    let calls = scripts(&mut cluster).await - before;
    assert_eq!((a, b), (0, 0));
    assert!(refused_here > 100 && refused_there > 100, "{refused_here} and {refused_there} are no flood");
    assert!(calls <= 30, "{calls} scripts for {} refusals", refused_here + refused_there);
    let keys = cluster.redis().keys("sotto:*:limit:requests:*").await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    let life: i64 = cluster.redis().command(&["PTTL", &keys[0]]).await.unwrap().parse().unwrap();
    assert!((1..=65_001).contains(&life), "{life} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_look_ups_and_claims_are_counted_in_the_database_and_nowhere_else() {
    let settings = [("SOTTO_LIMITS__LOOKUPS_FIRST_DAY", "10"), ("SOTTO_LIMITS__KEY_CLAIMS", "4")];
    let mut make = Make::nodes(2).set("SOTTO_LIMITS__ENABLED", "true").set("SOTTO_AUTH__RESEND_DELAY", "0");
    for (key, value) in settings {
        make = make.set(key, value);
    }
    let mut cluster = make.start().await;
    let people = [register(&cluster.nodes[0], "a").await, register(&cluster.nodes[0], "b").await];
    let bob = register(&cluster.nodes[0], "bob").await;
    let (here, there) = (Rest::new(&cluster.nodes[0].url).unwrap(), Rest::new(&cluster.nodes[1].url).unwrap());
    for (asker, is_redis_away) in people.iter().zip([false, true]) {
        if is_redis_away {
            cluster.redis().kill();
        }
        let at = [asker.at(&cluster.nodes[0]), asker.at(&cluster.nodes[1])];
        let phone = fresh_phone();
        let mut answers = Vec::new();
        for node in [&here, &there, &here, &there, &here] {
            answers.push(node.verify(&phone, Purpose::Registration).await.map(drop).map_err(|error| error.code()));
        }
        let limited = Err(Some(ErrorCode::RateLimited));
        assert_eq!(answers, [Ok(()), Ok(()), Ok(()), limited, limited], "three codes an hour");
        let numbers = |from: usize| -> Vec<String> { (0..5).map(|n| format!("+41440000{:03}", from + n)).collect() };
        at[0].lookup(&numbers(0)).await.unwrap();
        at[1].lookup(&numbers(5)).await.unwrap();
        for node in &at {
            let error = node.lookup(&numbers(10)).await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::RateLimited));
        }
        let mut claimed = BTreeSet::new();
        for node in at.iter().cycle().take(6) {
            let keys = node.claim_keys(bob.user_id, &[]).await.unwrap();
            claimed.extend(keys.devices[0].one_time_prekey.as_ref().map(|key| key.key_id));
        }
        assert_eq!(claimed.len(), 4, "four one-time keys, then the last resort");
    }
    // Without the database there is nothing to count with: closed.
    cluster.postgres.kill();
    for node in &mut cluster.nodes {
        node.expect_log("");
    }
    let asker = people[0].at(&cluster.nodes[1]);
    is_unavailable(there.verify(&fresh_phone(), Purpose::Registration).await);
    is_unavailable(there.refresh(&bob.tokens.refresh_token).await);
    is_unavailable(asker.lookup(&["+41440000999".to_owned()]).await);
    is_unavailable(asker.claim_keys(bob.user_id, &[]).await);
}
