//! The end of an account: asked for, cancelled, and done, whatever dies in between.

use crate::delivery_append::group;
use crate::second_factor::code_for;
use crate::support::node::{TestNode, text};
use crate::support::on_both;
use crate::support::people::{Device, enveloped, info, pair, register, second_device, shared};
use crate::support::wire::next_of;
use sotto_client::protocol::account::AccountDeletion;
use sotto_client::protocol::auth::{Purpose, RegisterRequest};
use sotto_client::protocol::conversation::Role;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::{MembershipEvent, Message};
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::trail::{TrailEntry, TrailEvent};
use sotto_client::protocol::{ConversationId, Timestamp, UserId};
use sotto_client::rest::HistoryRange;
use sotto_client::{DeviceKeys, Error, Rest, Socket};
use sotto_schema::{Store, StoreSettings, inspect};
use std::time::{Duration, Instant};

const AT_ONCE: [(&str, &str); 2] = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__DELETION_GRACE_DAYS", "0")];

async fn proof(node: &TestNode, device: &Device) -> Reauthentication {
    let (verification_id, code) = code_for(node, &device.phone, Purpose::AccountDeletion).await;
    Reauthentication::by_code(verification_id, code)
}

fn code<T>(result: Result<T, Error>) -> Option<ErrorCode> {
    result.err().and_then(|error| error.code())
}

/// What the account's other device is told.
async fn told(socket: &mut Socket) -> Option<Timestamp> {
    match next_of(socket, "account_deletion").await.event().unwrap() {
        Some(Event::AccountDeletion(changed)) => changed.deletes_at,
        other => panic!("{other:?}"),
    }
}

async fn history(device: &Device, id: ConversationId) -> Vec<Message> {
    let range = HistoryRange { after_seq: Some(0), ..HistoryRange::default() };
    device.rest.history(id, range).await.unwrap().items
}

/// Whether anything of an account is left, but for what others have got from it.
async fn traces(node: &TestNode, user: UserId) -> Vec<String> {
    let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
    let id = match store.kind() {
        "postgres" => format!("'{}'", text(user)),
        _ => format!("x'{}'", text(user).replace('-', "")),
    };
    let mut found = Vec::new();
    for (table, column) in [
        ("users", "id"),
        ("devices", "user_id"),
        ("sessions", "user_id"),
        ("ended_sessions", "user_id"),
        ("account_events", "user_id"),
        ("memberships", "user_id"),
        ("reads", "user_id"),
        ("marks", "user_id"),
        ("logins", "user_id"),
        ("known_networks", "user_id"),
        ("trail", "user_id"),
        ("trail_heads", "user_id"),
        ("second_factors", "user_id"),
        ("account_deletions", "user_id"),
        ("allowances", "subject"),
    ] {
        let id = if (table, store.kind()) == ("allowances", "postgres") {
            format!("decode('{}', 'hex')", text(user).replace('-', ""))
        } else {
            id.clone()
        };
        let query = format!("SELECT '{table}' AS text FROM {table} WHERE {column} = {id}");
        found.extend(inspect::texts(&store, &query).await.unwrap());
    }
    found
}

