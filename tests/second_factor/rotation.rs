//! Keys that rotate while requests go on: no read fails, nothing of before ends, and what was killed goes on.

use super::{Account, early_in_a_step, login, request, with_backup_code, with_totp};
use crate::registration_lock::set_pin;
use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::register;
use ring::rand::SystemRandom;
use serde_json::Value;
use sotto::identity::sealed::{self, Place};
use sotto::identity::secret_key::SecretKeys;
use sotto_client::Rest;
use sotto_client::protocol::auth::{LoginRequest, Purpose};
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::{Binary, UserId};
use sotto_schema::rows::sealed::SealedColumn;
use sotto_schema::{Store, StoreSettings, inspect};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

/// `sotto keys …` on the node's database and key file.
fn keys(node: &TestNode, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command
        .arg("keys")
        .args(arguments)
        .env_clear()
        .env("SOTTO_DATA__DIR", node.folder.path())
        .env("SOTTO_STORE__URL", &node.store_url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn run(node: &TestNode, arguments: &[&str]) -> Output {
    let mut command = keys(node, arguments);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

async fn rotate(node: &TestNode) -> String {
    let output = run(node, &["rotate"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no bar without a terminal: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Each key with its role, and how many secrets and backup codes it has sealed.
async fn status(node: &TestNode) -> Vec<(String, String, u64, u64)> {
    let output = run(node, &["status", "--json"]).await;
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let number = |line: &Value, name: &str| line[name].as_u64().unwrap();
    let each = lines.iter().map(|line| {
        (text(line, "kid"), text(line, "role"), number(line, "totp_secrets"), number(line, "backup_codes"))
    });
    each.collect()
}

/// The name of the key that has signed a token.
fn kid(token: &str) -> String {
    let header = Binary::decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

/// Stores second factors by the thousand, sealed with the node's keys, for users that nobody signs in.
async fn many(node: &TestNode, store: &Store, count: usize) {
    let keys = SecretKeys::open(&node.folder.path().join("secret.key")).unwrap();
    let random = SystemRandom::new();
    let now = if node.kind == Kind::Sqlite { "0" } else { "now()" };
    let id = |id: Uuid| match node.kind {
        Kind::Sqlite => format!("x'{}'", id.simple()),
        Kind::Postgres => format!("'{id}'::uuid"),
    };
    let bytes = |bytes: &[u8]| match node.kind {
        Kind::Sqlite => format!("x'{}'", hex(bytes)),
        Kind::Postgres => format!("decode('{}', 'hex')", hex(bytes)),
    };
    let mut text = String::from("BEGIN;");
    for number in 0..count {
        let (user_id, row) = (UserId::random(), Uuid::new_v4());
        let place = Place { column: SealedColumn::TotpSecret, user_id, row };
        let cell = sealed::seal(&keys, &random, &place, &[7; 20]).unwrap();
        let user = id(user_id.0);
        text.push_str(&format!(
            "INSERT INTO users (id, phone, created_at, updated_at) VALUES ({user}, '+999{number:09}', {now}, {now});\
             INSERT INTO second_factors (id, user_id, secret, key_id, enabled_at, expires_at, created_at, updated_at) \
             VALUES ({}, {user}, {}, '{}', {now}, {now}, {now}, {now});",
            id(row),
            bytes(&cell.sealed),
            cell.key_id,
        ));
    }
    text.push_str("COMMIT;");
    inspect::execute(store, &text).await.unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

on_both! {
    async fn no_read_fails_while_keys_rotate(database) {
        let node = TestNode::start(database).await;
        let other = node.sibling().await;
        let mut accounts = Vec::new();
        for name in ["alice", "bob", "carol"] {
            accounts.push(Account::with_second_factor(&node, name).await);
        }
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        many(&node, &store, 300).await;
        let locked = register(&node, "dora").await;
        set_pin(&node, &locked, "2580").await;
        let before = kid(&accounts[0].device.tokens.access_token);
        let (nodes, accounts) = (Arc::new([node, other]), Arc::new(accounts));
        let goes_on = Arc::new(AtomicBool::new(true));
        // Each asks for what must be opened: secrets by a code that is wrong, backup codes by one that nobody has.
        let askers = (0..accounts.len()).map(|index| {
            let (nodes, accounts, goes_on) = (Arc::clone(&nodes), Arc::clone(&accounts), Arc::clone(&goes_on));
            tokio::spawn(async move {
                let account = &accounts[index];
                let mut asked = 0;
                while goes_on.load(Ordering::Relaxed) {
                    for node in nodes.iter() {
                        let request = account.request(node).await;
                        for request in [
                            with_totp(&request, &account.app.wrong()),
                            with_backup_code(&request, "aaaaa-aaaaa"),
                        ] {
                            let problem = login(node, &request).await.err().unwrap();
                            assert_eq!(problem.code, ErrorCode::CodeRejected, "{problem:?}");
                            asked += 1;
                        }
                        // A token of before, and what a node has made since.
                        account.device.at(node).me().await.unwrap();
                        let cursor = account.device.at(node).sync(None).await.unwrap().cursor;
                        for reader in nodes.iter() {
                            account.device.at(reader).sync_ack(&cursor).await.unwrap();
                        }
                    }
                }
                asked
            })
        });
        let askers: Vec<_> = askers.collect();
        // Accounts that come while it goes on: their cells are sealed with whatever key a node has then.
        let newcomers = {
            let (nodes, goes_on) = (Arc::clone(&nodes), Arc::clone(&goes_on));
            tokio::spawn(async move {
                let mut count = 0_u64;
                while goes_on.load(Ordering::Relaxed) && count < 12 {
                    for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
                        let newcomer = Account::with_second_factor(node, "newcomer").await;
                        let request = newcomer.request(other).await;
                        login(other, &with_backup_code(&request, &newcomer.backup_codes[0])).await.unwrap();
                        // A token that one node has signed is good at the other.
                        newcomer.device.at(other).me().await.unwrap();
                        count += 1;
                    }
                }
                count
            })
        };
        let mut made = Vec::new();
        for _ in 0..2 {
            let told = rotate(&nodes[0]).await;
            assert!(told.starts_with("made key "), "{told}");
            made.push(told.split_whitespace().nth(2).unwrap().trim_end_matches(';').to_owned());
        }
        goes_on.store(false, Ordering::Relaxed);
        for asker in askers {
            assert!(asker.await.unwrap() > 0);
        }
        let newcomers = newcomers.await.unwrap();
        let lines = status(&nodes[0]).await;
        let kids: Vec<_> = lines.iter().map(|(kid, role, ..)| (kid.as_str(), role.as_str())).collect();
        assert_eq!(kids, [(made[1].as_str(), "active"), (made[0].as_str(), "opens"), (before.as_str(), "opens")]);
        let accounts_now = u64::try_from(accounts.len()).unwrap() + newcomers;
        let output = run(&nodes[0], &["status", "--json"]).await;
        let pins: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(pins.iter().map(|line| line["pins"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 0, 0]);
        let with_pin = request(&nodes[1], &locked.phone, Purpose::Login).await;
        login(&nodes[1], &LoginRequest { pin: Some("2580".to_owned()), ..with_pin }).await.unwrap();
        assert_eq!((lines[0].2, lines[0].3), (300 + accounts_now, 10 * accounts_now), "everything under the newest");
        // What was given out before is as good as ever.
        early_in_a_step().await;
        for account in accounts.iter() {
            let request = account.request(&nodes[1]).await;
            let tokens = login(&nodes[1], &with_totp(&request, &account.app.code(0))).await.unwrap();
            assert_eq!(kid(&tokens.access_token), made[1]);
            let request = account.request(&nodes[0]).await;
            login(&nodes[0], &with_backup_code(&request, &account.backup_codes[0])).await.unwrap();
            account.device.rest.me().await.unwrap();
            let renewed = Rest::new(&nodes[1].url).unwrap().refresh(&account.device.tokens.refresh_token).await.unwrap();
            assert_eq!(kid(&renewed.access_token), made[1]);
        }
    }

    async fn a_rotation_that_was_killed_goes_on(database) {
        let node = TestNode::start(database).await;
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        many(&node, &store, 3_000).await;
        let mut killed = keys(&node, &["rotate", "--batch", "1"]).spawn().unwrap();
        let begun = Instant::now();
        let half = loop {
            let lines = status(&node).await;
            if lines.len() == 2 && lines[0].2 > 0 {
                break lines;
            }
            assert!(begun.elapsed() < PATIENCE, "{lines:?}");
        };
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(half[1].2 > 0, "it was not done yet: {half:?}");
        let told = rotate(&node).await;
        assert!(told.starts_with(&format!("went on with key {};", half[0].0)), "{told}");
        let done = status(&node).await;
        assert_eq!(done.len(), 2, "no other key was made: {done:?}");
        assert_eq!((&done[0].0, done[0].2, done[1].2), (&half[0].0, 3_000, 0));
        // Done, it begins anew; and with nothing to seal it only says so.
        assert!(rotate(&node).await.starts_with("made key "));
        let nothing = run(&node, &["rotate", "--no-new-key"]).await;
        let nothing = String::from_utf8(nothing.stdout).unwrap();
        assert!(nothing.contains("sealed 0 cells"), "{nothing}");
        assert_eq!(status(&node).await.len(), 3);
    }

    async fn a_key_may_be_given_to_all_before_it_seals(database) {
        let node = TestNode::start(database).await;
        let output = run(&node, &["rotate", "--in", "1h"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = status(&node).await;
        let roles: Vec<_> = lines.iter().map(|line| line.1.as_str()).collect();
        assert_eq!(roles, ["waiting", "active"]);
        let early = run(&node, &["rotate", "--no-new-key"]).await;
        assert_eq!(early.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&early.stderr).contains("seals from"), "{}", String::from_utf8_lossy(&early.stderr));
        let tokens = register(&node, "alice").await.tokens;
        assert_eq!(kid(&tokens.access_token), lines[1].0, "nothing is made with it yet");
    }

    async fn what_does_not_open_is_named_and_the_rest_is_done(database) {
        let node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "alice").await;
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        many(&node, &store, 3).await;
        inspect::execute(&store, "UPDATE second_factors SET key_id = 'gone' WHERE tries = 0 AND last_step > 0").await.unwrap();
        let lines = run(&node, &["status"]).await;
        assert_eq!(lines.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&lines.stdout).contains("missing"));
        let output = run(&node, &["rotate"]).await;
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("stay as they were: 1") && told.contains("not in the key file"), "{told}");
        let lines = status(&node).await;
        assert_eq!(lines[0].3, 10, "{lines:?}");
        let request = account.request(&node).await;
        login(&node, &with_backup_code(&request, &account.backup_codes[0])).await.unwrap();
    }
}
