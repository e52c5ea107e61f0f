//! The client that applications hold: conversations, sending, receiving.

use crate::backoff::Backoff;
use crate::credentials::Credentials;
use crate::crypto::{Me, account};
use crate::error::{Error, Result};
use crate::event::{Event, Message};
use crate::events::Events;
use crate::inbox::readable_row;
use crate::link::Link;
use crate::rest::{HistoryRange, Rest};
use crate::store::{QueuedMessage, Store};
use sotto_protocol::auth::{FoundUser, Me as Account};
use sotto_protocol::conversation::{Conversation, ConversationType, CreateConversation};
use sotto_protocol::event::Event as Durable;
use sotto_protocol::frame::{Activity, PresenceUp, Typing, TypingState};
use sotto_protocol::message::{Kind, Sender, Sent};
use sotto_protocol::{ConversationId, DeviceId, MessageId, Seq, UserId, limits};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;

const MOST_REPEATS: u32 = 4;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server, as `http://127.0.0.1:8080` or `https://chat.example.org`.
    pub server: String,
    /// How long a send is repeated before it is left to the outbox.
    pub send_timeout: Duration,
    /// How many events are kept for a slow reader; messages are never lost to it.
    pub event_capacity: usize,
    /// Name and version of the application, for the server's log.
    pub client_name: Option<String>,
}

impl Options {
    /// The usual behaviour with a server.
    #[must_use]
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into().trim_end_matches('/').to_owned(),
            send_timeout: Duration::from_secs(60),
            event_capacity: 4096,
            client_name: None,
        }
    }
}

/// What a message carries besides its content.
#[derive(Clone, Debug, Default)]
pub struct SendOptions {
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// Seconds until it expires on the server.
    pub expires_in: Option<i64>,
    /// The name to give it; made where there is none.
    pub message_id: Option<MessageId>,
}

/// A signed-in device. Clones share everything; dropping the last one ends the connection.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    /// Held by the application's clones only, not by the library's own tasks.
    guard: Option<Arc<Guard>>,
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) rest: Rest,
    pub(crate) store: Store,
    pub(crate) me: Me,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) link: Link,
    /// One refresh at a time: a refresh token works once.
    pub(crate) renewing: tokio::sync::Mutex<()>,
    pub(crate) maintaining: tokio::sync::Mutex<()>,
    pub(crate) syncing: tokio::sync::Mutex<()>,
    pub(crate) taking: tokio::sync::Mutex<()>,
    /// Of the last message that was told.
    pub(crate) position: AtomicI64,
    /// One send at a time in each conversation keeps its order.
    pub(crate) sending: Mutex<HashMap<ConversationId, Arc<tokio::sync::Mutex<()>>>>,
}

struct Guard(Arc<Inner>);

impl Drop for Guard {
    fn drop(&mut self) {
        // The task closes the socket by itself; nobody waits for it here.
        drop(self.0.link.stop());
    }
}

impl Client {
    /// A client of the device that the store is signed in as.
    pub(crate) async fn begin(options: Options, rest: Rest, store: Store) -> Result<Self> {
        let credentials = store.run(Credentials::load).await?.ok_or(Error::NotSignedIn)?;
        let position = store.run(|tx| tx.last_position()).await?;
        let me = Sender { user_id: credentials.user_id, device_id: credentials.device_id };
        let (events, _) = broadcast::channel(options.event_capacity.max(1));
        let inner = Arc::new(Inner {
            options,
            rest,
            store,
            me,
            events,
            link: Link::new(),
            renewing: tokio::sync::Mutex::default(),
            maintaining: tokio::sync::Mutex::default(),
            syncing: tokio::sync::Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            position: AtomicI64::new(position),
            sending: Mutex::default(),
        });
        let guard = Some(Arc::new(Guard(Arc::clone(&inner))));
        Ok(Self { inner, guard })
    }

