//! Two thousand connections that do nothing: what each of them costs.

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::people::shared;
use crate::support::wire::{PATIENCE, send};
use futures::StreamExt as _;
use sotto_client::protocol::ConversationId;
use sotto_client::{Socket, SocketOptions};
use std::process::Command;
use std::time::Duration;

const SOCKETS: usize = 2_000;
/// Kept free for everything else that is open.
const SPARE: usize = 200;
/// A bound against leaks and careless buffers, not a measurement: those are made with an optimized program.
const MOST_PER_SOCKET: u64 = 40 * 1024;

/// How many files a process may have open.
fn limit(process: u32) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).expect("a live process");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
}

/// The same, raised where it is too low and may be.
fn raised(process: u32) -> usize {
    let wanted = SOCKETS + SPARE;
    if limit(process) < wanted {
        let _ = Command::new("prlimit").args([format!("--pid={process}"), format!("--nofile={wanted}:")]).output();
    }
    limit(process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_costs_little() {
    let count = SOCKETS.to_string();
    let settings = [("SOTTO_LIMITS__ENABLED", "false")];
    let node = TestNode::with(Kind::Sqlite, &settings).await;
    let out = node.folder.path().join("users.jsonl");
    let mut seed = Command::new(env!("CARGO_BIN_EXE_sotto"));
    seed.args(["user", "seed", "--count", &count, "--pairs", "--out"]).arg(&out).env_clear();
    seed.env("SOTTO_DATA__DIR", node.folder.path()).env("SOTTO_STORE__URL", &node.store_url);
    let seeded = tokio::task::spawn_blocking(move || seed.output()).await.unwrap().unwrap();
    assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));
    let lines = std::fs::read_to_string(&out).unwrap();
    let users: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let allowed = raised(node.pid()).min(raised(std::process::id()));
    let most = SOCKETS.min(allowed.saturating_sub(SPARE));
    assert!(most >= 500, "at most {allowed} files may be open: too few to say anything");
    let connect = async |users: &[serde_json::Value]| -> Vec<Socket> {
        let sockets = users.iter().map(|user| {
            let options = SocketOptions::header(user["access_token"].as_str().unwrap());
            let url = node.url.clone();
            async move {
                let (mut socket, _) = Socket::connect(&url, &options).await.expect("welcome");
                while socket.next_frame_within(PATIENCE).await.expect("the backlog").t != "drained" {}
                socket
            }
        });
        futures::stream::iter(sockets).buffered(32).collect().await
    };
    // What the first connections allocate once for all is not theirs.
    let warm = most / 10;
    let mut sockets = connect(&users[..warm]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = node.resident();
    sockets.extend(connect(&users[warm..most]).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = node.resident();
    let each = after.saturating_sub(before) / (most - warm) as u64;
    println!(
        "{} idle connections: {each} bytes each; resident {} KiB, before {} KiB",
        sockets.len(),
        after / 1024,
        before / 1024
    );
    assert!(each < MOST_PER_SOCKET, "an idle connection costs {each} bytes");

    // They are connections indeed: the last one is spoken on.
    let conversation: ConversationId = serde_json::from_value(users[most - 1]["conversation_id"].clone()).unwrap();
    let last = sockets.last_mut().expect("a socket");
    assert_eq!(send(last, &shared(conversation, "still there")).await.seq, 1);
}
