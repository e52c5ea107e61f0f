//! What this device sends: kept before the first attempt, with the very bytes once they are made.

use super::schema::outbox;
use super::{Tx, id};
use crate::error::{Error, Result};
use diesel::prelude::*;
use sotto_protocol::message::{Kind, Sent};
use sotto_protocol::{ConversationId, MessageId, Timestamp};
use std::time::Duration;

/// How long a sent message is kept, to be sent again after a restore of the server.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// How far an outgoing message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutboxState {
    /// Not answered yet; encrypted if there is a request.
    Waiting,
    /// The server has stored it.
    Sent,
    /// The server refused it for good.
    Refused,
}

impl OutboxState {
    const fn number(self) -> i32 {
        match self {
            Self::Waiting => 0,
            Self::Sent => 1,
            Self::Refused => 2,
        }
    }

    fn read(number: i32) -> Result<Self> {
        [Self::Waiting, Self::Sent, Self::Refused]
            .into_iter()
            .find(|state| state.number() == number)
            .ok_or_else(|| Error::store("unknown outbox state"))
    }
}

/// A message to be sent.
#[derive(Clone)]
pub(crate) struct QueuedMessage {
    pub(crate) message_id: MessageId,
    pub(crate) conversation_id: ConversationId,
    pub(crate) kind: Kind,
    /// Made by the library for other libraries.
    pub(crate) internal: bool,
    pub(crate) content: Vec<u8>,
    pub(crate) reply_to: Option<MessageId>,
    pub(crate) expires_in: Option<i64>,
    /// The group session whose key this message carries.
    pub(crate) for_session: Option<String>,
}

/// A message of the outbox.
#[derive(Clone)]
pub(crate) struct OutboxRow {
    pub(crate) position: i64,
    pub(crate) message: QueuedMessage,
    pub(crate) client_seq: i64,
    /// The JSON that is sent, byte for byte the same at every repeat.
    pub(crate) request: Option<String>,
    pub(crate) state: OutboxState,
    pub(crate) sent: Option<Sent>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = outbox)]
struct Row {
    position: i64,
    message_id: String,
    conversation_id: String,
    kind: String,
    internal: bool,
    content: Vec<u8>,
    reply_to: Option<String>,
    expires_in: Option<i64>,
    client_seq: i64,
    request: Option<String>,
    state: i32,
    for_session: Option<String>,
    seq: Option<i64>,
    server_time: Option<i64>,
}

fn context(message: &str) -> String {
    format!("outbox {message}")
}

