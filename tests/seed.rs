//! `sotto user seed`: what it makes is as good as what signing in makes, as far as load tools go.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use sotto_client::protocol::message::{Envelope, OutgoingMessage};
use sotto_client::protocol::{Binary, ConversationId, DeviceId, UserId};
use sotto_client::{Rest, Socket, SocketOptions};

use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::shared;
use crate::support::wire;

/// A line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user_id: UserId,
    device_id: DeviceId,
    access_token: String,
    conversation_id: ConversationId,
    peer_user_id: Option<UserId>,
    peer_device_id: Option<DeviceId>,
}

/// Runs the command on the node's database while the node runs.
async fn seed(node: &TestNode, arguments: &[&str]) -> Vec<Line> {
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
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no bar without a terminal: {}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("made "));
    lines(&out)
}

fn lines(out: &Path) -> Vec<Line> {
    assert_eq!(std::fs::metadata(out).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::read_to_string(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A message from one to the other, for his one device.
fn enveloped(from: &Line, to: &Line) -> OutgoingMessage {
    let ciphertext = Binary(b"to you alone".to_vec());
    let envelope =
        Envelope { user_id: to.user_id, device_id: to.device_id, registration_id: None, kind: 1, ciphertext };
    OutgoingMessage { ciphertext: None, envelopes: Some(vec![envelope]), ..shared(from.conversation_id, "") }
}

on_both! {
    async fn seeded_pairs_sign_in_and_write_to_each_other(database) {
        let node = TestNode::start(database).await;
        let users = seed(&node, &["--count", "2002", "--pairs"]).await;
        assert_eq!(users.len(), 2002);
        let conversations: HashSet<_> = users.iter().map(|line| line.conversation_id).collect();
        assert_eq!(conversations.len(), 1001);
        // The first pair, and the last one, which another transaction stored.
        for (a, b) in [(0, 1), (2000, 2001)] {
            let (alice, bob) = (&users[a], &users[b]);
            assert_eq!(alice.conversation_id, bob.conversation_id);
            assert_eq!((alice.peer_user_id, alice.peer_device_id), (Some(bob.user_id), Some(bob.device_id)));
            assert_eq!((bob.peer_user_id, bob.peer_device_id), (Some(alice.user_id), Some(alice.device_id)));

            let rest = Rest::new(&node.url).unwrap().with_token(&alice.access_token);
            let me = rest.me().await.unwrap();
            assert_eq!((me.user.user_id, me.device.device_id), (alice.user_id, alice.device_id));
            let bundle = rest.claim_keys(bob.user_id, &[]).await.unwrap();
            let keys = &bundle.devices[0];
            assert_eq!((keys.device_id, keys.identity_key.as_ref().len()), (bob.device_id, 32));
            assert_eq!(keys.signing_key.as_ref().unwrap().as_ref().len(), 32);
            assert_eq!(keys.signed_prekey.as_ref().unwrap().signature.as_ref().len(), 64);

            let (mut from, welcome) =
                Socket::connect(&node.url, &SocketOptions::hello(&alice.access_token)).await.unwrap();
            let day = welcome.token_expires_at.since(welcome.server_time).as_secs();
            assert!((24 * 3600 - 60..=24 * 3600).contains(&day), "{day}");
            let (mut to, _) = Socket::connect(&node.url, &SocketOptions::hello(&bob.access_token)).await.unwrap();
            let message = enveloped(alice, bob);
            let sent = wire::send(&mut from, &message).await;
            assert_eq!(sent.seq, 1);
            let (n, got) = wire::next_message(&mut to).await;
            assert_eq!((got.message_id, got.seq), (message.message_id, 1));
            wire::ack(&mut to, n).await;
        }
    }

    async fn seeded_groups_share_a_conversation(database) {
        let node = TestNode::start(database).await;
        let users = seed(&node, &["--count", "5", "--group", "3"]).await;
        let of = |line: &Line| line.conversation_id;
        assert!(users[..3].iter().all(|line| of(line) == of(&users[0]) && line.peer_user_id.is_none()));
        assert!(of(&users[3]) == of(&users[4]) && of(&users[3]) != of(&users[0]), "the last group may be smaller");

        let mut sockets = Vec::new();
        for user in &users[..3] {
            let options = SocketOptions::hello(&user.access_token);
            sockets.push(Socket::connect(&node.url, &options).await.unwrap().0);
        }
        let message = shared(of(&users[0]), "to all");
        wire::send(&mut sockets[1], &message).await;
        for place in [0, 2] {
            let (_, got) = wire::next_message(&mut sockets[place]).await;
            assert_eq!((got.message_id, got.seq), (message.message_id, 1));
        }
    }
}
