//! `sotto verify` against real nodes: it finds everything in order, says so in both forms, and ends with the right code.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use sotto_harness::Promise;

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;

/// Users made by `sotto user seed` on the node's database.
pub async fn seeded(node: &TestNode, arguments: &[&str]) -> PathBuf {
    let out = node.folder.path().join("users.jsonl");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command
        .args(["user", "seed"])
        .args(arguments)
        .arg("--out")
        .arg(&out)
        .env_clear()
        .env("SOTTO_DATA__DIR", node.folder.path())
        .env("SOTTO_STORE__URL", &node.store_url);
    let output = run(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

/// Runs the command, which must end with this code; what it wrote as JSON and on the terminal.
async fn verify(nodes: &[&TestNode], arguments: &[&str], code: i32) -> (Value, String) {
    let folder = nodes[0].folder.path();
    let json = folder.join("verdict.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command.arg("verify").arg("--users").arg(folder.join("users.jsonl")).arg("--json").arg(&json).args(arguments);
    for node in nodes {
        command.args(["--url", &node.url]);
    }
    let output = run(command).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    let text = std::fs::read_to_string(json).unwrap_or_else(|_| "null".to_owned());
    (serde_json::from_str(&text).expect("JSON"), stdout.into_owned())
}

/// All ten are zero, and each had something to look at.
fn assert_kept(verdict: &Value, table: &str) {
    assert_eq!(verdict["result"], "kept");
    for promise in Promise::ALL {
        assert_eq!(verdict["findings"][promise.key()]["count"], 0, "{}", promise.key());
        let line = table.lines().find(|line| line.starts_with(promise.name())).expect("a line for each");
        assert_eq!(line[promise.name().len()..].split_whitespace().next(), Some("0"), "{line}");
    }
    let figure = |name: &str| verdict["figures"][name].as_f64().unwrap_or_else(|| panic!("{name}: {verdict}"));
    for name in ["sent", "acknowledged", "received", "confirmed", "duplicates", "keys_given", "revoked", "histories"] {
        assert!(figure(name) > 0.0, "{name}: {table}");
    }
    assert!(figure("sent") >= figure("acknowledged") && figure("ok_p99_ms") >= figure("ok_p50_ms"));
    assert_eq!(figure("sent"), figure("acknowledged") + figure("withdrawn"));
    assert_eq!(verdict["figures"]["unwitnessed"], 0, "a sign-out was seen to its end at every node: {table}");
}

on_both! {
    async fn a_sound_node_keeps_every_promise(database) {
        let node = TestNode::start(database).await;
        seeded(&node, &["--count", "16", "--pairs"]).await;
        let (verdict, table) = verify(&[&node], &["--duration", "4s", "--rate", "150", "--seed", "11"], 0).await;
        assert_kept(&verdict, &table);
        assert_eq!((&verdict["seed"], &verdict["figures"]["devices"]), (&11.into(), &16.into()));
        // Once more on the same logs: without the device that was signed out, which nobody misses.
        let again = ["--duration", "2s", "--rate", "150", "--sign-outs", "0"];
        let (verdict, _) = verify(&[&node], &again, 0).await;
        assert_eq!((&verdict["result"], &verdict["figures"]["devices"]), (&"kept".into(), &15.into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_on_one_database_keep_every_promise() {
    let node = TestNode::start(Kind::Postgres).await;
    let sibling = node.sibling().await;
    seeded(&node, &["--count", "16", "--group", "4"]).await;
    let (verdict, table) = verify(&[&node, &sibling], &["--duration", "5s", "--rate", "100"], 0).await;
    assert_kept(&verdict, &table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_waited_for_and_counted() {
    let node = TestNode::with(Kind::Sqlite, &[]).await;
    seeded(&node, &["--count", "4", "--pairs"]).await;
    let (verdict, table) =
        verify(&[&node], &["--duration", "4s", "--rate", "60", "--sign-outs", "0", "--patience", "3m"], 0).await;
    assert_eq!(verdict["result"], "kept", "{table}");
    assert!(verdict["view"]["refused"]["rate_limited"].as_u64() > Some(0), "{table}");
    assert!(verdict["view"]["waits"].as_u64() > Some(0), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_or_cannot_look_ends_with_two() {
    let mut node = TestNode::start(Kind::Sqlite).await;
    let users = seeded(&node, &["--count", "4", "--pairs"]).await;
    // One of two addresses is nobody's: the run works, and its logs cannot be read there.
    let nowhere = ["--url", "http://127.0.0.1:9", "--duration", "2s", "--sign-outs", "0", "--patience", "4s"];
    let (verdict, table) = verify(&[&node], &nowhere, 2).await;
    assert_eq!(verdict["result"], "incomplete");
    assert!(table.contains("not looked at: the log of "), "{table}");
    // Nobody answers at all.
    node.kill();
    verify(&[&node], &["--duration", "1s"], 2).await;
    // No file, and one that is none.
    std::fs::write(&users, "{\"user_id\":1}\n").unwrap();
    verify(&[&node], &["--duration", "1s"], 2).await;
    std::fs::remove_file(&users).unwrap();
    verify(&[&node], &["--duration", "1s"], 2).await;
}