    /// A handle for the library's own tasks, which does not keep the connection alive.
    pub(crate) fn unguarded(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), guard: None }
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Event::Message(message) = &event {
            self.inner.position.store(message.position, Ordering::Relaxed);
        }
        // Without a listener there is nobody to be told.
        drop(self.inner.events.send(event));
    }

    /// The account.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.inner.me.user_id
    }

    /// This device.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.inner.me.device_id
    }

    /// The store, for a second client after this one.
    #[must_use]
    pub fn store(&self) -> Store {
        self.inner.store.clone()
    }

    /// A REST client with a valid token, for calls that this one does not wrap.
    ///
    /// # Errors
    /// [`Error::SignedOut`] when the session has ended.
    pub async fn rest(&self) -> Result<Rest> {
        Ok(self.inner.rest.with_token(self.token().await?))
    }

    /// An access token, for tools that speak the protocol themselves.
    ///
    /// # Errors
    /// [`Error::SignedOut`] when the session has ended.
    pub async fn access_token(&self) -> Result<String> {
        self.token().await
    }

    /// The account and the device as the server knows them.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn me(&self) -> Result<Account> {
        self.call(|rest| async move { rest.me().await }).await
    }

    /// Finds accounts by their numbers.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn lookup(&self, phones: &[String]) -> Result<Vec<FoundUser>> {
        self.call(|rest| async move { rest.lookup(phones).await }).await
    }

    /// The direct conversation with a user, made where there is none.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn direct(&self, user: UserId) -> Result<ConversationId> {
        self.direct_id(user).await
    }

    /// Makes a group of this user and others.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn group(&self, name: Option<&str>, members: &[UserId]) -> Result<ConversationId> {
        let request = CreateConversation {
            kind: ConversationType::Group,
            members: members.to_vec(),
            name: name.map(str::to_owned),
        };
        // A repeat after a lost answer must not make a second group.
        let key = uuid::Uuid::new_v4().to_string();
        let (request, key) = (&request, key.as_str());
        let mut backoff = Backoff::new();
        let conversation = loop {
            let created = self.call(|rest| async move { rest.create_conversation(request, Some(key)).await }).await;
            match created {
                Ok((conversation, _)) => break conversation,
                Err(error) if error.is_unknown_outcome() && backoff.failures() < MOST_REPEATS => {
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                Err(error) => return Err(error),
            }
        };
        let id = conversation.conversation_id;
        self.keep_conversation(conversation).await?;
        Ok(id)
    }

    /// Adds members to a group.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn add(&self, conversation: ConversationId, users: &[UserId]) -> Result<()> {
        self.call(|rest| async move { rest.add_members(conversation, users).await }).await?;
        self.inner.store.run(move |tx| tx.outdate_conversation(conversation)).await
    }

    /// Removes members from a group.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn remove(&self, conversation: ConversationId, users: &[UserId]) -> Result<()> {
        self.call(|rest| async move { rest.remove_members(conversation, users).await }).await?;
        self.inner
            .store
            .run(move |tx| {
                tx.forget_outbound_group(conversation)?;
                tx.outdate_conversation(conversation)
            })
            .await
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn leave(&self, conversation: ConversationId) -> Result<()> {
        self.remove(conversation, &[self.user_id()]).await
    }

    /// A conversation with its members, from the store if it is present there.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn conversation(&self, conversation: ConversationId) -> Result<Conversation> {
        let known = self.inner.store.run(move |tx| tx.conversation(conversation)).await?;
        if let Some((conversation, true)) = known {
            return Ok(conversation);
        }
        let conversation = self.call(|rest| async move { rest.whole_conversation(conversation).await }).await?;
        self.keep_conversation(conversation.clone()).await?;
        Ok(conversation)
    }

    /// Reads all conversations anew from the server, newest first, and keeps them. Those of more than 50 members come
    /// without the others; [`Client::conversation`] gives all of one.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn refresh_conversations(&self) -> Result<Vec<Conversation>> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let from = after.as_deref();
            let page = self.call(|rest| async move { rest.conversations(from, Some(200)).await }).await?;
            for conversation in &page.items {
                self.keep_conversation(conversation.clone()).await?;
            }
            all.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// The devices seen of a user with their identity keys. Comparing them by another way (in
    /// person, by phone) proves that nobody stands in between.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn identities(&self, user: UserId) -> Result<Vec<(DeviceId, Vec<u8>)>> {
        self.inner.store.run(move |tx| tx.identities(user)).await
    }

    /// This device's identity key, to be compared with what others see.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn identity_key(&self) -> Result<Vec<u8>> {
        self.inner.store.run(|tx| Ok(account::load(tx)?.curve25519_key().to_vec())).await
    }

    /// Sends a text. Returns when the server has stored it.
    ///
    /// # Errors
    /// [`Error::Undelivered`] when there was no answer within [`Options::send_timeout`]: the message
    /// waits in the outbox and goes out by itself with the next connection, [`Client::sync`] or
    /// [`Client::flush`]. Every other error means that it will not be sent.
    pub async fn send_text(&self, conversation: ConversationId, text: &str) -> Result<Sent> {
        self.send_bytes(conversation, Kind::Text, text.as_bytes().to_vec()).await
    }

    /// Sends bytes of a kind.
    ///
    /// # Errors
    /// As [`Client::send_text`].
    pub async fn send_bytes(&self, conversation: ConversationId, kind: Kind, content: Vec<u8>) -> Result<Sent> {
        self.send_with(conversation, kind, content, SendOptions::default()).await
    }

    /// Sends bytes of a kind as an answer to another message, with an expiry, or under a given name.
    ///
    /// # Errors
    /// As [`Client::send_text`].
    pub async fn send_with(
        &self,
        conversation: ConversationId,
        kind: Kind,
        content: Vec<u8>,
        options: SendOptions,
    ) -> Result<Sent> {
        if content.len() >= limits::MAX_CIPHERTEXT {
            return Err(Error::TooLarge);
        }
        self.send_queued(QueuedMessage {
            message_id: options.message_id.unwrap_or_else(MessageId::ordered),
            conversation_id: conversation,
            kind,
            internal: false,
            content,
            reply_to: options.reply_to,
            expires_in: options.expires_in,
            for_session: None,
        })
        .await
    }

    /// Tells the others that this user writes, or stopped. Never stored; nothing without a connection.
    ///
    /// # Errors
    /// [`Error::Transport`] without a connection.
    pub async fn typing(&self, conversation: ConversationId, state: TypingState) -> Result<()> {
        let typing = Typing { conversation_id: conversation, state, user_id: None, device_id: None };
        let frame = serde_json::to_string(&typing).map_err(Error::protocol)?;
        self.inner.link.tell("typing", frame).await
    }

    /// Tells the server whether this user is active.
    ///
    /// # Errors
    /// [`Error::Transport`] without a connection.
    pub async fn presence(&self, state: Activity) -> Result<()> {
        let frame = serde_json::to_string(&PresenceUp { state }).map_err(Error::protocol)?;
        self.inner.link.tell("presence", frame).await
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.clone(), self.inner.position.load(Ordering::Relaxed), false)
    }

    /// What happens from now on, after the stored messages behind `position`. An application that
    /// keeps the position of the last message it handled goes on exactly there after a restart;
    /// 0 begins with the first message that this store ever got.
    #[must_use]
    pub fn events_since(&self, position: i64) -> Events {
        Events::new(self.clone(), position, true)
    }

    /// The position of the last stored message, to begin a stream with.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn position(&self) -> Result<i64> {
        self.inner.store.run(|tx| tx.last_position()).await
    }

    /// Readable messages of a conversation before a number (0: the last ones), from the store,
    /// ascending, this device's own among them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn history(&self, conversation: ConversationId, before: Seq, limit: u32) -> Result<Vec<Message>> {
        let before = if before == 0 { Seq::MAX } else { before };
        let rows = self.inner.store.run(move |tx| tx.messages_before(conversation, before, i64::from(limit))).await?;
        rows.into_iter().map(readable_row).collect()
    }

    /// Reads a part of a conversation's history from the server into the store; the number of
    /// entries that came. What was encrypted before this device existed stays unreadable.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn backfill(&self, conversation: ConversationId, range: HistoryRange) -> Result<usize> {
        let page = self.call(|rest| async move { rest.history(conversation, range).await }).await?;
        let count = page.items.len();
        self.take(page.items.into_iter().map(Durable::NewMessage).collect()).await?;
        Ok(count)
    }

    /// Catches up by REST, without a socket: stores and acknowledges everything that waits, then
    /// sends what waits here. The number of events.
    ///
    /// # Errors
    /// As the REST calls. What was stored until then is stored.
    pub async fn sync(&self) -> Result<usize> {
        let count = self.catch_up().await?;
        self.flush().await?;
        Ok(count)
    }

    async fn catch_up(&self) -> Result<usize> {
        let _one_at_a_time = self.inner.syncing.lock().await;
        let mut count = 0;
        loop {
            let page = self.call(|rest| async move { rest.sync(None).await }).await?;
            self.note_epoch(page.epoch).await?;
            let came = page.events.len();
            if came == 0 {
                return Ok(count);
            }
            count += came;
            self.take(page.events).await?;
            let cursor = page.cursor.as_str();
            self.call(|rest| async move { rest.sync_ack(cursor).await }).await?;
            if !page.has_more {
                return Ok(count);
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_handle = self.guard.is_some();
        formatter
            .debug_struct("Client")
            .field("user_id", &self.inner.me.user_id)
            .field("device_id", &self.inner.me.device_id)
            .field("handle", &is_handle)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{ATTEMPT, LinkState};
    use crate::sign_in::become_device;
    use sotto_protocol::Timestamp;
    use sotto_protocol::auth::Tokens;

    /// Nobody listens on port 9 of this machine.
    async fn offline() -> Client {
        let store = Store::in_memory().unwrap();
        store.run(account::sign_in_keys).await.unwrap();
        let tokens = Tokens {
            user_id: UserId::random(),
            device_id: DeviceId::random(),
            access_token: "secret".to_owned(),
            refresh_token: "secret".to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: 3600,
            refresh_expires_in: 36000,
        };
        let credentials = Credentials::new(tokens);
        store.run(move |tx| become_device(tx, &credentials)).await.unwrap();
        let mut options = Options::new("http://127.0.0.1:9");
        options.event_capacity = 4;
        options.send_timeout = Duration::from_millis(50);
        Client::open(options, store).await.unwrap()
    }

    async fn arrives(client: &Client, number: i64) {
        let from = Sender { user_id: UserId::random(), device_id: DeviceId::random() };
        let (message_id, conversation_id) = (MessageId::ordered(), ConversationId::ordered());
        let position = client
            .inner
            .store
            .run(move |tx| {
                tx.add_message(&crate::store::NewMessage {
                    message_id,
                    conversation_id,
                    seq: number,
                    kind: Kind::Text,
                    from: Some(from),
                    state: crate::store::MessageState::Readable,
                    content: Some(number.to_string().as_bytes()),
                    reply_to: None,
                    client_seq: None,
                    server_time: Timestamp::now(),
                })
            })
            .await
            .unwrap();
        client.tell(Event::Message(Message {
            position,
            message_id,
            conversation_id,
            seq: number,
            kind: Kind::Text,
            from,
            content: number.to_string().into_bytes(),
            reply_to: None,
            client_seq: None,
            server_time: Timestamp::now(),
        }));
    }

    #[tokio::test]
    async fn a_slow_reader_loses_no_message_and_reads_none_twice() {
        let client = offline().await;
        arrives(&client, 0).await;
        let mut slow = client.events();
        for number in 1..=200 {
            arrives(&client, number).await;
        }
        let mut seen = Vec::new();
        let mut lagged = false;
        while seen.len() < 200 {
            match slow.next().await.unwrap() {
                Event::Message(message) => seen.push(message.seq),
                Event::Lagged { .. } => lagged = true,
                other => panic!("{other:?}"),
            }
        }
        assert!(lagged);
        assert_eq!(seen, (1..=200).collect::<Vec<_>>());
        arrives(&client, 201).await;
        assert_eq!(slow.next_message().await.unwrap().seq, 201);

        let mut again = client.events_since(0);
        arrives(&client, 202).await;
        for number in 0..=202 {
            assert_eq!(again.next_message().await.unwrap().seq, number);
        }
    }

    #[tokio::test]
    async fn without_a_server_a_message_waits_in_the_outbox() {
        let client = offline().await;
        let conversation = ConversationId::ordered();
        let sent = client.send_text(conversation, "later").await;
        assert!(matches!(&sent, Err(Error::Undelivered { cause, .. }) if cause.is_retryable()), "{sent:?}");
        let waiting = client.store().run(move |tx| tx.waiting_in(conversation, i64::MAX)).await.unwrap();
        assert_eq!(waiting.len(), 1);
        assert!(!format!("{client:?}{sent:?}").contains("secret"));
    }

    /// Compiles only while every call may be made from a task of a runtime with many threads.
    #[test]
    fn calls_are_send() {
        fn is_send<T: Send>(_: impl FnOnce(Client) -> T) {}
        let (conversation, user) = (ConversationId::ordered(), UserId::random());
        is_send(move |client| async move { client.send_text(conversation, "").await });
        is_send(move |client| async move { client.group(None, &[user]).await });
        is_send(move |client| async move { client.direct(user).await });
        is_send(move |client| async move { client.add(conversation, &[user]).await });
        is_send(move |client| async move { client.remove(conversation, &[user]).await });
        is_send(move |client| async move { client.mark_read(conversation, 1).await });
        is_send(move |client| async move { client.backfill(conversation, HistoryRange::default()).await });
        is_send(move |client| async move { client.refresh_conversations().await });
        is_send(|client| async move { client.lookup(&[]).await });
        is_send(|client| async move { client.sync().await });
        is_send(|client| async move { client.flush().await });
        is_send(|client| async move { client.maintain_keys().await });
        is_send(|client| async move { client.logout().await });
        is_send(|client| async move { client.disconnect().await });
        is_send(|client| async move { client.events().next().await });
    }

    #[tokio::test]
    async fn a_connection_is_tried_until_it_is_given_up() {
        let client = offline().await;
        let mut events = client.events();
        client.connect();
        for _ in 0..2 {
            let event = events.next().await.unwrap();
            assert!(matches!(event, Event::Disconnected { code: None, retry_in: Some(_) }), "{event:?}");
        }
        assert_eq!(client.link_state(), LinkState::Connecting);
        client.disconnect().await;
        assert_eq!(client.link_state(), LinkState::Off);
        let attempts: Option<i64> = client.store().run(|tx| tx.meta_json(ATTEMPT)).await.unwrap();
        assert!(attempts.unwrap() >= 2, "every attempt is counted and kept");
    }
}
