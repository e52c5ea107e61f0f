//! The life of nodes among others: who is there, whether canaries arrive, and how one takes its leave.

use crate::delivery_append::{insist, socket_at};
use crate::support::database::{Kind, connect, fresh};
use crate::support::node::TestNode;
use crate::support::people::{pair, register, shared};
use crate::support::process::signal;
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::wire::{PATIENCE, next_message, next_of};
use serde_json::{Value, json};
use sotto_client::protocol::close;
use sotto_client::{Socket, SocketOptions};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Canaries go every five seconds, and three must be missed: what is to be seen by them is seen within this time.
const SEEN: Duration = Duration::from_secs(25);

/// Nodes with names of their own on one database, each with the Redis that its URL leads to.
async fn nodes(redis: &[Option<String>], more: &[(&str, &str)]) -> Vec<TestNode> {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let store_url = fresh(Kind::Postgres, folder.path()).await;
    let mut nodes = Vec::new();
    for (number, redis) in redis.iter().enumerate() {
        let name = format!("node-{number}");
        let mut settings = vec![("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_CLUSTER__NODE_ID", &name)];
        settings.extend(redis.as_ref().map(|url| ("SOTTO_CLUSTER__REDIS_URL", url.as_str())));
        settings.extend(more);
        nodes.push(TestNode::on(Kind::Postgres, Arc::clone(&folder), store_url.clone(), &settings, 0).await);
    }
    nodes
}

/// So many nodes on one Redis.
async fn on(redis: &RedisServer, count: usize) -> Vec<TestNode> {
    nodes(&vec![Some(redis.url()); count], &[]).await
}

async fn get(node: &TestNode, path: &str) -> (u16, String) {
    // Installed already is as good as installed now.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::get(format!("{}{path}", node.url)).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn health(node: &TestNode) -> Value {
    serde_json::from_str(&get(node, "/health").await.1).unwrap()
}

fn names(health: &Value, path: &str) -> bool {
    health["degraded"].as_array().is_some_and(|paths| paths.contains(&json!(path)))
}

