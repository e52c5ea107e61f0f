//! Members come and go: what each of them sees, and that the log stays one (rule D9, tests 10 and 16).

use crate::delivery_append::{assert_gapless, code, group, insist, log, post, store_of, try_send};
use crate::support::database::{Kind, connect};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, pair, register, second_device, shared};
use crate::support::wire::{PATIENCE, ack, next_message, next_of};
use sotto_client::protocol::conversation::Role;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::{Kind as MessageKind, MembershipEvent, Message, Sent, SystemEntry};
use sotto_client::protocol::{ConversationId, ErrorCode, MessageId, Seq};
use sotto_client::rest::HistoryRange;
use sotto_client::{Rest, Socket};
use sotto_schema::inspect;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The messages of one conversation among all that waits for a device, each page acknowledged.
async fn synced(rest: &Rest, conversation: ConversationId) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        let page = rest.sync(Some(3)).await.unwrap();
        all.extend(page.events.into_iter().filter_map(|event| match event {
            Event::NewMessage(message) if message.conversation_id == conversation => Some(message),
            _ => None,
        }));
        rest.sync_ack(&page.cursor).await.unwrap();
        if !page.has_more {
            return all;
        }
    }
}

/// The same by a new socket, up to `drained`.
async fn drained(device: &Device, conversation: ConversationId) -> Vec<Message> {
    let (mut socket, _) = device.socket().await;
    let (mut all, mut last) = (Vec::new(), 0);
    loop {
        let frame = socket.next_frame_within(PATIENCE).await.unwrap();
        last = frame.n.unwrap_or(last);
        if frame.t == "drained" {
            break;
        }
        if let Some(Event::NewMessage(message)) = frame.event().unwrap()
            && message.conversation_id == conversation
        {
            all.push(message);
        }
    }
    if last > 0 {
        ack(&mut socket, last).await;
    }
    all
}

fn seqs(messages: &[Message]) -> Vec<Seq> {
    messages.iter().map(|message| message.seq).collect()
}

async fn send_many(from: &Device, conversation: ConversationId, count: usize) -> Vec<Sent> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(from.rest.send_message(&shared(conversation, "text"), None).await.unwrap());
    }
    all
}

async fn history(device: &Device, conversation: ConversationId) -> Vec<Seq> {
    log(&device.rest, conversation).await.into_iter().map(|(seq, _)| seq).collect()
}

/// No message comes for a while; other events may.
async fn no_message(socket: &mut Socket, wait: Duration) {
    let until = Instant::now() + wait;
    while let Ok(frame) = socket.next_frame_within(until.saturating_duration_since(Instant::now())).await {
        assert_ne!(frame.t, "new_message", "{}", frame.d);
    }
}