/// Waits until the sweep has done it: at a node's start, and every minute.
async fn gone(node: &TestNode, user: UserId) {
    let begun = Instant::now();
    loop {
        let traces = traces(node, user).await;
        if traces.is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "left: {traces:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn members(device: &Device, id: ConversationId) -> Vec<(UserId, Role)> {
    let conversation = device.rest.conversation(id).await.unwrap();
    conversation.members.iter().map(|member| (member.user_id, member.role)).collect()
}

on_both! {
    async fn it_is_asked_for_with_a_proof_told_and_cancelled(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let tablet = second_device(&node, &alice, "tablet").await;
        let (mut socket, _) = tablet.socket().await;
        assert_eq!(alice.rest.deletion().await.unwrap(), AccountDeletion::default());
        assert_eq!(code(alice.rest.cancel_deletion().await), Some(ErrorCode::NotFound));
        // A code for something else, or of somebody else, is none.
        let (verification_id, right) = code_for(&node, &alice.phone, Purpose::SecondFactor).await;
        let other = Reauthentication::by_code(verification_id, right);
        assert_eq!(code(alice.rest.request_deletion(&other).await), Some(ErrorCode::CodeRejected));
        let bobs = proof(&node, &bob).await;
        assert_eq!(code(alice.rest.request_deletion(&bobs).await), Some(ErrorCode::CodeRejected));
        assert_eq!(alice.rest.deletion().await.unwrap(), AccountDeletion::default());

        let deletion = alice.rest.request_deletion(&proof(&node, &alice).await).await.unwrap();
        let (requested_at, deletes_at) = (deletion.requested_at.unwrap(), deletion.deletes_at.unwrap());
        assert_eq!(deletes_at.since(requested_at), Duration::from_secs(14 * 86_400));
        assert_eq!(told(&mut socket).await, Some(deletes_at));
        // Asked for again, the first one stands.
        assert_eq!(tablet.rest.request_deletion(&proof(&node, &alice).await).await.unwrap(), deletion);
        assert_eq!(tablet.rest.deletion().await.unwrap(), deletion);
        tablet.rest.cancel_deletion().await.unwrap();
        assert_eq!(told(&mut socket).await, None);
        assert_eq!(alice.rest.deletion().await.unwrap(), AccountDeletion::default());
        let trail = alice.rest.trail(0, 200).await.unwrap().items;
        let last: Vec<TrailEvent> = trail[trail.len() - 2..]
            .iter()
            .map(|item| serde_json::from_str::<TrailEntry>(&item.entry).unwrap().event)
            .collect();
        assert_eq!(last, [TrailEvent::DeletionRequested { deletes_at }, TrailEvent::DeletionCancelled]);
    }

    async fn nothing_is_left_but_what_others_have_got(database) {
        let mut node = TestNode::with(database, &AT_ONCE).await;
        let (alice, bob, direct) = pair(&node).await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let carol = register(&node, "carol").await;
        let room = group(&alice, &[&bob, &carol]).await;
        alice.rest.send_message(&enveloped(direct, &[&bob, &tablet], "to bob"), None).await.unwrap();
        alice.rest.send_message(&shared(room, "to all"), None).await.unwrap();
        bob.rest.send_message(&shared(room, "from bob"), None).await.unwrap();
        alice.rest.mark_read(room, 2).await.unwrap();
        let (mut bobs, _) = bob.socket().await;
        alice.rest.request_deletion(&proof(&node, &alice).await).await.unwrap();
        node.kill();
        node.restart().await;
        gone(&node, alice.user_id).await;
        drop(bobs);

        for device in [&alice, &tablet] {
            assert_eq!(code(device.rest.me().await), Some(ErrorCode::Unauthenticated));
            assert_eq!(code(Rest::new(&node.url).unwrap().refresh(&device.tokens.refresh_token).await), Some(ErrorCode::Unauthenticated));
        }
        // What she has written stays theirs, and the conversations go on.
        let messages = history(&bob, direct).await;
        assert_eq!(messages.iter().filter(|message| message.from.is_some_and(|from| from.user_id == alice.user_id)).count(), 1);
        assert_eq!(members(&bob, direct).await, [(bob.user_id, Role::Member)]);
        let log = history(&carol, room).await;
        assert_eq!(log.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2, 3]);
        let left = log[2].system.clone().unwrap();
        assert_eq!((left.event, left.user_ids, left.by), (MembershipEvent::Left, vec![alice.user_id], alice.user_id));
        let roles = members(&carol, room).await;
        assert!(roles.len() == 2 && roles.iter().any(|(_, role)| *role == Role::Owner), "{roles:?}");
        let sent = bob.rest.send_message(&shared(room, "after her"), None).await.unwrap();
        assert_eq!(sent.seq, 4);
        let alone = enveloped(direct, &[], "to nobody");
        assert_eq!(bob.rest.send_message(&alone, None).await.unwrap().seq, 2);
        // They are told of her devices, and see no such user.
        (bobs, _) = bob.socket().await;
        loop {
            let frame = next_of(&mut bobs, "devices_changed").await;
            let Some(Event::DevicesChanged(changed)) = frame.event().unwrap() else { panic!("{frame:?}") };
            assert_eq!(changed.user_id, alice.user_id);
            if changed.removed.contains(&tablet.device_id) {
                break;
            }
        }
        assert_eq!(code(bob.rest.devices(alice.user_id).await), Some(ErrorCode::NotFound));
        // Her number is anybody's.
        let (verification_id, right) = code_for(&node, &alice.phone, Purpose::Registration).await;
        let keys = DeviceKeys::generate().sign_in_keys(2).unwrap();
        let request = RegisterRequest { verification_id, code: right, device: info("new"), keys, totp: None, backup_code: None, pin: None, replace: None };
        let tokens = Rest::new(&node.url).unwrap().register(&request).await.unwrap();
        assert_ne!(tokens.user_id, alice.user_id);
    }

    async fn a_deletion_goes_on_after_kills_in_its_middle(database) {
        let mut node = TestNode::with(database, &AT_ONCE).await;
        let (alice, bob, direct) = pair(&node).await;
        let carol = register(&node, "carol").await;
        for name in ["two", "three", "four"] {
            second_device(&node, &alice, name).await;
        }
        let mut rooms = Vec::new();
        for _ in 0..30 {
            let room = group(&alice, &[&bob, &carol]).await;
            alice.rest.send_message(&shared(room, "hello"), None).await.unwrap();
            rooms.push(room);
        }
        alice.rest.request_deletion(&proof(&node, &alice).await).await.unwrap();
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let left = async || {
            let query = "SELECT 'x' AS text FROM memberships m WHERE m.to_seq IS NULL AND m.user_id NOT IN \
                 (SELECT id FROM users WHERE phone LIKE '+%')";
            inspect::texts(&store, query).await.unwrap().len()
        };
        // Killed as soon as it has got on a little, again and again.
        let (mut seen, mut last) = (Vec::new(), usize::MAX);
        for _ in 0..6 {
            node.kill();
            node.restart().await;
            let begun = Instant::now();
            loop {
                let now = left().await;
                if (1..last).contains(&now) || begun.elapsed() > Duration::from_secs(10) {
                    last = now;
                    break;
                }
                if now == 0 && traces(&node, alice.user_id).await.is_empty() {
                    break;
                }
            }
            node.kill();
            seen.push(left().await);
            node.restart().await;
        }
        gone(&node, alice.user_id).await;
        println!("memberships that kills left: {seen:?}");
        assert!(seen.iter().any(|left| (1..31).contains(left)), "no kill came in the middle: {seen:?}");
        for room in rooms {
            let log = history(&bob, room).await;
            let entries: Vec<_> = log.iter().filter_map(|message| message.system.clone()).collect();
            assert_eq!(entries.len(), 1, "one entry of her leaving: {entries:?}");
            assert_eq!(log.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2]);
            assert_eq!(members(&bob, room).await.len(), 2);
        }
        assert_eq!(members(&bob, direct).await.len(), 1);
    }
}