/// Waits until `/readyz?verbose` of a node has all of these lines' beginnings; how long that took.
async fn until_lines(node: &TestNode, lines: &[&str]) -> Duration {
    let begun = Instant::now();
    loop {
        let text = get(node, "/readyz?verbose").await.1;
        if lines.iter().all(|wanted| text.lines().any(|line| line.starts_with(wanted) && !line.contains("none has"))) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < SEEN, "{lines:?} are not all in\n{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for a state of a node's health; how long that took.
async fn until_health(node: &TestNode, what: &str, is_so: impl Fn(&Value) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let now = health(node).await;
        if is_so(&now) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < SEEN, "waiting for {what}: {now}\n{}", get(node, "/readyz?verbose").await.1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn status(store_url: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command.args(["cluster", "status"]).args(more).env_clear().env("SOTTO_STORE__URL", store_url).output().unwrap()
}

fn listed(store_url: &str) -> Vec<Value> {
    serde_json::from_slice(&status(store_url, &["--json"]).stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_shows_who_lives_and_forgets_the_dead() {
    let redis = RedisServer::start().await;
    let mut nodes = on(&redis, 2).await;
    let device = register(&nodes[0], "alice").await;
    let (socket, _) = device.socket().await;
    for node in &nodes {
        until_lines(node, &["[+] canary wake_peer", "[+] canary bus_peer", "[+] canary registry", "[+] redis"]).await;
    }
    // The row is written every two seconds.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let url = nodes[0].store_url.clone();
    let rows = listed(&url);
    assert_eq!(rows.len(), 2);
    for (row, name) in rows.iter().zip(["node-0", "node-1"]) {
        assert_eq!((&row["node_id"], &row["state"], &row["redis"]), (&json!(name), &json!("ok"), &json!("ok")));
        assert_eq!(row["version"], env!("CARGO_PKG_VERSION"));
        assert!(row["seen_ms_ago"].as_i64().unwrap() < 5000, "{row}");
        assert!((0..5000).contains(&row["sweep_lag_ms"].as_i64().unwrap()), "{row}");
    }
    assert_eq!((&rows[0]["sockets"], &rows[0]["sessions"]), (&json!(1), &json!(1)));
    assert_eq!(rows[1]["sockets"], 0);
    let table = status(&url, &[]);
    assert_eq!(table.status.code(), Some(0), "{table:?}");
    let text = String::from_utf8(table.stdout).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(text.starts_with("NODE") && text.contains("\nnode-0") && text.contains("\nnode-1"), "{text}");
    drop(socket);

    nodes[1].kill();
    let begun = Instant::now();
    while listed(&url).iter().all(|row| row["state"] != "silent") {
        assert!(begun.elapsed() < Duration::from_secs(15));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let silent = status(&url, &[]);
    assert_eq!(silent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&silent.stderr).contains("1 of 2 nodes are not well"), "{silent:?}");
    assert_eq!(health(&nodes[0]).await["status"], "ok", "who is gone is nobody's fault");
    until_lines(&nodes[0], &["[+] other nodes: 0"]).await;

    // A minute later, without waiting for it.
    let own = connect(&url).await;
    let moved = "UPDATE nodes SET seen_at = seen_at - interval '50 seconds' WHERE node_id = 'node-1'";
    assert_eq!(own.execute(moved, &[]).await.unwrap(), 1);
    let begun = Instant::now();
    while listed(&url).len() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "anybody removes it");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(status(&url, &[]).status.code(), Some(0));

    for away in ["postgres://127.0.0.1:1/nothing", "sqlite:/nowhere/at/all.db"] {
        let blind = status(away, &[]);
        assert_eq!((blind.status.code(), blind.stdout.len()), (Some(2), 0), "{blind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_is_well_on_sqlite() {
    let mut node = TestNode::start(Kind::Sqlite).await;
    // It closes its listeners while the server of the library still looks at them.
    node.expect_log("actix_server::accept");
    until_lines(&node, &["[+] canary wake_loop", "[+] other nodes: 0"]).await;
    let rows = listed(&node.store_url);
    assert_eq!((rows.len(), &rows[0]["state"], &rows[0]["redis"]), (1, &json!("ok"), &Value::Null));
    assert_eq!(node.terminate().await, Some(0));
    let gone = status(&node.store_url, &[]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no node has been seen"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_redis_degrades_within_15_seconds_and_heals() {
    let redis = RedisServer::start().await;
    let nodes = on(&redis, 2).await;
    for node in &nodes {
        until_lines(node, &["[+] canary bus_loop", "[+] canary bus_peer", "[+] canary registry"]).await;
    }
    assert_eq!(health(&nodes[0]).await["status"], "ok");
    signal("STOP", &[redis.pid()]);
    let stopped = Instant::now();
    until_health(&nodes[0], "redis down", |now| now["redis"] == "down" && now["status"] == "degraded").await;
    for path in ["bus_loop", "registry"] {
        until_health(&nodes[0], path, |now| names(now, path)).await;
    }
    assert!(stopped.elapsed() < Duration::from_secs(17), "{:?}", stopped.elapsed());
    until_health(&nodes[0], "bus_peer", |now| names(now, "bus_peer")).await;
    let now = health(&nodes[0]).await;
    assert!(!names(&now, "wake_loop") && !names(&now, "wake_peer"), "the database is not Redis: {now}");
    let (code, text) = get(&nodes[0], "/readyz?verbose").await;
    assert_eq!(code, 200, "{text}");
    assert!(text.contains("[~] canary bus_loop") && text.contains("[+] canary wake_loop"), "{text}");
    // Metrics, log and row follow within the two seconds of a report.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let metrics = get(&nodes[0], "/metrics").await.1;
    let told = |line: &str| metrics.lines().any(|told| told.starts_with(line));
    for path in ["bus_loop", "bus_peer", "registry"] {
        assert!(told(&format!("sotto_canary_ok{{path=\"{path}\"}} 0")), "{path}");
    }
    assert!(told("sotto_canary_ok{path=\"wake_loop\"} 1") && told("sotto_canary_ok{path=\"wake_peer\"} 1"));
    assert!(told("sotto_peers 1") && told("sotto_sweep_lag_seconds ") && told("sotto_redis_up 0"));
    assert_eq!(nodes[0].log().matches("canaries do not arrive").count(), 3, "one line for each path");
    let told = listed(&nodes[0].store_url);
    assert!(told.iter().all(|row| row["state"] == "degraded" && row["redis"] == "away"), "{told:?}");
    assert_eq!(status(&nodes[0].store_url, &[]).status.code(), Some(1));

    signal("CONT", &[redis.pid()]);
    for node in &nodes {
        until_health(node, "ok", |now| now["status"] == "ok" && now["redis"] == "ok").await;
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(nodes[0].log().matches("canaries arrive again").count(), 3);
}

/// Test 19 of the rules of delivery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_dies_then_redis_and_the_others_stay_ready() {
    let mut redis = RedisServer::start().await;
    let mut nodes = on(&redis, 3).await;
    for node in &nodes {
        until_lines(node, &["[+] canary bus_peer", "[+] canary wake_peer"]).await;
    }
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let (mut alices, mut bobs) = (socket_at(&alice, &nodes[0]).await, socket_at(&bob, &nodes[1]).await);
    next_of(&mut bobs, "drained").await;
    nodes[2].kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis.kill();
    let begun = Instant::now();
    let mut degraded = 0;
    while begun.elapsed() < Duration::from_secs(22) {
        for node in &nodes[..2] {
            let (code, text) = get(node, "/readyz?verbose").await;
            assert_eq!(code, 200, "after {:?}\n{text}", begun.elapsed());
            let now = health(node).await;
            assert_ne!(now["status"], "down", "{now}");
            degraded += usize::from(now["status"] == "degraded");
        }
        let sent = insist(&mut alices, &shared(conversation, "still")).await;
        let sent_at = Instant::now();
        assert_eq!(next_message(&mut bobs).await.1.message_id, sent.message_id);
        assert!(sent_at.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert!(degraded > 0, "nobody has noticed");
}

/// Two nodes cannot both be wrong about a third (rule D15): they are well, and it says of itself that it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_two_others_miss_is_at_fault_itself() {
    let redis = RedisServer::start().await;
    let wire = Proxy::to(&format!("http://127.0.0.1:{}", redis.port)).await;
    let through = wire.url.replace("http://", "redis://");
    let nodes = nodes(&[Some(redis.url()), Some(redis.url()), Some(through)], &[]).await;
    for node in &nodes {
        until_lines(node, &["[+] canary bus_loop", "[+] canary bus_peer"]).await;
    }
    wire.hold_up(true);
    wire.hold_down(true);
    until_health(&nodes[2], "its own degradation", |now| names(now, "bus_loop")).await;
    let begun = Instant::now();
    let both_miss = |text: String| text.lines().any(|line| line.contains("node-2") && line.contains("miss them there"));
    loop {
        let (first, second) = (get(&nodes[0], "/readyz?verbose").await.1, get(&nodes[1], "/readyz?verbose").await.1);
        if both_miss(first.clone()) && both_miss(second.clone()) {
            break;
        }
        assert!(begun.elapsed() < SEEN * 2, "{first}\n{second}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for node in &nodes[..2] {
        until_health(node, "ok, for it is not its fault", |now| now["status"] == "ok").await;
    }
    assert_eq!(health(&nodes[2]).await["status"], "degraded");
    wire.hold_up(false);
    wire.hold_down(false);
    wire.cut();
    until_health(&nodes[2], "ok", |now| now["status"] == "ok").await;
}

async fn numbered(device: &crate::support::people::Device, node: &TestNode, attempt: Option<i64>) -> Socket {
    let options = SocketOptions::hello(&device.tokens.access_token);
    let options = if let Some(attempt) = attempt { options.attempt(attempt) } else { options };
    let (mut socket, _) = Socket::connect(&node.url, &options).await.expect("welcome");
    next_of(&mut socket, "drained").await;
    socket
}

/// A device comes back at the other node: its old socket closes, with 4509 where the device counts its attempts.
async fn the_older_closes(nodes: &[TestNode], within: Duration) {
    let device = register(&nodes[0], "alice").await;
    for (first, second, expected) in
        [(Some(1), Some(2), close::REPLACED), (None, None, close::DRAINING), (None, Some(9), close::REPLACED)]
    {
        let mut old = numbered(&device, &nodes[0], first).await;
        let mut new = numbered(&device, &nodes[1], second).await;
        let begun = Instant::now();
        assert_eq!(old.closed_within(PATIENCE).await.unwrap(), Some(expected), "{first:?}, then {second:?}");
        assert!(begun.elapsed() < within, "{:?}", begun.elapsed());
        let id = new.request("ping", &json!({ "t": 1 })).await.unwrap();
        while new.next_frame_within(PATIENCE).await.expect("the newest lives").re != Some(id) {}
        drop(new);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_is_replaced_at_another_node_with_redis_and_when_it_dies() {
    let mut redis = RedisServer::start().await;
    let nodes = on(&redis, 2).await;
    until_lines(&nodes[0], &["[+] canary bus_peer"]).await;
    the_older_closes(&nodes, Duration::from_secs(4)).await;
    redis.kill();
    the_older_closes(&nodes, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_is_replaced_at_another_node_without_redis() {
    the_older_closes(&nodes(&[None, None], &[]).await, Duration::from_secs(8)).await;
}

/// Whoever is signed out at one node is gone from the other.
async fn the_signed_out_closes(nodes: &[TestNode], within: Duration) {
    let device = register(&nodes[0], "alice").await;
    let mut socket = numbered(&device, &nodes[1], Some(1)).await;
    let begun = Instant::now();
    device.rest.logout().await.unwrap();
    assert_eq!(socket.closed_within(PATIENCE).await.unwrap(), Some(close::DEVICE_REVOKED));
    assert!(begun.elapsed() < within, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_signed_out_at_one_node_is_closed_at_the_other() {
    the_signed_out_closes(&nodes(&[None, None], &[]).await, Duration::from_secs(5)).await;
    let mut redis = RedisServer::start().await;
    let nodes = on(&redis, 2).await;
    until_lines(&nodes[0], &["[+] canary bus_peer"]).await;
    the_signed_out_closes(&nodes, Duration::from_secs(5)).await;
    redis.kill();
    the_signed_out_closes(&nodes, Duration::from_secs(5)).await;
}

/// Whether the process has ended; its exit code waits to be taken.
fn has_ended(node: &TestNode) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('Z')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaving_node_is_red_first_serves_a_while_and_takes_everything_along() {
    let redis = RedisServer::start().await;
    let urls = [Some(redis.url()), Some(redis.url())];
    let mut nodes = nodes(&urls, &[("SOTTO_DRAIN__NOTICE", "7")]).await;
    // It closes its listeners while the server of the library still looks at them.
    nodes[0].expect_log("actix_server::accept");
    until_lines(&nodes[1], &["[+] other nodes: 1"]).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let mut socket = numbered(&alice, &nodes[0], Some(1)).await;
    let mut bobs = numbered(&bob, &nodes[1], Some(1)).await;
    let registered = format!("sotto:*:at:{}", alice.user_id);
    assert_eq!(redis.keys(&registered).await.len(), 1);

    signal("TERM", &[nodes[0].pid()]);
    let begun = Instant::now();
    while get(&nodes[0], "/readyz").await.0 != 503 {
        assert!(begun.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while listed(&nodes[1].store_url)[0]["state"] != "draining" {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = status(&nodes[1].store_url, &[]);
    assert_eq!(told.status.code(), Some(0), "who drains is well: {}", String::from_utf8_lossy(&told.stdout));
    // Load balancers have not noticed yet: everything works, a new socket too.
    let sent = insist(&mut socket, &shared(conversation, "before I go")).await;
    assert_eq!(next_message(&mut bobs).await.1.message_id, sent.message_id);
    let late = numbered(&bob, &nodes[0], Some(2)).await;
    assert_eq!(bobs.closed_within(PATIENCE).await.unwrap(), Some(close::REPLACED));
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());

    let away = next_of(&mut socket, "goaway").await;
    assert!(begun.elapsed() >= Duration::from_millis(6900), "{:?}", begun.elapsed());
    assert!(away.data::<Value>().unwrap()["reconnect_after_ms"].as_u64().unwrap() >= 100);
    assert_eq!(socket.closed_within(PATIENCE).await.unwrap(), Some(close::DRAINING));
    drop(late);
    // A second signal would end it at once: it is asked how it ended after it has.
    while !has_ended(&nodes[0]) {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(nodes[0].terminate().await, Some(0));
    assert_eq!(redis.keys(&registered).await, Vec::<String>::new(), "nobody looks for her there");
    let left = listed(&nodes[1].store_url);
    assert_eq!((left.len(), &left[0]["node_id"]), (1, &json!("node-1")));
    assert!(until_lines(&nodes[1], &["[+] other nodes: 0"]).await < Duration::from_secs(5));
}
