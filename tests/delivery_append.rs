//! What a send comes to: repeats, batches, numbers, order. Each part of the contract's "Sending" has a file below.

mod contention;
mod device_lists;
mod few;
mod limits;
mod near;
mod nodes;
mod read_marks;

use crate::support::database::{Kind, connect};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, enveloped, pair, register, second_device, shared};
use crate::support::wire::{PATIENCE, ack, next_message, next_of};
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::message::{OutgoingMessage, Sent};
use sotto_client::protocol::{Binary, ConversationId, ErrorCode, MessageId, Seq};
use sotto_client::rest::HistoryRange;
use sotto_client::{Error, HeaderMap, Method, Rest, Socket, SocketOptions};
use sotto_schema::{Store, StoreSettings, inspect};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A group that the first one owns.
pub async fn group(owner: &Device, others: &[&Device]) -> ConversationId {
    let members = others.iter().map(|device| device.user_id).collect();
    let request = CreateConversation { kind: ConversationType::Group, members, name: Some("group".to_owned()) };
    owner.rest.create_conversation(&request, None).await.expect("a group").0.conversation_id
}

/// A socket of a device at any node.
pub async fn socket_at(device: &Device, node: &TestNode) -> Socket {
    let options = SocketOptions::hello(&device.tokens.access_token);
    Socket::connect(&node.url, &options).await.expect("welcome").0
}

/// The answer to a request, whatever it is.
pub async fn answer(socket: &mut Socket, id: u64) -> Result<Sent, Error> {
    loop {
        let frame = socket.next_frame_within(PATIENCE).await.expect("an answer");
        if frame.re == Some(id) {
            return frame.answer();
        }
    }
}

/// Sends over the socket; a refusal is an answer too.
pub async fn try_send(socket: &mut Socket, message: &OutgoingMessage) -> Result<Sent, Error> {
    let id = socket.request("send_message", message).await.expect("sent");
    answer(socket, id).await
}

