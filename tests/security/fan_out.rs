//! One user's requests that write into the logs of many others, and answers that grow with how many others there are.

use crate::delivery_append::{code, group, store_of};
use crate::support::node::{TestNode, text};
use crate::support::on_both;
use crate::support::people::{Device, register, second_device, shared};
use crate::support::wire::{ack, next_of};
use crate::verify::seeded;
use serde_json::{Value, json};
use sotto_client::protocol::conversation::{ConversationType, CreateConversation, Role};
use sotto_client::protocol::event::{DevicesChanged, Event};
use sotto_client::protocol::keys::Keys;
use sotto_client::protocol::limits::{MAX_DEVICES_TOLD, MAX_MEMBERS_SHOWN, MAX_PAGE_BYTES, MAX_STAYS};
use sotto_client::protocol::{ConversationId, ErrorCode, UserId};
use sotto_client::{HeaderMap, Method, Rest, Result};
use sotto_schema::inspect;
use std::collections::BTreeSet;

/// Publishes a new registration id, which everybody around hears of.
async fn registers_anew(device: &mut Device, rest: &Rest, registration_id: i64) -> Result<()> {
    let signed_prekey = device.keys.sign_in_keys(0).unwrap().signed_prekey;
    rest.put_keys(&Keys { registration_id: Some(registration_id), signed_prekey, ..Keys::default() }).await
}

/// Calls of whoever has this access token.
fn with_token(node: &TestNode, token: &str) -> Rest {
    Rest::new(&node.url).unwrap().with_token(token)
}

/// Users of `sotto user seed` with the token of each.
async fn strangers(node: &TestNode, count: &str) -> Vec<(UserId, String)> {
    let file = seeded(node, &["--count", count, "--group", count]).await;
    let lines = std::fs::read_to_string(file).unwrap();
    let users = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    users
        .map(|user| {
            let id = UserId::parse(user["user_id"].as_str().unwrap()).unwrap();
            (id, user["access_token"].as_str().unwrap().to_owned())
        })
        .collect()
}

async fn of_strangers(owner: &Device, members: Vec<UserId>) -> ConversationId {
    let request = CreateConversation { kind: ConversationType::Group, members, name: None };
    owner.rest.create_conversation(&request, None).await.unwrap().0.conversation_id
}

/// How many rows the account logs hold, and how many bytes are in them.
async fn logged(node: &TestNode) -> (usize, usize) {
    let bodies =
        inspect::texts(&store_of(node).await, "SELECT CAST(body AS text) AS text FROM account_events").await.unwrap();
    (bodies.len(), bodies.iter().map(String::len).sum())
}

async fn raw(rest: &Rest, path: &str) -> Vec<u8> {
    let answer = rest.raw(Method::GET, path, HeaderMap::new(), None).await.unwrap();
    assert_eq!(answer.status, 200, "{path}");
    answer.body
}

/// All events that wait for a device, page by page, each page acknowledged.
async fn synced(rest: &Rest, limit: u32) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let page = rest.sync(Some(limit)).await.unwrap();
        rest.sync_ack(&page.cursor).await.unwrap();
        let is_last = page.events.is_empty() && !page.has_more;
        all.extend(page.events);
        if is_last {
            return all;
        }
    }
}

fn changes_of(events: Vec<Event>, user: UserId) -> Vec<DevicesChanged> {
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::DevicesChanged(changed) if changed.user_id == user => Some(changed),
            _ => None,
        })
        .collect()
}

fn limit_of(error: sotto_client::Error) -> Value {
    let problem = error.problem().expect("a problem");
    assert_eq!(problem.code, ErrorCode::RateLimited, "{problem:?}");
    assert!(problem.retry_after_ms.is_some_and(|wait| wait > 0));
    problem.more["limit"]["name"].clone()
}

