//! Sending: encrypt once, keep the bytes, repeat them until the server answers.

use crate::backoff::Backoff;
use crate::client::Client;
use crate::crypto::pairwise::Targets;
use crate::crypto::{group, pairwise};
use crate::error::{Error, Result};
use crate::link::LinkState;
use crate::store::{MessageState, NewMessage, OutboxRow, OutboxState, QueuedMessage, Tx};
use sotto_protocol::conversation::{Conversation, ConversationType};
use sotto_protocol::message::{DeviceRef, Envelope, OutgoingMessage, Sent};
use sotto_protocol::{Binary, ConversationId, DeviceId, ErrorCode, MessageId, Problem, UserId, limits};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A frame has room for a little more than the message; larger requests go by REST.
const LARGEST_BY_SOCKET: usize = limits::MAX_FRAME - 1024;
/// How often one message is encrypted anew because device lists changed under it.
const MOST_REFUSALS: u32 = 8;
/// How often device lists and sessions are fetched for one encryption.
const MOST_STEPS: u32 = 16;
/// How long a send waits for a socket that is just being opened before it goes by REST.
const PATIENCE: Duration = Duration::from_secs(2);

enum Step {
    List { user: UserId, known: bool },
    Sessions(BTreeMap<UserId, Vec<DeviceId>>),
    Done(String),
}

impl Client {
    /// Keeps a message in the outbox and sends it; what waits in the same conversation goes first.
    pub(crate) async fn send_queued(&self, message: QueuedMessage) -> Result<Sent> {
        let (message_id, conversation) = (message.message_id, message.conversation_id);
        self.inner.store.run(move |tx| tx.queue(&message)).await?;
        self.send_up_to(conversation, message_id).await
    }

