//! The command against real nodes: every scenario, the files it writes, and the codes it ends with.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::target::{Behaviour, LoadTarget};
use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::verify::seeded;

/// Runs `sotto load` with these arguments.
async fn load(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command.arg("load").args(arguments);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

/// Runs a scenario against a node with its users; it must end with 0. What it wrote.
pub async fn measured(node: &TestNode, scenario: &[&str]) -> Value {
    let folder = node.folder.path();
    let (users, out) = (folder.join("users.jsonl"), folder.join("results"));
    let mut arguments = scenario.to_vec();
    arguments.extend(["--url", &node.url, "--users", users.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let output = load(&arguments).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{scenario:?}: {stdout}{stderr}");
    read(&out.join("summary.json"))
}

fn read(file: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn figure(summary: &Value, name: &str) -> f64 {
    let figures = summary["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {summary}"))["value"].as_f64().unwrap()
}

on_both! {
    async fn pairs_and_requests_run_against_a_node(database) {
        let node = TestNode::start(database).await;
        seeded(&node, &["--count", "40", "--pairs"]).await;
        let brief = ["--seconds", "2", "--warmup", "1"];
        let with = |scenario: &[&'static str]| [scenario, &brief].concat();
        for scenario in [
            &["pairs", "--pairs", "10"][..],
            &["pairs", "--pairs", "10", "--both", "--content", "shared", "--threads", "2", "--sources", "3"],
            &["rate", "--pairs", "10", "--rate", "50", "--idle", "20"],
            &["rate", "--pairs", "10", "--rate", "50", "--via", "rest"],
        ] {
            let summary = measured(&node, &with(scenario)).await;
            assert!(figure(&summary, "delivered_per_second") > 10.0, "{scenario:?}");
            assert!(figure(&summary, "send_to_delivered_p99_ms") > 0.0);
            let answers = if scenario.contains(&"rest") { "rest_send_to_ok_p99_ms" } else { "send_to_ok_p99_ms" };
            assert!(figure(&summary, answers) > 0.0);
            assert_ne!(summary["verdict"], "broken");
            assert_eq!(summary["target"]["local"], true, "the listener was found");
            assert!(summary["series"].as_array().unwrap().len() >= 3);
            let log = std::fs::read_to_string(node.folder.path().join("results/send_to_delivered.hlog")).unwrap();
            assert!(log.contains("HISTF"), "{log}");
        }
        let summary = measured(&node, &with(&["connect", "--connections", "40", "--at-once", "4"])).await;
        assert!(figure(&summary, "connects_per_second") > 1.0);
        let summary = measured(&node, &["idle", "--connections", "40", "--settle", "1", "--watch", "1"]).await;
        assert!((figure(&summary, "connections") - 40.0).abs() < 0.1);
        assert!(figure(&summary, "kib_per_connection") >= 0.0);
        for via in ["socket", "rest"] {
            let offline = ["offline", "--devices", "20", "--messages", "30", "--at-once", "20", "--via", via];
            let summary = measured(&node, &offline).await;
            let (rate, seconds) = (figure(&summary, "drained_per_second"), figure(&summary, "drain_seconds"));
            assert!((rate * seconds - 600.0).abs() < 1.0, "{via}: {rate} in {seconds}");
        }
        let summary = measured(&node, &["storm", "--connections", "40", "--settle", "1"]).await;
        assert!((figure(&summary, "connections") - 40.0).abs() < 0.1);
    }

    async fn groups_run_against_a_node(database) {
        let node = TestNode::start(database).await;
        seeded(&node, &["--count", "24", "--group", "4"]).await;
        let brief = ["--seconds", "2", "--warmup", "0"];
        for content in ["shared", "envelopes"] {
            let fanout = ["fanout", "--members", "4", "--groups", "6", "--senders", "2", "--content", content];
            let summary = measured(&node, &[&fanout[..], &brief].concat()).await;
            let (delivered, acked) = (figure(&summary, "delivered_per_second"), figure(&summary, "acked_per_second"));
            assert!(delivered > 2.5 * acked, "three get each: {delivered} of {acked}");
        }
        let mix = ["mix", "--rate", "60", "--members", "4", "--conversations", "6", "--rest", "30", "--reads", "80"];
        let summary = measured(&node, &[&mix[..], &brief].concat()).await;
        assert!(figure(&summary, "rest_send_to_ok_p99_ms") > 0.0);
        assert!(summary["figures"].as_array().unwrap().iter().any(|one| one["name"] == "server_growth_mib_per_hour"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_loses_its_sockets_to_another() {
    let mut node = TestNode::start(Kind::Postgres).await;
    let sibling = node.sibling().await;
    seeded(&node, &["--count", "20", "--pairs"]).await;
    let pid = node.pid().to_string();
    let storm = ["storm", "--connections", "20", "--settle", "1", "--kill", &pid];
    let folder = node.folder.path().to_owned();
    let (users, json) = (folder.join("users.jsonl"), folder.join("storm.json"));
    let mut arguments = storm.to_vec();
    arguments.extend(["--url", &node.url, "--url", &sibling.url, "--users", users.to_str().unwrap()]);
    arguments.extend(["--json", json.to_str().unwrap()]);
    let output = load(&arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    node.kill();
    let summary = read(&json);
    assert!((figure(&summary, "connections") - 20.0).abs() < 0.1);
    assert!(figure(&summary, "storm_seconds") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_code_says_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let users = LoadTarget::users(folder.path(), 2);
    let users = users.to_str().unwrap();
    let good = LoadTarget::start(Behaviour::default()).await;
    let bad = LoadTarget::start(Behaviour { drops: Some(5), ..Behaviour::default() }).await;
    let json = folder.path().join("before.json");
    let json = json.to_str().unwrap();
    let run = ["rate", "--rate", "50", "--pairs", "2", "--seconds", "1", "--warmup", "0", "--users", users];
    let cases: [(&str, &[&str], i32, &str); 6] = [
        (&good.url, &["--json", json], 0, "ledger: 0 lost"),
        (&bad.url, &[], 1, "the ledger does not balance"),
        ("http://127.0.0.1:9", &[], 2, "no connection"),
        ("http://192.0.2.1:80", &[], 2, "--remote"),
        ("https://127.0.0.1:9", &[], 2, "http://HOST:PORT"),
        (&good.url, &["--pairs-of-shoes"], 2, "--pairs-of-shoes"),
    ];
    for (url, more, code, words) in cases {
        let output = load(&[&run[..], &["--url", url], more].concat()).await;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(code), "{url} {more:?}: {text}");
        assert!(text.contains(words), "{url} {more:?}: {text}");
        assert_eq!(text.contains("send to delivered, p99"), code == 0, "no figures without a ledger: {text}");
    }
    let few = load(&["pairs", "--pairs", "9", "--url", &good.url, "--users", users]).await;
    let text = String::from_utf8_lossy(&few.stderr).into_owned();
    assert_eq!(few.status.code(), Some(2));
    assert!(text.contains("sotto user seed --count 18 --pairs"), "{text}");
    let large = ["fanout", "--members", "1000", "--groups", "1", "--content", "envelopes", "--url", &good.url];
    let large = load(&[&large[..], &["--users", users]].concat()).await;
    assert_eq!(large.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&large.stderr).contains("--content shared"), "no run that can only fail");
    // Against itself nothing is worse; against a server that is five times as slow something is.
    assert_eq!(load(&["compare", json, json]).await.status.code(), Some(0));
    let mut worse = read(Path::new(json));
    for figure in worse["figures"].as_array_mut().unwrap() {
        let factor = if figure["better"] == "higher" { 0.2 } else { 5.0 };
        figure["value"] = (figure["value"].as_f64().unwrap() * factor).into();
        let samples = figure["samples"].as_array().unwrap();
        figure["samples"] = samples.iter().map(|sample| sample.as_f64().unwrap() * factor).collect();
    }
    let after = folder.path().join("after.json");
    std::fs::write(&after, worse.to_string()).unwrap();
    let compared = load(&["compare", json, after.to_str().unwrap()]).await;
    assert_eq!(compared.status.code(), Some(1), "{}", String::from_utf8_lossy(&compared.stdout));
    let file = folder.path().join("plan.toml");
    std::fs::write(&file, "[target]\nurl = []\n[pairs]\nwindw = 8\n").unwrap();
    let output = load(&["run", file.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("windw"));
}
