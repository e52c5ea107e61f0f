//! The client library against real nodes: what an application promises its user holds when the server is killed,
//! drained or away, when the application itself dies, and when members and devices change.

use std::time::Duration;

use sotto_client::event::Message;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::frame::TypingState;
use sotto_client::protocol::{ConversationId, MessageId};
use sotto_client::{Client, Error, Event, Events, LinkState, Options, SignIn, Store};

use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{fresh_phone, info};

const PATIENCE: Duration = Duration::from_secs(30);

/// An application with its user's number.
struct App {
    client: Client,
    events: Events,
    phone: String,
}

impl App {
    async fn register(node: &TestNode, name: &str) -> Self {
        let (phone, store) = (fresh_phone(), Store::in_memory().unwrap());
        let sign_in = sign_in(node, &phone, name, Purpose::Registration).await;
        let client = Client::register(options(node), store, sign_in).await.unwrap();
        Self { events: client.events_since(0), client, phone }
    }

    /// Signs in with a store: an empty one is another device, a used one the same again.
    async fn login(node: &TestNode, phone: &str, name: &str, store: Store) -> Self {
        let sign_in = sign_in(node, phone, name, Purpose::Login).await;
        let client = Client::login(options(node), store, sign_in).await.unwrap();
        Self { events: client.events_since(0), client, phone: phone.to_owned() }
    }

    async fn connect(&self) {
        self.client.connect();
        self.client.connected(PATIENCE).await.unwrap();
    }

    /// The next messages, and nothing that must not happen between them.
    async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let event = tokio::time::timeout(PATIENCE, self.events.next()).await;
            let event = event.unwrap_or_else(|_| panic!("{} of {count} messages came", messages.len())).unwrap();
            match event {
                Event::Message(message) => messages.push(message),
                Event::Gap { .. } | Event::SignedOut | Event::Lagged { .. } => panic!("{event:?}"),
                Event::Undecryptable(message) => {
                    assert_eq!(message.reason, sotto_client::event::Reason::KeyMissing, "{message:?}");
                }
                _ => {}
            }
        }
        messages
    }

    async fn texts(&mut self, count: usize) -> Vec<String> {
        self.messages(count).await.iter().map(|message| message.text().unwrap().to_owned()).collect()
    }

    /// Nothing readable comes for a while.
    async fn nothing_more(&mut self) {
        let more = tokio::time::timeout(Duration::from_millis(700), self.events.next_message()).await;
        assert!(more.is_err(), "{:?}", more.unwrap().unwrap().text());
    }
}

fn options(node: &TestNode) -> Options {
    Options::new(&node.url)
}

async fn sign_in(node: &TestNode, phone: &str, name: &str, purpose: Purpose) -> SignIn {
    let verification = Client::verify(&node.url, phone, purpose).await.unwrap();
    SignIn::new(verification.verification_id, node.code_for(phone), info(name))
}

async fn two(node: &TestNode) -> (App, App, ConversationId) {
    let (alice, bob) = (App::register(node, "alice").await, App::register(node, "bob").await);
    let direct = alice.client.direct(bob.client.user_id()).await.unwrap();
    (alice, bob, direct)
}

/// Sends texts one after the other, and tells the numbers that they got.
fn send_all(app: &App, direct: ConversationId, who: &str, count: usize) -> tokio::task::JoinHandle<Vec<(String, i64)>> {
    let (client, who) = (app.client.clone(), who.to_owned());
    tokio::spawn(async move {
        let mut sent = Vec::new();
        for number in 0..count {
            let text = format!("{who} {number}");
            let answer = client.send_text(direct, &text).await.unwrap();
            sent.push((text, answer.seq));
        }
        sent
    })
}

fn numbered(messages: &[Message]) -> Vec<(String, i64)> {
    messages.iter().map(|message| (message.text().unwrap().to_owned(), message.seq)).collect()
}