on_both! {
    async fn removed_while_away_with_five_pending(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let carol = register(&node, "carol").await;
        let tablet = second_device(&node, &carol, "tablet").await;
        let conversation = group(&alice, &[&bob, &carol]).await;
        send_many(&alice, conversation, 5).await;
        alice.rest.remove_members(conversation, &[carol.user_id]).await.unwrap();
        send_many(&alice, conversation, 3).await;

        assert_eq!(seqs(&synced(&carol.rest, conversation).await), [1, 2, 3, 4, 5]);
        assert_eq!(seqs(&drained(&tablet, conversation).await), [1, 2, 3, 4, 5]);
        // Once is enough, on either way.
        assert!(drained(&carol, conversation).await.is_empty());
        assert!(synced(&tablet.rest, conversation).await.is_empty());
        assert!(!carol.socket().await.1.pending);

        let (status, body) = post(&carol.rest, &shared(conversation, "let me in")).await;
        assert_eq!((status, &body["code"]), (403, &"forbidden".into()));
        let (mut carols, _) = tablet.socket().await;
        assert_eq!(code(try_send(&mut carols, &shared(conversation, "let me in")).await), ErrorCode::Forbidden);
        assert_eq!(history(&carol, conversation).await, [1, 2, 3, 4, 5]);
        let back = HistoryRange { after_seq: None, before_seq: Some(100), limit: Some(2) };
        let page = carol.rest.history(conversation, back).await.unwrap();
        assert_eq!(seqs(&page.items), [4, 5], "the last ones that are hers");
        let view = carol.rest.conversation(conversation).await.unwrap();
        assert_eq!((view.last_seq, view.members.len()), (5, 0), "nothing of what came later");
        assert!(carol.rest.conversations(None, None).await.unwrap().items.is_empty());
        send_many(&alice, conversation, 1).await;
        no_message(&mut carols, Duration::from_millis(1500)).await;
    }

    async fn removed_and_added_again(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let carol = register(&node, "carol").await;
        let tablet = second_device(&node, &carol, "tablet").await;
        let conversation = group(&alice, &[&bob, &carol]).await;
        // The tablet is there all the time, the phone never.
        let (mut live, _) = tablet.socket().await;
        next_of(&mut live, "drained").await;
        for _ in 0..2 {
            send_many(&bob, conversation, 3).await;
            alice.rest.remove_members(conversation, &[carol.user_id]).await.unwrap();
            send_many(&bob, conversation, 2).await;
            alice.rest.add_members(conversation, &[carol.user_id]).await.unwrap();
            send_many(&bob, conversation, 1).await;
        }
        let expected = [1, 2, 3, 7, 8, 9, 10, 11, 15, 16];
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let (n, message) = next_message(&mut live).await;
            if seen.len() == 4 {
                live.ack(n).await.unwrap();
            }
            seen.push(message);
        }
        assert_eq!(seqs(&seen), expected);
        let joins: Vec<Seq> = seen.iter().filter(|message| message.system.is_some()).map(|message| message.seq).collect();
        assert_eq!(joins, [7, 15]);
        no_message(&mut live, Duration::from_millis(1200)).await;
        assert_eq!(seqs(&synced(&carol.rest, conversation).await), expected);
        assert_eq!(history(&carol, conversation).await, expected);
        assert_eq!(history(&alice, conversation).await, (1..=16).collect::<Vec<Seq>>());
        // A message between the intervals is no message of hers.
        let hidden = log(&alice.rest, conversation).await[4].1;
        let error = carol.rest.mark_message_read(hidden, None).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NotFound));
        carol.rest.send_message(&shared(conversation, "here again"), None).await.unwrap();
    }

    /// The commits wait for a lock while the member is added: whichever comes first, she sees nothing before her join.
    async fn added_during_a_commit(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let carol = register(&node, "carol").await;
        let (mut carols, _) = carol.socket().await;
        next_of(&mut carols, "drained").await;
        let (mut alices, _) = alice.socket().await;
        let store = store_of(&node).await;
        for round in 0..4 {
            let conversation = group(&alice, &[&bob]).await;
            insist(&mut alices, &shared(conversation, "warm")).await;
            let own = match database {
                Kind::Postgres => {
                    let own = connect(&node.store_url).await;
                    let lock = format!("BEGIN; SELECT 1 FROM heads WHERE conversation_id = '{conversation}' FOR UPDATE");
                    own.batch_execute(&lock).await.unwrap();
                    Some(own)
                }
                Kind::Sqlite => {
                    inspect::execute(&store, "BEGIN IMMEDIATE").await.unwrap();
                    None
                }
            };
            let messages: Vec<_> = (0..6).map(|_| shared(conversation, "meanwhile")).collect();
            let mut open = BTreeMap::new();
            for message in &messages[..3] {
                open.insert(alices.request("send_message", message).await.unwrap(), message.message_id);
            }
            let (rest, id) = (alice.rest.clone(), carol.user_id);
            let adding = tokio::spawn(async move { rest.add_members(conversation, &[id]).await });
            tokio::time::sleep(Duration::from_millis(100)).await;
            for message in &messages[3..] {
                open.insert(alices.request("send_message", message).await.unwrap(), message.message_id);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            match own {
                Some(own) => own.batch_execute("COMMIT").await.unwrap(),
                None => inspect::execute(&store, "COMMIT").await.unwrap(),
            }
            adding.await.unwrap().unwrap();
            while !open.is_empty() {
                let frame = alices.next_frame_within(PATIENCE).await.unwrap();
                if frame.re.is_some_and(|id| open.remove(&id).is_some()) {
                    frame.answer::<Sent>().unwrap();
                }
            }
            let all = log(&alice.rest, conversation).await;
            assert_gapless(&all);
            assert_eq!(all.len(), 8, "round {round}");
            let sent: BTreeSet<MessageId> = messages.iter().map(|message| message.message_id).collect();
            let entry = all.iter().skip(1).find(|(_, id)| !sent.contains(id)).expect("the entry of the join").0;
            assert_eq!(history(&carol, conversation).await, (entry..=8).collect::<Vec<Seq>>());
            let mut live = Vec::new();
            while live.len() < usize::try_from(9 - entry).unwrap() {
                live.push(next_message(&mut carols).await.1);
            }
            assert_eq!(seqs(&live), (entry..=8).collect::<Vec<Seq>>(), "round {round}");
            assert_eq!(live[0].after_seq, Some(entry - 1), "the mark that she starts from");
        }
    }

    async fn each_change_is_an_entry_that_all_can_read(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let (carol, dave) = (register(&node, "carol").await, register(&node, "dave").await);
        let conversation = group(&alice, &[&bob]).await;
        assert!(log(&alice.rest, conversation).await.is_empty(), "who begins it is no entry");
        let mut sockets = Vec::new();
        for device in [&alice, &bob, &carol, &dave] {
            let (mut socket, _) = device.socket().await;
            next_of(&mut socket, "drained").await;
            sockets.push(socket);
        }
        let mut new = vec![carol.user_id, dave.user_id];
        alice.rest.add_members(conversation, &new).await.unwrap();
        new.sort_unstable();
        let expected = SystemEntry { event: MembershipEvent::Joined, user_ids: new, by: alice.user_id };
        for socket in &mut sockets {
            let (_, entry) = next_message(socket).await;
            assert_eq!((entry.kind, entry.from, &entry.ciphertext, entry.seq), (MessageKind::System, None, &None, 1));
            let mut system = entry.system.unwrap();
            system.user_ids.sort_unstable();
            assert_eq!(system, expected);
        }
        // As it stands on the wire: `from` and `ciphertext` are null and not left out.
        let raw = alice.rest.raw(sotto_client::Method::GET, &format!("/v1/conversations/{conversation}/messages"),
            sotto_client::HeaderMap::new(), None).await.unwrap().json::<serde_json::Value>().unwrap();
        let entry = &raw["items"][0];
        assert!(entry.as_object().unwrap().contains_key("from") && entry["from"].is_null());
        assert!(entry.as_object().unwrap().contains_key("ciphertext") && entry["ciphertext"].is_null());
        assert_eq!((&entry["kind"], &entry["system"]["event"]), (&"system".into(), &"joined".into()));

        // Whom the group has already is no news, and no entry.
        alice.rest.add_members(conversation, &[bob.user_id, carol.user_id]).await.unwrap();
        assert_eq!(log(&alice.rest, conversation).await.len(), 1);
        dave.rest.remove_members(conversation, &[dave.user_id]).await.unwrap();
        let (_, left) = next_message(&mut sockets[0]).await;
        let expected = SystemEntry { event: MembershipEvent::Left, user_ids: vec![dave.user_id], by: dave.user_id };
        assert_eq!((left.seq, left.system), (2, Some(expected)));
        alice.rest.remove_members(conversation, &[carol.user_id]).await.unwrap();
        let (_, removed) = next_message(&mut sockets[0]).await;
        let expected = SystemEntry { event: MembershipEvent::Removed, user_ids: vec![carol.user_id], by: alice.user_id };
        assert_eq!((removed.seq, removed.system), (3, Some(expected)));
        assert_eq!(history(&carol, conversation).await, [1, 2], "her own end is not in her interval");
        // An owner who leaves leaves the group to somebody.
        alice.rest.remove_members(conversation, &[alice.user_id]).await.unwrap();
        let view = bob.rest.conversation(conversation).await.unwrap();
        assert_eq!((view.members.len(), view.members[0].role, view.last_seq), (1, Role::Owner, 4));
        bob.rest.add_members(conversation, &[alice.user_id]).await.unwrap();
        assert_gapless(&log(&bob.rest, conversation).await);
    }

    async fn who_may_change_members(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, direct) = pair(&node).await;
        let (carol, stranger) = (register(&node, "carol").await, register(&node, "stranger").await);
        let conversation = group(&alice, &[&bob]).await;
        assert_eq!(code(bob.rest.add_members(conversation, &[carol.user_id]).await), ErrorCode::Forbidden);
        assert_eq!(code(bob.rest.remove_members(conversation, &[alice.user_id]).await), ErrorCode::Forbidden);
        assert_eq!(code(stranger.rest.add_members(conversation, &[carol.user_id]).await), ErrorCode::NotFound);
        assert_eq!(code(alice.rest.add_members(direct, &[carol.user_id]).await), ErrorCode::Forbidden);
        assert_eq!(code(alice.rest.remove_members(direct, &[alice.user_id]).await), ErrorCode::Forbidden);
        assert_eq!(code(alice.rest.remove_members(conversation, &[carol.user_id]).await), ErrorCode::NotFound);
        let nobody = sotto_client::protocol::UserId::random();
        // One who does not exist fails all of it.
        assert_eq!(code(alice.rest.add_members(conversation, &[carol.user_id, nobody]).await), ErrorCode::NotFound);
        assert_eq!(code(alice.rest.add_members(conversation, &[]).await), ErrorCode::ValidationFailed);
        let view = alice.rest.conversation(conversation).await.unwrap();
        assert_eq!((view.members.len(), view.last_seq), (2, 0));
        bob.rest.remove_members(conversation, &[bob.user_id]).await.unwrap();
        assert_eq!(code(bob.rest.add_members(conversation, &[bob.user_id]).await), ErrorCode::Forbidden);
    }

    /// Test 16: no hole, no starvation, one order.
    async fn membership_changes_many_times_a_second_under_load(database) {
        const FOR: Duration = Duration::from_secs(5);
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let mut senders = Vec::new();
        for count in 0..3 {
            senders.push(register(&node, &format!("sender {count}")).await);
        }
        let guest = register(&node, "guest").await;
        let conversation = group(&alice, &senders.iter().collect::<Vec<_>>()).await;
        let (mut guests, _) = guest.socket().await;
        next_of(&mut guests, "drained").await;
        let until = Instant::now() + FOR;
        let (rest, id) = (alice.rest.clone(), guest.user_id);
        let changing = tokio::spawn(async move {
            let mut changes = 0_u32;
            while Instant::now() < until || changes % 2 == 1 {
                match changes % 2 {
                    0 => rest.add_members(conversation, &[id]).await.expect("added"),
                    _ => rest.remove_members(conversation, &[id]).await.expect("removed"),
                }
                changes += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            changes
        });
        let tasks: Vec<_> = senders
            .into_iter()
            .map(|sender| {
                tokio::spawn(async move {
                    let (mut socket, _) = sender.socket().await;
                    let (mut stored, mut received, mut longest) = (BTreeMap::new(), BTreeMap::new(), Duration::ZERO);
                    let mut last = 0;
                    let mut note = |frame: &sotto_client::socket::ServerFrame| {
                        if let Some(Event::NewMessage(message)) = frame.event().expect("an event") {
                            assert!(message.seq > last, "{} after {last}", message.seq);
                            last = message.seq;
                            received.insert(message.seq, message.message_id);
                        }
                    };
                    while Instant::now() < until {
                        let message = shared(conversation, "under change");
                        let begun = Instant::now();
                        loop {
                            let id = socket.request("send_message", &message).await.expect("sent");
                            let answer = loop {
                                let frame = socket.next_frame_within(PATIENCE).await.expect("a frame");
                                if frame.re == Some(id) {
                                    break frame.answer::<Sent>();
                                }
                                note(&frame);
                                if let Some(n) = frame.n {
                                    socket.ack(n).await.expect("sent");
                                }
                            };
                            match answer {
                                Ok(sent) => {
                                    stored.insert(sent.seq, sent.message_id);
                                    break;
                                }
                                Err(error) => assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}"),
                            }
                        }
                        longest = longest.max(begun.elapsed());
                    }
                    (sender, socket, stored, received, longest)
                })
            })
            .collect();
        let changes = changing.await.unwrap();
        let mut ended = Vec::new();
        for task in tasks {
            ended.push(task.await.unwrap());
        }
        let all = log(&alice.rest, conversation).await;
        assert_gapless(&all);
        let total: usize = ended.iter().map(|(_, _, stored, _, _)| stored.len()).sum();
        assert_eq!(all.len(), total + usize::try_from(changes).unwrap(), "each change and each send once");
        assert!(changes >= 50, "only {changes} changes");
        let expected: BTreeMap<Seq, MessageId> = all.iter().copied().collect();
        for (sender, mut socket, stored, mut received, longest) in ended {
            assert!(stored.len() >= 20, "{} sends of {}", stored.len(), sender.user_id);
            assert!(longest < Duration::from_secs(5), "{longest:?}");
            while received.len() + stored.len() < all.len() {
                let frame = socket.next_frame_within(PATIENCE).await.expect("the rest");
                if let Some(Event::NewMessage(message)) = frame.event().unwrap() {
                    received.insert(message.seq, message.message_id);
                }
                if let Some(n) = frame.n {
                    socket.ack(n).await.unwrap();
                }
            }
            received.extend(stored);
            assert_eq!(received, expected);
        }
        // The guest has what lies in his intervals, in order, live as well as in history.
        let hers = history(&guest, conversation).await;
        let mut seen = Vec::new();
        while seen.len() < hers.len() {
            let frame = guests.next_frame_within(PATIENCE).await.expect("the guest's messages");
            if let Some(Event::NewMessage(message)) = frame.event().unwrap() {
                seen.push(message.seq);
            }
            if let Some(n) = frame.n {
                guests.ack(n).await.unwrap();
            }
        }
        assert_eq!(seen, hers);
    }
}
