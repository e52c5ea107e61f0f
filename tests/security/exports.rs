//! Exports of an account with much history: one at a time, in little memory, and never a part that looks whole.

use crate::delivery_append::store_of;
use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, proof, register};
use crate::support::wire::PATIENCE;
use sotto_client::protocol::ErrorCode;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_schema::{Store, inspect};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// More than what lies between a node and a reader that does not read.
const LOGINS: usize = 60_000;

/// Fills the history of sign-ins of an account.
async fn with_history(store: &Store, device: &Device) {
    let text = match store.kind() {
        "postgres" => format!(
            "INSERT INTO logins (id, user_id, method, outcome, agent, created_at, updated_at) \
             SELECT gen_random_uuid(), '{}', 'code', 'wrong_code', repeat('x', 200), now() - n * interval '1 ms', now() \
             FROM generate_series(1, {LOGINS}) AS n",
            device.user_id
        ),
        _ => format!(
            "INSERT INTO logins (id, user_id, method, outcome, agent, created_at, updated_at) \
             WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {LOGINS}) \
             SELECT randomblob(16), unhex('{}'), 'code', 'wrong_code', printf('%.200c', 'x'), \
                 unixepoch() * 1000000 - n * 1000, unixepoch() * 1000000 FROM count",
            device.user_id.0.simple()
        ),
    };
    inspect::execute(store, &text).await.unwrap();
}

/// Asks for the export and reads the head of the answer, but nothing more.
async fn slow_reader(device: &Device, proof: &Reauthentication) -> TcpStream {
    let body = serde_json::to_string(proof).unwrap();
    let address = device.url.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!(
        "POST /v1/auth/export HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        device.tokens.access_token,
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("transfer-encoding: chunked"), "{head}");
    stream
}

/// Memory of the node in bytes.
fn resident(node: &TestNode) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

on_both! {
    async fn a_large_export_is_whole_and_read_as_it_goes(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        with_history(&store_of(&node).await, &alice).await;
        let by_code = proof(&node, &alice, Purpose::Export).await;
        let export = alice.rest.export(&by_code).await.unwrap();
        assert!(export.logins.len() >= LOGINS, "{}", export.logins.len());
        assert!(export.logins.windows(2).all(|pair| pair[0].at >= pair[1].at));
        assert_eq!((export.user.user_id, export.devices.len(), export.trail.len()), (alice.user_id, 1, 1));
    }

    async fn an_account_has_one_export_at_a_time_which_takes_little_memory(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        with_history(&store_of(&node).await, &alice).await;
        let before = resident(&node);
        let (first, by_code) =
            (proof(&node, &alice, Purpose::Export).await, proof(&node, &alice, Purpose::Export).await);
        let bobs = proof(&node, &bob, Purpose::Export).await;
        let slow = slow_reader(&alice, &first).await;
        let refused = alice.rest.export(&by_code).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::RateLimited));
        assert_eq!(refused.problem().unwrap().more["limit"]["name"], "export_at_once");
        bob.rest.export(&bobs).await.unwrap();
        let grown = resident(&node).saturating_sub(before);
        assert!(grown < 12 * 1024 * 1024, "{grown} bytes more for an export of some 17 MB");
        // Whoever goes away makes room.
        drop(slow);
        let begun = Instant::now();
        while let Err(error) = alice.rest.export(&by_code).await {
            assert_eq!(error.code(), Some(ErrorCode::RateLimited));
            assert!(begun.elapsed() < PATIENCE, "the place is not given back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_fails_in_the_middle_breaks_off() {
    let mut node = TestNode::start(Kind::Sqlite).await;
    node.expect_log("the database failed");
    let alice = register(&node, "alice").await;
    let store = store_of(&node).await;
    with_history(&store, &alice).await;
    let by_code = proof(&node, &alice, Purpose::Export).await;
    let mut slow = slow_reader(&alice, &by_code).await;
    let mut rest = vec![0; 1000];
    tokio::time::timeout(PATIENCE, slow.read_exact(&mut rest)).await.expect("the body has begun").unwrap();
    inspect::execute(&store, "ALTER TABLE logins RENAME TO gone").await.unwrap();
    // A reset is an end too, and may take with it what was not read.
    let end = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await.expect("the connection ends");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks whole: {} bytes, {end:?}", rest.len());
}