on_both! {
    async fn three_kills_under_two_writers_lose_and_double_nothing(database) {
        let mut node = TestNode::start(database).await;
        let (mut alice, mut bob, direct) = two(&node).await;
        alice.connect().await;
        bob.connect().await;
        let writers = [send_all(&alice, direct, "alice", 60), send_all(&bob, direct, "bob", 60)];
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            node.kill();
            tokio::time::sleep(Duration::from_millis(200)).await;
            node.restart().await;
            alice.client.connected(PATIENCE).await.unwrap();
            bob.client.connected(PATIENCE).await.unwrap();
        }
        let [alices, bobs] = writers;
        let (alices, bobs) = (alices.await.unwrap(), bobs.await.unwrap());
        assert_eq!(numbered(&bob.messages(60).await), alices);
        assert_eq!(numbered(&alice.messages(60).await), bobs);
        alice.nothing_more().await;
        bob.nothing_more().await;
        let mut all: Vec<i64> = alices.iter().chain(&bobs).map(|(_, seq)| *seq).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=120).collect::<Vec<_>>(), "each once, without gaps");
        for app in [&alice, &bob] {
            let own = app.client.history(direct, 0, 1000).await.unwrap();
            assert_eq!(own.iter().map(|message| message.seq).collect::<Vec<_>>(), all);
        }
    }

    async fn what_was_written_without_a_server_goes_out_by_itself(database) {
        let mut node = TestNode::start(database).await;
        let (alice, mut bob, direct) = two(&node).await;
        alice.client.send_text(direct, "with a server").await.unwrap();
        let store = alice.client.store();
        drop(alice);
        let impatient = Options { send_timeout: Duration::from_millis(300), ..options(&node) };
        let alice = Client::open(impatient, store).await.unwrap();
        alice.connect();
        alice.connected(PATIENCE).await.unwrap();
        node.kill();
        for text in ["without one", "and one more"] {
            let sent = alice.send_text(direct, text).await;
            assert!(matches!(sent, Err(Error::Undelivered { .. })), "{sent:?}");
        }
        assert_eq!(alice.link_state(), LinkState::Connecting);
        node.restart().await;
        bob.connect().await;
        assert_eq!(bob.texts(3).await, ["with a server", "without one", "and one more"]);
        bob.nothing_more().await;
    }

    async fn an_application_that_dies_in_the_middle_goes_on_where_it_was(database) {
        let node = TestNode::start(database).await;
        let (mut alice, mut bob, direct) = two(&node).await;
        bob.connect().await;
        let mut names = Vec::new();
        for round in 0..4 {
            alice.connect().await;
            let client = alice.client.clone();
            let writer = tokio::spawn(async move {
                for number in 0..20 {
                    let _ = client.send_text(direct, &format!("{round}.{number}")).await;
                }
            });
            tokio::time::sleep(Duration::from_millis(40 + 60 * round)).await;
            // The task goes first, as in a process that dies; what is in the store is all that is left.
            alice.client.abort();
            writer.abort();
            let _ = writer.await;
            let store = alice.client.store();
            let client = Client::open(options(&node), store).await.unwrap();
            alice = App { events: client.events_since(0), client, phone: alice.phone };
            alice.client.sync().await.unwrap();
            names = alice.client.history(direct, 0, 1000).await.unwrap();
        }
        assert!(names.len() > 4, "{} messages were sent before the crashes", names.len());
        assert_eq!(numbered(&bob.messages(names.len()).await), numbered(&names));
        bob.nothing_more().await;
        let known: Vec<MessageId> = names.iter().map(|message| message.message_id).collect();
        let page = alice.client.rest().await.unwrap();
        let page = page.history(direct, sotto_client::rest::HistoryRange { limit: Some(500), ..Default::default() }).await.unwrap();
        assert_eq!(page.items.iter().map(|message| message.message_id).collect::<Vec<_>>(), known);
    }

    async fn a_drained_server_is_left_and_found_again(database) {
        let mut node = TestNode::start(database).await;
        let (alice, mut bob, direct) = two(&node).await;
        alice.connect().await;
        bob.connect().await;
        let writer = send_all(&alice, direct, "alice", 60);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(node.terminate().await, Some(0));
        node.restart().await;
        let sent = writer.await.unwrap();
        assert_eq!(numbered(&bob.messages(60).await), sent);
        bob.nothing_more().await;
    }

    async fn signing_in_again_with_the_same_store_is_the_same_device(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, direct) = two(&node).await;
        bob.client.sync().await.unwrap();
        alice.client.send_text(direct, "before").await.unwrap();
        let (device, phone, store) = (bob.client.device_id(), bob.phone.clone(), bob.client.store());
        drop(bob);
        let mut bob = App::login(&node, &phone, "bob again", store).await;
        assert_eq!(bob.client.device_id(), device);
        alice.client.send_text(direct, "after").await.unwrap();
        bob.connect().await;
        assert_eq!(bob.texts(2).await, ["before", "after"]);
        bob.client.send_text(direct, "here I am").await.unwrap();
        let mut alice = alice;
        alice.client.sync().await.unwrap();
        assert_eq!(alice.texts(1).await, ["here I am"]);
    }

    async fn a_group_goes_on_while_members_and_devices_change(database) {
        let node = TestNode::start(database).await;
        let mut alice = App::register(&node, "alice").await;
        let mut bob = App::register(&node, "bob").await;
        let mut carol = App::register(&node, "carol").await;
        for app in [&alice, &bob, &carol] {
            app.connect().await;
        }
        let (bob_id, carol_id) = (bob.client.user_id(), carol.client.user_id());
        let group = alice.client.group(Some("group"), &[bob_id]).await.unwrap();
        alice.client.send_text(group, "two of us").await.unwrap();
        assert_eq!(bob.texts(1).await, ["two of us"]);

        alice.client.add(group, &[carol_id]).await.unwrap();
        alice.client.send_text(group, "three of us").await.unwrap();
        assert_eq!(bob.texts(1).await, ["three of us"]);
        assert_eq!(carol.texts(1).await, ["three of us"]);
        carol.client.send_text(group, "hello").await.unwrap();
        assert_eq!(alice.texts(1).await, ["hello"]);
        assert_eq!(bob.texts(1).await, ["hello"]);

        // A new device of Bob's gets what comes from now on.
        let mut tablet = App::login(&node, &bob.phone, "tablet", Store::in_memory().unwrap()).await;
        tablet.connect().await;
        alice.client.send_text(group, "to four devices").await.unwrap();
        for app in [&mut bob, &mut carol, &mut tablet] {
            assert_eq!(app.texts(1).await, ["to four devices"]);
        }
        tablet.client.send_text(group, "from the tablet").await.unwrap();
        for app in [&mut alice, &mut bob, &mut carol] {
            assert_eq!(app.texts(1).await, ["from the tablet"]);
        }

        alice.client.remove(group, &[carol_id]).await.unwrap();
        alice.client.send_text(group, "without Carol").await.unwrap();
        assert_eq!(bob.texts(1).await, ["without Carol"]);
        assert_eq!(tablet.texts(1).await, ["without Carol"]);
        carol.nothing_more().await;
        let refused = carol.client.send_text(group, "let me in").await;
        assert!(refused.is_err_and(|error| error.code() == Some(sotto_client::protocol::ErrorCode::Forbidden)));

        tablet.client.logout().await.unwrap();
        bob.client.send_text(group, "the tablet is gone").await.unwrap();
        assert_eq!(alice.texts(1).await, ["the tablet is gone"]);
    }

    async fn typing_is_seen_while_both_are_there(database) {
        let node = TestNode::start(database).await;
        let (alice, mut bob, direct) = two(&node).await;
        alice.connect().await;
        bob.connect().await;
        alice.client.send_text(direct, "hello").await.unwrap();
        bob.texts(1).await;
        bob.client.mark_read(direct, 1).await.unwrap();
        alice.client.typing(direct, TypingState::Started).await.unwrap();
        let typing = async {
            loop {
                if let Event::Typing(typing) = bob.events.next().await.unwrap() {
                    return typing;
                }
            }
        };
        let typing = tokio::time::timeout(PATIENCE, typing).await.unwrap();
        assert_eq!((typing.user_id, typing.state), (Some(alice.client.user_id()), TypingState::Started));
    }
}