    /// Sends everything that waits, in its order within each conversation.
    ///
    /// # Errors
    /// The first failure, after every conversation was tried.
    pub async fn flush(&self) -> Result<()> {
        let mut first_failure = None;
        self.inner.store.run(|tx| tx.prune_outbox()).await?;
        for conversation in self.inner.store.run(|tx| tx.waiting_conversations()).await? {
            let waiting = self.inner.store.run(move |tx| tx.waiting_in(conversation, i64::MAX)).await?;
            if let Some(last) = waiting.last()
                && let Err(error) = self.send_up_to(conversation, *last).await
            {
                first_failure.get_or_insert(error);
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    /// Boxed, because a group's message sends its key through direct conversations first.
    fn send_up_to(
        &self,
        conversation: ConversationId,
        message: MessageId,
    ) -> Pin<Box<dyn Future<Output = Result<Sent>> + Send + '_>> {
        Box::pin(async move {
            let lock = self.lock_of(conversation);
            let _in_order = lock.lock().await;
            let row = self.row(message).await?;
            let waiting = self.inner.store.run(move |tx| tx.waiting_in(conversation, row.position)).await?;
            for earlier in waiting.into_iter().filter(|earlier| *earlier != message) {
                match self.deliver(earlier).await {
                    Err(error @ Error::Undelivered { .. }) => {
                        return Err(Error::Undelivered { message_id: message, cause: Box::new(error) });
                    }
                    Err(error @ Error::Store(_)) => return Err(error),
                    // What the server refused was told to whoever sent it, or is told in the log.
                    Err(error) => tracing::info!(message = %earlier, %error, "a message was refused"),
                    Ok(_) => {}
                }
            }
            self.deliver(message).await
        })
    }

    fn lock_of(&self, conversation: ConversationId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.inner.sending.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody holds or waits for a lock that only the map knows.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(conversation).or_default())
    }

    async fn row(&self, message: MessageId) -> Result<OutboxRow> {
        self.inner
            .store
            .run(move |tx| tx.outbox_row(message))
            .await?
            .ok_or_else(|| Error::Usage("this message is not in the outbox".to_owned()))
    }

    /// Until the server has answered, or until patience ends; then it stays in the outbox.
    async fn deliver(&self, message: MessageId) -> Result<Sent> {
        let deadline = Instant::now() + self.inner.options.send_timeout;
        let mut backoff = Backoff::new();
        let mut refusals = 0;
        loop {
            let row = self.row(message).await?;
            match (row.state, row.sent.clone()) {
                (OutboxState::Sent, Some(sent)) => return Ok(sent),
                (OutboxState::Refused, _) => {
                    return Err(Error::Usage("the server has refused this message".to_owned()));
                }
                _ => {}
            }
            let error = match self.try_once(&row).await {
                Ok(sent) => return self.sent(row, sent).await,
                Err(error) => error,
            };
            let mismatch = matches!(error.code(), Some(ErrorCode::DeviceListMismatch | ErrorCode::DeviceStale));
            if mismatch && refusals < MOST_REFUSALS {
                refusals += 1;
                self.encrypt_anew(row, error).await?;
                continue;
            }
            if !error.is_retryable() {
                return Err(self.give_up(row, error).await?);
            }
            let asked = error.problem().and_then(|problem| problem.retry_after_ms).map(Duration::from_millis);
            let wait = asked.unwrap_or_default().max(backoff.next_wait());
            if Instant::now() + wait > deadline {
                return Err(Error::Undelivered { message_id: message, cause: Box::new(error) });
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn try_once(&self, row: &OutboxRow) -> Result<Sent> {
        let request = match &row.request {
            Some(request) => request.clone(),
            None => self.encrypt(row).await?,
        };
        self.transmit(request).await
    }

    /// By the socket if there is one, by REST otherwise.
    async fn transmit(&self, request: String) -> Result<Sent> {
        if request.len() <= LARGEST_BY_SOCKET && self.inner.link.is_up_within(PATIENCE).await {
            return self.inner.link.request("send_message", request).await;
        }
        let request = &request;
        self.call(|rest| async move { rest.send_message_text(request.clone()).await }).await
    }

    async fn sent(&self, row: OutboxRow, sent: Sent) -> Result<Sent> {
        let me = self.inner.me;
        self.inner
            .store
            .run(move |tx| {
                tx.set_sent(&sent)?;
                let message = &row.message;
                if message.internal {
                    return Ok(sent);
                }
                if tx.message_state(message.message_id, message.conversation_id)?.is_some() {
                    tx.renumber_message(message.message_id, message.conversation_id, sent.seq)?;
                    return Ok(sent);
                }
                tx.add_message(&NewMessage {
                    message_id: message.message_id,
                    conversation_id: message.conversation_id,
                    seq: sent.seq,
                    kind: message.kind,
                    from: Some(me),
                    state: MessageState::Readable,
                    content: Some(&message.content),
                    reply_to: message.reply_to,
                    client_seq: Some(row.client_seq),
                    server_time: sent.server_time,
                })?;
                Ok(sent)
            })
            .await
    }

    /// The server has refused and changed nothing: the same message may get other bytes.
    async fn encrypt_anew(&self, row: OutboxRow, error: Error) -> Result<()> {
        let message = row.message;
        let named = error.problem().map(named_devices).unwrap_or_default();
        self.inner
            .store
            .run(move |tx| {
                tx.set_request(message.message_id, None)?;
                tx.outdate_conversation(message.conversation_id)?;
                for device in &named.stale {
                    tx.break_sessions(message.conversation_id, device.device_id)?;
                }
                for user in named.users() {
                    tx.forget_device_list(user)?;
                }
                Ok(())
            })
            .await
    }

    /// What becomes of a message after a failure that a repeat does not heal.
    async fn give_up(&self, row: OutboxRow, error: Error) -> Result<Error> {
        let message = row.message.message_id;
        if row.message.internal && error.code() == Some(ErrorCode::Blocked) {
            // The receiver has not looked yet. The group's next message tries again.
            return Ok(error);
        }
        let is_final = match &error {
            // Another session of this device can still send it.
            Error::Problem(problem) => problem.code != ErrorCode::Unauthenticated,
            Error::TooLarge
            | Error::NoCommonSuite(_)
            | Error::IdentityChanged { .. }
            | Error::IdentityForged { .. }
            | Error::Crypto(_) => true,
            _ => false,
        };
        if !is_final {
            return Ok(Error::Undelivered { message_id: message, cause: Box::new(error) });
        }
        self.inner.store.run(move |tx| tx.set_refused(message)).await?;
        Ok(error)
    }

    /// Makes the bytes of a message and keeps them together with the ratchets that made them.
    async fn encrypt(&self, row: &OutboxRow) -> Result<String> {
        let conversation = self.present_conversation(row.message.conversation_id).await?;
        let others: Vec<UserId> = conversation
            .members
            .iter()
            .map(|member| member.user_id)
            .filter(|user| *user != self.inner.me.user_id)
            .collect();
        if conversation.kind == ConversationType::Direct || others.is_empty() {
            return self.encrypt_pairwise(row, &others).await;
        }
        self.share_group_session(&conversation, &others).await?;
        let (me, row) = (self.inner.me, row.clone());
        self.inner
            .store
            .run(move |tx| {
                let (ciphertext, roster) = group::encrypt(tx, me, &row.message)?;
                keep_request(tx, &row, Some(ciphertext), None, Some(roster))
            })
            .await
    }

    async fn encrypt_pairwise(&self, row: &OutboxRow, others: &[UserId]) -> Result<String> {
        let me = self.inner.me;
        let mut users = others.to_vec();
        users.push(me.user_id);
        for _ in 0..MOST_STEPS {
            let (row, users) = (row.clone(), users.clone());
            let conversation = row.message.conversation_id;
            match self.inner.store.run(move |tx| next_step(tx, me, &row, &users)).await? {
                Step::Done(request) => return Ok(request),
                Step::List { user, known } => self.fetch_list(conversation, user, known).await?,
                Step::Sessions(missing) => {
                    for (user, devices) in missing {
                        self.begin_sessions(conversation, user, &devices).await?;
                    }
                }
            }
        }
        Err(Problem::unavailable("the devices of the members do not settle").into())
    }

    /// A user never met: everything in one request. Otherwise the list alone, so that no keys are
    /// used up of devices with which there is a session.
    async fn fetch_list(&self, conversation: ConversationId, user: UserId, known: bool) -> Result<()> {
        let keys = if known {
            self.call(|rest| async move { rest.devices(user).await }).await?
        } else {
            self.call(|rest| async move { rest.claim_keys(user, &[]).await }).await?
        };
        self.inner
            .store
            .run(move |tx| {
                tx.put_device_list(user, &keys.devices)?;
                if !known {
                    for bundle in &keys.devices {
                        pairwise::start_session(tx, conversation, user, bundle)?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn begin_sessions(&self, conversation: ConversationId, user: UserId, devices: &[DeviceId]) -> Result<()> {
        let wanted = devices.to_vec();
        let keys = self.call(|rest| async move { rest.claim_keys(user, devices).await }).await?;
        self.inner
            .store
            .run(move |tx| {
                let gone = wanted.iter().any(|device| !keys.devices.iter().any(|bundle| bundle.device_id == *device));
                if gone {
                    tx.forget_device_list(user)?;
                }
                for bundle in keys.devices.iter().filter(|bundle| wanted.contains(&bundle.device_id)) {
                    pairwise::start_session(tx, conversation, user, bundle)?;
                }
                Ok(())
            })
            .await
    }

    /// A group session that every device of the present list has the key of. The list's version was
    /// read before the keys went out, and the server compares both lists with what it knows: a
    /// device that comes in between makes the group's message a mismatch.
    async fn share_group_session(&self, conversation: &Conversation, others: &[UserId]) -> Result<()> {
        let (group_id, roster) = (conversation.conversation_id, conversation.roster.clone());
        let present = self
            .inner
            .store
            .run(move |tx| Ok(tx.outbound_group(group_id)?.filter(|present| group::is_current(present, &roster))))
            .await?;
        let session_id = match present {
            Some(present) => present.session.session_id(),
            None => self.begin_group_session(conversation, others).await?,
        };
        let unsent = self.inner.store.run(move |tx| tx.unsent_for_session(&session_id)).await?;
        for (message, direct) in unsent {
            match self.send_up_to(direct, message).await {
                Ok(_) => {}
                Err(Error::Undelivered { cause, .. }) => return Err(*cause),
                Err(error @ Error::Store(_)) => return Err(error),
                // One member who cannot be told must not silence the group.
                Err(error) => tracing::info!(%error, group = %group_id, "a member could not be told the group's key"),
            }
        }
        Ok(())
    }

    async fn begin_group_session(&self, conversation: &Conversation, others: &[UserId]) -> Result<String> {
        let mut members = Vec::with_capacity(others.len());
        for user in others {
            match self.direct_id(*user).await {
                Ok(direct) => members.push((*user, direct)),
                Err(error)
                    if matches!(
                        error.code(),
                        Some(ErrorCode::NotFound | ErrorCode::Forbidden | ErrorCode::Blocked)
                    ) =>
                {
                    tracing::info!(%user, "no direct conversation with a member, so no key");
                }
                Err(error) => return Err(error),
            }
        }
        let (group_id, roster) = (conversation.conversation_id, conversation.roster.clone());
        self.inner
            .store
            .run(move |tx| {
                group::rotate(tx, group_id, &roster, &members)?;
                let group = tx.outbound_group(group_id)?.ok_or_else(|| Error::store("no group session"))?;
                Ok(group.session.session_id())
            })
            .await
    }

    /// The direct conversation with a user, made where there is none.
    pub(crate) async fn direct_id(&self, user: UserId) -> Result<ConversationId> {
        if let Some(known) = self.inner.store.run(move |tx| tx.direct_conversation(user)).await? {
            return Ok(known);
        }
        let conversation = self.call(|rest| async move { rest.create_direct(user).await }).await?;
        let id = conversation.conversation_id;
        self.keep_conversation(conversation).await?;
        Ok(id)
    }

    /// A conversation that is not known to be outdated. A direct one has the same two members for ever.
    pub(crate) async fn present_conversation(&self, id: ConversationId) -> Result<Conversation> {
        if let Some((conversation, fresh)) = self.inner.store.run(move |tx| tx.conversation(id)).await?
            && (fresh || conversation.kind == ConversationType::Direct)
        {
            return Ok(conversation);
        }
        let conversation = self.call(|rest| async move { rest.whole_conversation(id).await }).await?;
        self.keep_conversation(conversation.clone()).await?;
        Ok(conversation)
    }

    pub(crate) async fn keep_conversation(&self, conversation: Conversation) -> Result<()> {
        let me = self.inner.me.user_id;
        self.inner.store.run(move |tx| tx.put_conversation(&conversation, me)).await
    }

    /// Whether sending by the socket is possible now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.link.state() == LinkState::Up
    }
}

fn next_step(tx: &mut Tx<'_>, me: crate::crypto::Me, row: &OutboxRow, users: &[UserId]) -> Result<Step> {
    let targets: Targets = match pairwise::targets(tx, me, users)? {
        Ok(targets) => targets,
        Err(user) => return Ok(Step::List { user, known: !tx.identities(user)?.is_empty() }),
    };
    let mut missing: BTreeMap<UserId, Vec<DeviceId>> = BTreeMap::new();
    for (user, device) in pairwise::without_session(tx, row.message.conversation_id, &targets)? {
        missing.entry(user).or_default().push(device);
    }
    if !missing.is_empty() {
        return Ok(Step::Sessions(missing));
    }
    let envelopes = pairwise::encrypt(tx, me, &row.message, &targets)?;
    keep_request(tx, row, None, Some(envelopes), None).map(Step::Done)
}

fn keep_request(
    tx: &mut Tx<'_>,
    row: &OutboxRow,
    ciphertext: Option<Vec<u8>>,
    envelopes: Option<Vec<Envelope>>,
    roster: Option<String>,
) -> Result<String> {
    let too_large = |bytes: &Binary| bytes.len() > limits::MAX_CIPHERTEXT;
    let ciphertext = ciphertext.map(Binary);
    let largest = envelopes.iter().flatten().map(|envelope| &envelope.ciphertext).chain(&ciphertext).any(too_large);
    let message = &row.message;
    let request = serde_json::to_string(&OutgoingMessage {
        message_id: message.message_id,
        conversation_id: message.conversation_id,
        kind: message.kind,
        ciphertext,
        envelopes,
        reply_to: message.reply_to,
        expires_in: message.expires_in,
        client_seq: Some(row.client_seq),
        roster,
    })
    .map_err(Error::protocol)?;
    if largest || request.len() > limits::MAX_BODY_LARGE {
        return Err(Error::TooLarge);
    }
    tx.set_request(message.message_id, Some(&request))?;
    Ok(request)
}

#[derive(Default)]
struct Named {
    all: Vec<DeviceRef>,
    stale: Vec<DeviceRef>,
}

impl Named {
    fn users(&self) -> Vec<UserId> {
        let mut users: Vec<UserId> = self.all.iter().map(|device| device.user_id).collect();
        users.sort_unstable();
        users.dedup();
        users
    }
}

/// The devices that a refusal names.
fn named_devices(problem: &Problem) -> Named {
    let list = |name: &str| -> Vec<DeviceRef> {
        problem.more.get(name).and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
    };
    let stale = list("stale");
    let all = [list("missing"), list("extra"), stale.clone()].concat();
    Named { all, stale }
}