impl Tx<'_> {
    /// Puts a message into the outbox. One of that name that is there already stays as it is: an
    /// application that does not know whether it sent something says it again.
    pub(crate) fn queue(&mut self, message: &QueuedMessage) -> Result<i64> {
        let name = message.message_id.to_string();
        let known: Option<i64> = outbox::table
            .filter(outbox::message_id.eq(&name))
            .select(outbox::position)
            .first(self.connection)
            .optional()?;
        if let Some(position) = known {
            return Ok(position);
        }
        let client_seq = self.next_client_seq(message.conversation_id)?;
        let content = self.seal(&context(&name), &message.content)?;
        let position = diesel::insert_into(outbox::table)
            .values((
                outbox::message_id.eq(&name),
                outbox::conversation_id.eq(message.conversation_id.to_string()),
                outbox::kind.eq(message.kind.as_str()),
                outbox::internal.eq(message.internal),
                outbox::content.eq(content),
                outbox::reply_to.eq(message.reply_to.map(|id| id.to_string())),
                outbox::expires_in.eq(message.expires_in),
                outbox::client_seq.eq(client_seq),
                outbox::state.eq(OutboxState::Waiting.number()),
                outbox::for_session.eq(&message.for_session),
                outbox::created_at.eq(Timestamp::now().as_micros()),
            ))
            .returning(outbox::position)
            .get_result(self.connection)?;
        Ok(position)
    }

    pub(crate) fn outbox_row(&mut self, message: MessageId) -> Result<Option<OutboxRow>> {
        let row: Option<Row> = outbox::table
            .filter(outbox::message_id.eq(message.to_string()))
            .select(Row::as_select())
            .first(self.connection)
            .optional()?;
        row.map(|row| self.read_outbox(row)).transpose()
    }

    /// The unanswered messages of a conversation up to a position, oldest first.
    pub(crate) fn waiting_in(&mut self, conversation: ConversationId, up_to: i64) -> Result<Vec<MessageId>> {
        let rows: Vec<String> = outbox::table
            .filter(outbox::state.eq(OutboxState::Waiting.number()))
            .filter(outbox::conversation_id.eq(conversation.to_string()))
            .filter(outbox::position.le(up_to))
            .order(outbox::position)
            .select(outbox::message_id)
            .load(self.connection)?;
        rows.iter().map(|text| id(text)).collect()
    }

    /// The conversations with unanswered messages, the one with the oldest first.
    pub(crate) fn waiting_conversations(&mut self) -> Result<Vec<ConversationId>> {
        let rows: Vec<String> = outbox::table
            .filter(outbox::state.eq(OutboxState::Waiting.number()))
            .order(outbox::position)
            .select(outbox::conversation_id)
            .load(self.connection)?;
        let mut found: Vec<ConversationId> = Vec::new();
        for text in &rows {
            let conversation = id(text)?;
            if !found.contains(&conversation) {
                found.push(conversation);
            }
        }
        Ok(found)
    }

    /// The messages that carry a group session's key and have not been stored by the server.
    pub(crate) fn unsent_for_session(&mut self, session: &str) -> Result<Vec<(MessageId, ConversationId)>> {
        let rows: Vec<(String, String)> = outbox::table
            .filter(outbox::for_session.eq(session))
            .filter(outbox::state.eq(OutboxState::Waiting.number()))
            .order(outbox::position)
            .select((outbox::message_id, outbox::conversation_id))
            .load(self.connection)?;
        rows.iter().map(|(message, conversation)| Ok((id(message)?, id(conversation)?))).collect()
    }

    /// Keeps the bytes that are going to be sent, or drops them for new ones.
    pub(crate) fn set_request(&mut self, message: MessageId, request: Option<&str>) -> Result<()> {
        diesel::update(outbox::table.filter(outbox::message_id.eq(message.to_string())))
            .set(outbox::request.eq(request))
            .execute(self.connection)?;
        Ok(())
    }

    pub(crate) fn set_sent(&mut self, sent: &Sent) -> Result<()> {
        diesel::update(outbox::table.filter(outbox::message_id.eq(sent.message_id.to_string())))
            .set((
                outbox::state.eq(OutboxState::Sent.number()),
                outbox::seq.eq(sent.seq),
                outbox::server_time.eq(sent.server_time.as_micros()),
            ))
            .execute(self.connection)?;
        Ok(())
    }

    pub(crate) fn set_refused(&mut self, message: MessageId) -> Result<()> {
        diesel::update(outbox::table.filter(outbox::message_id.eq(message.to_string())))
            .set(outbox::state.eq(OutboxState::Refused.number()))
            .execute(self.connection)?;
        Ok(())
    }

    /// The server's history went back: what it stored within the last day is sent again, also what had waited here
    /// for longer before.
    pub(crate) fn reopen_outbox(&mut self) -> Result<usize> {
        let since = Timestamp::now().minus(KEPT_FOR).as_micros();
        let is_recent = outbox::created_at
            .gt(since)
            .or(outbox::server_time.is_not_null().and(outbox::server_time.assume_not_null().gt(since)));
        let count =
            diesel::update(outbox::table.filter(outbox::state.eq(OutboxState::Sent.number())).filter(is_recent))
                .set(outbox::state.eq(OutboxState::Waiting.number()))
                .execute(self.connection)?;
        Ok(count)
    }

    /// Forgets what was answered more than a day ago.
    pub(crate) fn prune_outbox(&mut self) -> Result<()> {
        let before = Timestamp::now().minus(KEPT_FOR).as_micros();
        let is_old = outbox::created_at
            .le(before)
            .and(outbox::server_time.is_null().or(outbox::server_time.assume_not_null().le(before)));
        diesel::delete(outbox::table.filter(outbox::state.ne(OutboxState::Waiting.number())).filter(is_old))
            .execute(self.connection)?;
        Ok(())
    }

    /// This device has got a new id: ciphertexts made under the old one are of no use.
    pub(crate) fn forget_requests(&mut self) -> Result<()> {
        diesel::update(outbox::table).set(outbox::request.eq(None::<String>)).execute(self.connection)?;
        Ok(())
    }

    fn read_outbox(&mut self, row: Row) -> Result<OutboxRow> {
        let content = self.unseal(&context(&row.message_id), &row.content)?.to_vec();
        let message_id = id(&row.message_id)?;
        let conversation_id = id(&row.conversation_id)?;
        let sent = match (row.seq, row.server_time) {
            (Some(seq), Some(server_time)) => Some(Sent {
                message_id,
                conversation_id,
                seq,
                server_time: Timestamp::from_micros(server_time),
                duplicate: false,
            }),
            _ => None,
        };
        Ok(OutboxRow {
            position: row.position,
            message: QueuedMessage {
                message_id,
                conversation_id,
                kind: Kind::parse(&row.kind).ok_or_else(|| Error::store("unknown kind"))?,
                internal: row.internal,
                content,
                reply_to: row.reply_to.map(|text| id(&text)).transpose()?,
                expires_in: row.expires_in,
                for_session: row.for_session,
            },
            client_seq: row.client_seq,
            request: row.request,
            state: OutboxState::read(row.state)?,
            sent,
        })
    }
}