/// Sends over the socket until the outcome is known.
pub async fn insist(socket: &mut Socket, message: &OutgoingMessage) -> Sent {
    for _ in 0..40 {
        match try_send(socket, message).await {
            Ok(sent) => return sent,
            Err(error) if error.code() == Some(ErrorCode::Unavailable) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no answer but unavailable");
}

/// Sends all at once and tells the answers in the order of the messages.
pub async fn pipeline(socket: &mut Socket, messages: &[OutgoingMessage]) -> Vec<Result<Sent, Error>> {
    let mut places = BTreeMap::new();
    for (place, message) in messages.iter().enumerate() {
        places.insert(socket.request("send_message", message).await.expect("sent"), place);
    }
    let mut answers: BTreeMap<usize, Result<Sent, Error>> = BTreeMap::new();
    while answers.len() < messages.len() {
        let frame = socket.next_frame_within(PATIENCE).await.expect("an answer");
        if let Some(place) = frame.re.and_then(|id| places.get(&id)) {
            answers.insert(*place, frame.answer());
        }
    }
    answers.into_values().collect()
}

/// Status and answer of a send by REST.
pub async fn post(rest: &Rest, message: &OutgoingMessage) -> (u16, serde_json::Value) {
    let body = serde_json::to_vec(message).expect("JSON");
    let answer = rest.raw(Method::POST, "/v1/messages", HeaderMap::new(), Some(body)).await.expect("an answer");
    (answer.status, answer.json().expect("JSON"))
}

/// What a refusal says.
pub fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> ErrorCode {
    answer.expect_err("a refusal").code().expect("a problem")
}

/// A conversation's log as a member sees it.
pub async fn log(rest: &Rest, conversation: ConversationId) -> Vec<(Seq, MessageId)> {
    let mut all = Vec::new();
    loop {
        let after_seq = Some(all.last().map_or(0, |(seq, _)| *seq));
        let range = HistoryRange { after_seq, before_seq: None, limit: Some(500) };
        let page = rest.history(conversation, range).await.expect("history");
        all.extend(page.items.iter().map(|message| (message.seq, message.message_id)));
        if page.next.is_none() {
            return all;
        }
    }
}

/// The log is numbered 1, 2, 3 … and holds no id twice.
pub fn assert_gapless(log: &[(Seq, MessageId)]) {
    let numbers: Vec<Seq> = log.iter().map(|(seq, _)| *seq).collect();
    let expected: Vec<Seq> = (1..=Seq::try_from(log.len()).unwrap()).collect();
    assert_eq!(numbers, expected, "a hole");
    let ids: BTreeSet<MessageId> = log.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids.len(), log.len(), "an id stands twice");
}

/// The database of a node, beside the node.
pub async fn store_of(node: &TestNode) -> Store {
    Store::open(&node.store_url, &StoreSettings { read_connections: 2, ..StoreSettings::default() })
        .await
        .expect("the database")
}

/// The same id with another text in it.
fn other_content(message: &OutgoingMessage) -> OutgoingMessage {
    OutgoingMessage { ciphertext: Some(Binary(b"other".to_vec())), envelopes: None, ..message.clone() }
}

on_both! {
    /// Rule D8, test 9: the message is stored, its answer lost; whatever happened since, a repeat gets that answer.
    async fn a_repeat_gets_the_first_answer_whatever_has_changed(database) {
        let mut node = TestNode::start(database).await;
        let (bob, alice) = (register(&node, "bob").await, register(&node, "alice").await);
        let conversation = group(&bob, &[&alice]).await;
        let (mut bobs, _) = bob.socket().await;
        let (mut alices, _) = alice.socket().await;
        let eaten = enveloped(conversation, &[&bob], "eaten");
        alices.request("send_message", &eaten).await.unwrap();
        let first = next_message(&mut bobs).await.1;
        assert_eq!(first.message_id, eaten.message_id);
        drop(alices);
        let expected = |sent: &Sent| {
            assert_eq!((sent.message_id, sent.conversation_id), (eaten.message_id, conversation));
            assert_eq!((sent.seq, sent.server_time, sent.duplicate), (first.seq, first.server_time, true));
        };

        // A device that the envelopes do not know, another content, and a member who is none any more.
        let tablet = second_device(&node, &bob, "tablet").await;
        let (status, body) = post(&alice.rest, &eaten).await;
        assert_eq!(status, 200, "{body}");
        expected(&serde_json::from_value(body).unwrap());
        expected(&alice.rest.send_message(&other_content(&eaten), None).await.unwrap());
        bob.rest.remove_members(conversation, &[alice.user_id]).await.unwrap();
        let (status, body) = post(&alice.rest, &eaten).await;
        assert_eq!(status, 200, "{body}");
        expected(&serde_json::from_value(body).unwrap());
        let (mut alices, _) = alice.socket().await;
        expected(&try_send(&mut alices, &eaten).await.unwrap());
        expected(&try_send(&mut alices, &other_content(&eaten)).await.unwrap());
        assert_eq!(code(try_send(&mut alices, &shared(conversation, "new")).await), ErrorCode::Forbidden);

        // A node that has never heard of it says the same.
        node.kill();
        node.restart().await;
        let (mut alices, _) = alice.socket().await;
        expected(&try_send(&mut alices, &eaten).await.unwrap());
        expected(&alice.rest.send_message(&other_content(&eaten), None).await.unwrap());
        let page = bob.rest.history(conversation, HistoryRange::default()).await.unwrap();
        let stored: Vec<_> = page.items.iter().filter(|message| message.message_id == eaten.message_id).collect();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].ciphertext, eaten.envelopes.as_ref().map(|all| all[0].ciphertext.clone()));
        drop(tablet);
    }

    /// All repeats at once, at a node that has the conversation in no memory: none may be judged by what is true now.
    async fn repeats_in_a_row_are_all_known(database) {
        let mut node = TestNode::start(database).await;
        let (bob, alice) = (register(&node, "bob").await, register(&node, "alice").await);
        let conversation = group(&bob, &[&alice]).await;
        let messages: Vec<_> = (0..8).map(|count| enveloped(conversation, &[&bob], &count.to_string())).collect();
        let (mut alices, _) = alice.socket().await;
        let first: Vec<Sent> = pipeline(&mut alices, &messages).await.into_iter().map(Result::unwrap).collect();
        bob.rest.remove_members(conversation, &[alice.user_id]).await.unwrap();
        node.kill();
        node.restart().await;
        let (mut alices, _) = alice.socket().await;
        let again = pipeline(&mut alices, &messages).await;
        for (first, again) in first.iter().zip(again) {
            assert_eq!(again.unwrap(), Sent { duplicate: true, ..first.clone() });
        }
    }

    async fn an_id_belongs_to_its_first_user_and_its_conversation(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let stranger = register(&node, "stranger").await;
        let conversation = group(&alice, &[&bob]).await;
        let other = group(&alice, &[&bob]).await;
        let message = shared(conversation, "mine");
        let sent = alice.rest.send_message(&message, None).await.unwrap();

        // Another device of the same user repeats it just as well.
        let tablet = second_device(&node, &alice, "tablet").await;
        let again = tablet.rest.send_message(&message, None).await.unwrap();
        assert_eq!(again, Sent { duplicate: true, ..sent.clone() });

        let (status, body) = post(&bob.rest, &message).await;
        assert_eq!((status, &body["code"], &body["retryable"]), (409, &"conflict".into(), &false.into()), "{body}");
        let (mut bobs, _) = bob.socket().await;
        assert_eq!(code(try_send(&mut bobs, &message).await), ErrorCode::Conflict);
        let (status, body) = post(&stranger.rest, &message).await;
        assert_eq!((status, &body["code"]), (404, &"not_found".into()));
        let (mut strangers, _) = stranger.socket().await;
        assert_eq!(code(try_send(&mut strangers, &message).await), ErrorCode::NotFound);
        let nowhere = OutgoingMessage { conversation_id: ConversationId::ordered(), ..message.clone() };
        assert_eq!(post(&alice.rest, &nowhere).await.0, 404);

        let elsewhere = OutgoingMessage { conversation_id: other, ..message.clone() };
        let (status, body) = post(&alice.rest, &elsewhere).await;
        assert_eq!((status, &body["seq"], &body["duplicate"]), (201, &1.into(), &false.into()), "{body}");
        // And there it may be another user's.
        let third = group(&bob, &[&alice]).await;
        let theirs = OutgoingMessage { conversation_id: third, ..message.clone() };
        assert_eq!(post(&bob.rest, &theirs).await.0, 201);
    }

    /// The second and third stand in the same transaction as the first.
    async fn the_same_id_twice_in_one_batch_is_stored_once(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let (mut alices, _) = alice.socket().await;
        let doubled = shared(conversation, "twice");
        let messages = [shared(conversation, "before"), doubled.clone(), doubled.clone(), doubled.clone(),
            shared(conversation, "after")];
        let answers: Vec<Sent> = pipeline(&mut alices, &messages).await.into_iter().map(Result::unwrap).collect();
        let seen: Vec<_> = answers.iter().map(|sent| (sent.seq, sent.duplicate)).collect();
        assert_eq!(seen, [(1, false), (2, false), (2, true), (2, true), (3, false)]);
        // Two users, one id, at the same time: one has it.
        let contested = shared(conversation, "contested");
        let (mine, theirs) = tokio::join!(post(&alice.rest, &contested), post(&bob.rest, &contested));
        let mut statuses = [mine.0, theirs.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409], "{mine:?} {theirs:?}");
        let log = log(&bob.rest, conversation).await;
        assert_gapless(&log);
        assert_eq!(log.len(), 4);
    }

    /// Rule D11: one row that the database refuses fails only its conversation.
    async fn one_poisoned_row_among_a_hundred(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let poisoned = group(&alice, &[&bob]).await;
        let mut homes = Vec::new();
        for _ in 0..11 {
            homes.push(group(&alice, &[&bob]).await);
        }
        let store = store_of(&node).await;
        let hex = poisoned.0.simple();
        let trigger = match database {
            Kind::Postgres => format!("ALTER TABLE messages ADD CONSTRAINT poison CHECK (conversation_id <> '{hex}')"),
            Kind::Sqlite => format!(
                "CREATE TRIGGER poison BEFORE INSERT ON messages WHEN NEW.conversation_id = x'{hex}' \
                 BEGIN SELECT RAISE(ABORT, 'poison'); END"
            ),
        };
        inspect::execute(&store, &trigger).await.unwrap();
        let mut messages: Vec<_> = (0..99).map(|count| shared(homes[count % homes.len()], "good")).collect();
        messages.insert(50, shared(poisoned, "bad"));
        let (mut alices, _) = alice.socket().await;
        let answers = pipeline(&mut alices, &messages).await;
        for (message, answer) in messages.iter().zip(answers) {
            if message.conversation_id == poisoned {
                assert_eq!(code(answer), ErrorCode::Unavailable);
            } else {
                assert!(!answer.unwrap().duplicate);
            }
        }
        for home in &homes {
            let log = log(&bob.rest, *home).await;
            assert_gapless(&log);
            assert_eq!(log.len(), 9);
        }
        assert!(log(&bob.rest, poisoned).await.is_empty());
        let cure = match database {
            Kind::Postgres => "ALTER TABLE messages DROP CONSTRAINT poison",
            Kind::Sqlite => "DROP TRIGGER poison",
        };
        inspect::execute(&store, cure).await.unwrap();
        assert_eq!(insist(&mut alices, &messages[50]).await.seq, 1, "the failure left no hole");
    }

    async fn sends_of_one_socket_are_numbered_in_the_order_of_their_frames(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let (mut alices, _) = alice.socket().await;
        let messages: Vec<_> = (0..120)
            .map(|count| match count % 2 {
                0 => shared(conversation, "shared"),
                _ => enveloped(conversation, &[&bob], "own"),
            })
            .collect();
        let answers: Vec<Sent> = pipeline(&mut alices, &messages).await.into_iter().map(Result::unwrap).collect();
        let seqs: Vec<Seq> = answers.iter().map(|sent| sent.seq).collect();
        assert_eq!(seqs, (1..=120).collect::<Vec<Seq>>());
    }

    /// Some were checked against the device list and some were not; a list that moves must not let one pass the other.
    async fn the_order_stays_while_the_device_list_moves(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let (mut alices, _) = alice.socket().await;
        let store = store_of(&node).await;
        // What a changed registration id does, as often as the database can: the list itself stays right.
        let moves = format!(
            "UPDATE users SET device_version = device_version + 1 WHERE id = {}",
            match database {
                Kind::Postgres => format!("'{}'", bob.user_id),
                Kind::Sqlite => format!("x'{}'", bob.user_id.0.simple()),
            }
        );
        let mover = tokio::spawn(async move {
            for _ in 0..400 {
                inspect::execute(&store, &moves).await.expect("moved");
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
        let mut rounds = 0;
        while !mover.is_finished() {
            let messages: Vec<_> = (0..24)
                .map(|count| match count % 3 {
                    0 => enveloped(conversation, &[&bob], "own"),
                    _ => shared(conversation, "shared"),
                })
                .collect();
            let answers = pipeline(&mut alices, &messages).await;
            // One that failed is repeated and comes later; the others are in order.
            let seqs: Vec<Seq> = answers.iter().filter_map(|answer| answer.as_ref().ok()).map(|sent| sent.seq).collect();
            assert!(seqs.is_sorted(), "{seqs:?}");
            for (message, answer) in messages.iter().zip(&answers) {
                if let Err(error) = answer {
                    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
                    insist(&mut alices, message).await;
                }
            }
            rounds += 1;
        }
        let log = log(&bob.rest, conversation).await;
        assert_gapless(&log);
        assert_eq!(log.len(), rounds * 24);
    }

    async fn eight_senders_and_one_order(database) {
        const EACH: usize = 30;
        let node = TestNode::start(database).await;
        let mut people = Vec::new();
        for count in 0..8 {
            people.push(register(&node, &format!("sender {count}")).await);
        }
        let others: Vec<&Device> = people.iter().skip(1).collect();
        let conversation = group(&people[0], &others).await;
        let tasks: Vec<_> = people
            .into_iter()
            .map(|person| {
                tokio::spawn(async move {
                    let (mut socket, _) = person.socket().await;
                    let messages: Vec<_> = (0..EACH).map(|_| shared(conversation, "one of many")).collect();
                    let mut ids = BTreeSet::new();
                    for message in &messages {
                        ids.insert(socket.request("send_message", message).await.expect("sent"));
                    }
                    // Own messages are known by their answers, the others' come as events.
                    let (mut seen, mut answered) = (Vec::new(), BTreeMap::new());
                    while seen.len() < 7 * EACH || answered.len() < EACH {
                        let frame = socket.next_frame_within(PATIENCE).await.expect("a frame");
                        if frame.re.is_some_and(|id| ids.contains(&id)) {
                            let sent: Sent = frame.answer().expect("stored");
                            answered.insert(sent.seq, sent.message_id);
                        } else if let Some(sotto_client::protocol::event::Event::NewMessage(message)) =
                            frame.event().expect("an event")
                        {
                            let before = seen.last().map_or(0, |(seq, _)| *seq);
                            assert!(message.seq > before, "{} after {before}", message.seq);
                            // The numbers between are this device's own.
                            assert_eq!(message.after_seq, Some(before), "at {}", message.seq);
                            seen.push((message.seq, message.message_id));
                            if seen.len() % 64 == 0 {
                                socket.ack(frame.n.expect("numbered")).await.expect("sent");
                            }
                        }
                    }
                    let mut all: BTreeMap<Seq, MessageId> = seen.into_iter().collect();
                    all.extend(answered);
                    (person, all)
                })
            })
            .collect();
        let mut orders = Vec::new();
        for task in tasks {
            orders.push(task.await.expect("a sender"));
        }
        let stored = log(&orders[0].0.rest, conversation).await;
        assert_gapless(&stored);
        assert_eq!(stored.len(), 8 * EACH);
        for (_, order) in &orders {
            assert_eq!(order.iter().map(|(seq, id)| (*seq, *id)).collect::<Vec<_>>(), stored);
        }
    }
}

/// Marks that come while a batch fails are written all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_survive_a_batch_that_is_poisoned() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob, conversation) = pair(&node).await;
    let poisoned = group(&alice, &[&bob]).await;
    let own = connect(&node.store_url).await;
    let check = format!("ALTER TABLE messages ADD CONSTRAINT poison CHECK (conversation_id <> '{poisoned}')");
    own.batch_execute(&check).await.unwrap();
    let (mut alices, _) = alice.socket().await;
    let (mut bobs, _) = bob.socket().await;
    for _ in 0..10 {
        let messages = [shared(conversation, "good"), shared(poisoned, "bad")];
        let answers = pipeline(&mut alices, &messages).await;
        assert!(answers[0].is_ok() && answers[1].is_err());
        let (n, _) = next_message(&mut bobs).await;
        // In one batch with another poisoned message, as it may come.
        bobs.request("send_message", &shared(poisoned, "bad")).await.unwrap();
        ack(&mut bobs, n).await;
    }
    next_of(&mut alices, "message_delivered").await;
    let text = format!("SELECT delivered_up_to FROM marks WHERE device_id = '{}'", bob.device_id);
    let marked: i64 = own.query_one(&text, &[]).await.unwrap().get(0);
    assert_eq!(marked, 10);
}