on_both! {
    async fn what_a_node_of_the_version_before_wrote_is_one_event_with_the_next_change(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        alice.rest.create_direct(bob.user_id).await.unwrap();
        let tablet = second_device(&node, &alice, "tablet").await;
        let store = store_of(&node).await;
        let id = |id: uuid::Uuid| match store.kind() {
            "postgres" => format!("'{id}'"),
            _ => format!("x'{}'", id.simple()),
        };
        // Another event about the same subject, as that version appends it.
        let gone = uuid::Uuid::new_v4();
        let body = json!({"user_id": alice.user_id, "added": [], "removed": [gone], "identity_changed": []});
        let (bobs, alices) = (id(bob.user_id.0), id(alice.user_id.0));
        inspect::execute(&store, &format!(
            "INSERT INTO account_events (user_id, seq, kind, object, body, created_at, updated_at) \
             SELECT user_id, seq + 5, kind, object, '{body}', created_at, updated_at FROM account_events \
             WHERE user_id = {bobs} AND kind = 'devices_changed' AND object = {alices}; \
             UPDATE users SET account_seq = account_seq + 5 WHERE id = {bobs};"
        )).await.unwrap();
        let laptop = second_device(&node, &alice, "laptop").await;
        let page = bob.rest.sync(None).await.unwrap();
        let changes: Vec<DevicesChanged> = page.events.iter().filter_map(|event| match event {
            Event::DevicesChanged(changed) if changed.user_id == alice.user_id => Some(changed.clone()),
            _ => None,
        }).collect();
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(change.added, [tablet.device_id, laptop.device_id]);
        assert_eq!(change.removed, [sotto_client::protocol::DeviceId(gone)]);
    }

    async fn registration_ids_that_change_all_the_time_do_not_fill_strangers_logs(database) {
        let node = TestNode::start(database).await;
        let mut mallory = register(&node, "mallory").await;
        let (bob, carol) = (register(&node, "bob").await, register(&node, "carol").await);
        group(&mallory, &[&bob, &carol]).await;
        let rest = mallory.at(&node);
        registers_anew(&mut mallory, &rest, 1).await.unwrap();
        let before = logged(&node).await;
        for id in 2..40 {
            registers_anew(&mut mallory, &rest, id).await.unwrap();
        }
        assert_eq!(logged(&node).await, before, "a newer event takes the place of the older one");
        let changes = changes_of(synced(&bob.rest, 100).await, mallory.user_id);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].identity_changed, [mallory.device_id]);
        // Who has read it hears of the next one.
        registers_anew(&mut mallory, &rest, 40).await.unwrap();
        assert_eq!(changes_of(synced(&bob.rest, 100).await, mallory.user_id), changes);
        assert!(changes_of(synced(&bob.rest, 100).await, mallory.user_id).is_empty());
    }

    /// A device that comes between two changes, one that has read none and one that has read the first: each knows in the end
    /// which devices there are.
    async fn every_device_hears_of_every_change_wherever_its_cursor_stands(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let bobs_tablet = second_device(&node, &bob, "tablet").await;
        group(&alice, &[&bob]).await;
        synced(&bob.rest, 100).await;
        synced(&bobs_tablet.rest, 100).await;
        let phone = second_device(&node, &alice, "phone").await;
        let first = changes_of(synced(&bob.rest, 100).await, alice.user_id);
        assert_eq!(first.iter().map(|change| change.added.as_slice()).collect::<Vec<_>>(), [[phone.device_id]]);
        let bobs_watch = second_device(&node, &bob, "watch").await;
        let laptop = second_device(&node, &alice, "laptop").await;
        phone.rest.logout().await.unwrap();
        for (device, name) in [(&bob, "read the first"), (&bobs_tablet, "read none"), (&bobs_watch, "came in between")] {
            // By the socket and by REST alike.
            let (mut socket, _) = device.socket().await;
            let (n, changed) = loop {
                let frame = next_of(&mut socket, "devices_changed").await;
                match frame.event().unwrap() {
                    Some(Event::DevicesChanged(changed)) if changed.user_id == alice.user_id => {
                        break (frame.n.unwrap(), changed);
                    }
                    _ => {}
                }
            };
            assert_eq!((&changed.added, &changed.removed), (&vec![laptop.device_id], &vec![phone.device_id]), "{name}");
            let by_rest = device.rest.sync(None).await.unwrap().events;
            assert_eq!(changes_of(by_rest, alice.user_id), [changed], "{name}");
            ack(&mut socket, n).await;
        }
        // All have heard of it: the next change stands alone.
        let watch = second_device(&node, &alice, "watch").await;
        let last = changes_of(synced(&bobs_tablet.rest, 100).await, alice.user_id);
        assert_eq!((last.len(), &last[0].added, last[0].removed.len()), (1, &vec![watch.device_id], 0));
    }

    async fn a_log_names_a_bounded_number_of_devices(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        group(&alice, &[&bob]).await;
        // Bob was away for a long time.
        let store = store_of(&node).await;
        let removed: Vec<String> = (0..500).map(|_| text(sotto_client::protocol::DeviceId::random())).collect();
        let nobody: [&str; 0] = [];
        let body = json!({"user_id": alice.user_id, "added": nobody, "removed": removed, "identity_changed": nobody});
        let stored = |user: UserId| match store.kind() {
            "postgres" => format!("'{user}'"),
            _ => format!("unhex('{}')", user.0.simple()),
        };
        let (alice_id, bob_id) = (stored(alice.user_id), stored(bob.user_id));
        let insert = format!(
            "UPDATE users SET account_seq = account_seq + 1 WHERE id = {bob_id}; \
             INSERT INTO account_events (user_id, seq, kind, object, body, created_at, updated_at) \
             SELECT id, account_seq, 'devices_changed', {alice_id}, '{body}', created_at, updated_at FROM users WHERE id = {bob_id}"
        );
        inspect::execute(&store, &insert).await.unwrap();
        let phone = second_device(&node, &alice, "phone").await;
        let changes = changes_of(synced(&bob.rest, 100).await, alice.user_id);
        assert_eq!((changes.len(), &changes[0].added), (1, &vec![phone.device_id]));
        assert_eq!(changes[0].removed.len(), MAX_DEVICES_TOLD);
    }

    async fn one_user_notifies_a_bounded_number_of_others(database) {
        let settings = [
            ("SOTTO_LIMITS__NOTIFIED_USERS_PER_HOUR", "20"),
            ("SOTTO_AUTH__RESEND_DELAY", "0"),
            ("SOTTO_LIMITS__REQUESTS_PER_MINUTE", "1000"),
        ];
        let node = TestNode::with(database, &settings).await;
        let other = node.sibling().await;
        let users = strangers(&node, "5").await;
        let mut mallory = register(&node, "mallory").await;
        // Six of twenty.
        let conversation = of_strangers(&mallory, users.iter().map(|user| user.0).collect()).await;
        let (here, there) = (mallory.at(&node), mallory.at(&other));
        registers_anew(&mut mallory, &here, 1).await.unwrap();
        registers_anew(&mut mallory, &there, 2).await.unwrap();
        // Eighteen. Nothing of what is refused is stored, on whatever node.
        let before = logged(&node).await;
        for rest in [&here, &there] {
            assert_eq!(limit_of(registers_anew(&mut mallory, rest, 3).await.unwrap_err()), "notified_users");
            assert_eq!(limit_of(rest.remove_members(conversation, &[users[0].0]).await.unwrap_err()), "notified_users");
            let members = vec![users[0].0, users[1].0];
            let request = CreateConversation { kind: ConversationType::Group, members, name: None };
            assert_eq!(limit_of(rest.create_conversation(&request, None).await.unwrap_err()), "notified_users");
        }
        assert_eq!(logged(&node).await, before);
        assert_eq!(here.conversation(conversation).await.unwrap().members.len(), 6);
        // Keys that change nothing for others, a further device, its removal and leaving stay possible.
        registers_anew(&mut mallory, &here, 2).await.unwrap();
        let tablet = second_device(&node, &mallory, "tablet").await;
        tablet.rest.logout().await.unwrap();
        there.remove_members(conversation, &[mallory.user_id]).await.unwrap();
        // Others have their own.
        with_token(&node, &users[0].1).create_direct(mallory.user_id).await.unwrap();
    }

    async fn a_user_is_added_to_a_group_a_bounded_number_of_times(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let conversation = group(&alice, &[]).await;
        // As if he had been added and removed all the time.
        let store = store_of(&node).await;
        let stored = |id: uuid::Uuid| match store.kind() {
            "postgres" => format!("'{id}'"),
            _ => format!("unhex('{}')", id.simple()),
        };
        for chunk in 0..MAX_STAYS / 10 {
            let stays: Vec<String> = (chunk * 10..chunk * 10 + 10)
                .map(|stay| {
                    format!(
                        "INSERT INTO memberships (conversation_id, user_id, from_seq, to_seq, role, joined_at, \
                         created_at, updated_at) SELECT conversation_id, {}, {}, {}, role, joined_at, created_at, \
                         updated_at FROM memberships WHERE conversation_id = {} AND user_id = {}",
                        stored(bob.user_id.0),
                        stay + 2,
                        stay + 1,
                        stored(conversation.0),
                        stored(alice.user_id.0),
                    )
                })
                .collect();
            inspect::execute(&store, &stays.join("; ")).await.unwrap();
        }
        assert_eq!(code(alice.rest.add_members(conversation, &[bob.user_id]).await), ErrorCode::LimitReached);
        assert_eq!(alice.rest.conversation(conversation).await.unwrap().last_seq, 0, "nothing was changed");
    }

    async fn large_groups_come_without_their_members_who_come_by_page(database) {
        let node = TestNode::start(database).await;
        let users = strangers(&node, "60").await;
        let alice = register(&node, "alice").await;
        let small = of_strangers(&alice, users[..MAX_MEMBERS_SHOWN - 1].iter().map(|user| user.0).collect()).await;
        let seen = alice.rest.conversation(small).await.unwrap();
        assert_eq!((seen.members.len(), seen.member_count), (50, 50));
        alice.rest.add_members(small, &[users[59].0]).await.unwrap();
        let large = alice.rest.conversation(small).await.unwrap();
        let own: Vec<_> = large.members.iter().map(|member| (member.user_id, member.role)).collect();
        assert_eq!((own.as_slice(), large.member_count), (&[(alice.user_id, Role::Owner)][..], 51));
        assert_ne!(large.roster, seen.roster);
        let listed = alice.rest.conversations(None, None).await.unwrap().items;
        assert_eq!(listed, std::slice::from_ref(&large));
        let told = synced(&alice.rest, 100).await.into_iter().find_map(|event| match event {
            Event::ConversationChanged(changed) => Some(changed.conversation),
            _ => None,
        });
        assert_eq!(told.map(|told| (told.members.len(), told.member_count)), Some((1, 51)));
        // In pages, whatever their size, each of them once.
        let expected: BTreeSet<UserId> =
            users[..49].iter().chain([&users[59]]).map(|user| user.0).chain([alice.user_id]).collect();
        for limit in [7, 50, 51, 200] {
            let (mut all, mut after) = (Vec::new(), None::<String>);
            loop {
                let page = alice.rest.members(small, after.as_deref(), Some(limit)).await.unwrap();
                assert!(page.items.len() <= usize::try_from(limit).unwrap());
                all.extend(page.items.iter().map(|member| member.user_id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert!(all.is_sorted() && all.iter().copied().eq(expected.iter().copied()), "{limit}");
        }
        let whole = alice.rest.whole_conversation(small).await.unwrap();
        assert_eq!((whole.members.len(), whole.member_count, whole.roster), (51, 51, large.roster));
        // A cursor is its caller's, and its conversation's.
        let next = alice.rest.members(small, None, Some(7)).await.unwrap().next.unwrap();
        let member = with_token(&node, &users[0].1);
        assert_eq!(code(member.members(small, Some(&next), None).await), ErrorCode::CursorUnknown);
        let another = of_strangers(&alice, vec![users[0].0]).await;
        assert_eq!(code(alice.rest.members(another, Some(&next), None).await), ErrorCode::CursorUnknown);
        // Marks stand where members stand.
        alice.rest.send_message(&shared(small, "hello"), None).await.unwrap();
        member.mark_read(small, 1).await.unwrap();
        let page = member.members(small, None, Some(200)).await.unwrap();
        let reader = page.items.iter().find(|member| member.user_id == users[0].0).unwrap();
        assert_eq!((reader.read_up_to, member.conversation(small).await.unwrap().read_up_to), (1, 1));
    }

    async fn a_page_ends_at_one_mebibyte(database) {
        let node = TestNode::start(database).await;
        let users = strangers(&node, "50").await;
        let mallory = register(&node, "mallory").await;
        let members: Vec<UserId> = users[..49].iter().map(|user| user.0).collect();
        let mut made = BTreeSet::new();
        for _ in 0..180 {
            made.insert(of_strangers(&mallory, members.clone()).await);
        }
        // The seeded one is the fiftieth's too; it is read by one of the others.
        let rest = with_token(&node, &users[0].1);
        let most = MAX_PAGE_BYTES + 1024;
        let (mut found, mut after, mut pages) = (BTreeSet::new(), String::new(), 0);
        loop {
            let body = raw(&rest, &format!("/v1/conversations?limit=200{after}")).await;
            assert!(body.len() <= most, "{} bytes", body.len());
            let page: Value = serde_json::from_slice(&body).unwrap();
            let ids = page["items"].as_array().unwrap().iter();
            found.extend(ids.map(|item| ConversationId::parse(item["conversation_id"].as_str().unwrap()).unwrap()));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert!(pages > 1 && found.is_superset(&made) && found.len() == made.len() + 1, "{pages} pages, {}", found.len());
        let (mut told, mut pages) = (BTreeSet::new(), 0);
        loop {
            let body = raw(&rest, "/v1/sync?limit=500").await;
            assert!(body.len() <= most + 16 * 1024, "{} bytes", body.len());
            let page: sotto_client::protocol::sync::SyncPage = serde_json::from_slice(&body).unwrap();
            rest.sync_ack(&page.cursor).await.unwrap();
            pages += 1;
            let is_last = !page.has_more;
            told.extend(page.events.into_iter().filter_map(|event| match event {
                Event::ConversationChanged(changed) => Some(changed.conversation.conversation_id),
                _ => None,
            }));
            if is_last {
                break;
            }
        }
        assert!(pages > 1 && told.is_superset(&made), "{pages} pages, {} of {}", told.len(), made.len());
    }
}
