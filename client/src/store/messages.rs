//! Received and sent messages: the device's own copy of its conversations.

use super::schema::messages;
use super::{Tx, id};
use crate::error::{Error, Result};
use diesel::prelude::*;
use sotto_protocol::message::{Kind, Sender};
use sotto_protocol::{ConversationId, DeviceId, MessageId, Seq, Timestamp, UserId};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageState {
    /// The content is readable.
    Readable,
    /// A group's key has not arrived yet; the content is still the ciphertext.
    Waiting,
    /// It cannot be decrypted and never will.
    Undecryptable,
    /// Between the libraries, not for the application.
    Internal,
    /// Written by the server.
    Membership,
    /// There is no ciphertext for this device, or no longer.
    Absent,
}

impl MessageState {
    const ALL: [Self; 6] =
        [Self::Readable, Self::Waiting, Self::Undecryptable, Self::Internal, Self::Membership, Self::Absent];

    const fn number(self) -> i32 {
        match self {
            Self::Readable => 0,
            Self::Waiting => 1,
            Self::Undecryptable => 2,
            Self::Internal => 3,
            Self::Membership => 4,
            Self::Absent => 5,
        }
    }

    fn read(number: i32) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.number() == number)
            .ok_or_else(|| Error::store("unknown message state"))
    }
}

/// A message to be kept.
pub(crate) struct NewMessage<'a> {
    pub(crate) message_id: MessageId,
    pub(crate) conversation_id: ConversationId,
    pub(crate) seq: Seq,
    pub(crate) kind: Kind,
    pub(crate) from: Option<Sender>,
    pub(crate) state: MessageState,
    pub(crate) content: Option<&'a [u8]>,
    pub(crate) reply_to: Option<MessageId>,
    pub(crate) client_seq: Option<i64>,
    pub(crate) server_time: Timestamp,
}

/// A kept message.
pub(crate) struct MessageRow {
    pub(crate) position: i64,
    pub(crate) message_id: MessageId,
    pub(crate) conversation_id: ConversationId,
    pub(crate) seq: Seq,
    pub(crate) kind: Kind,
    pub(crate) from: Option<Sender>,
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) reply_to: Option<MessageId>,
    pub(crate) client_seq: Option<i64>,
    pub(crate) server_time: Timestamp,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = messages)]
struct Row {
    position: i64,
    message_id: String,
    conversation_id: String,
    seq: i64,
    kind: String,
    from_user: Option<String>,
    from_device: Option<String>,
    content: Option<Vec<u8>>,
    reply_to: Option<String>,
    client_seq: Option<i64>,
    server_time: i64,
}

fn context(message: &str, conversation: &str) -> String {
    format!("message {conversation} {message}")
}

impl Tx<'_> {
    /// Keeps a message; its position in the order in which this device could read things.
    pub(crate) fn add_message(&mut self, message: &NewMessage<'_>) -> Result<i64> {
        let name = message.message_id.to_string();
        let conversation = message.conversation_id.to_string();
        let content = message.content.map(|content| self.seal(&context(&name, &conversation), content)).transpose()?;
        let position = diesel::insert_into(messages::table)
            .values((
                messages::message_id.eq(&name),
                messages::conversation_id.eq(&conversation),
                messages::seq.eq(message.seq),
                messages::kind.eq(message.kind.as_str()),
                messages::from_user.eq(message.from.map(|from| from.user_id.to_string())),
                messages::from_device.eq(message.from.map(|from| from.device_id.to_string())),
                messages::state.eq(message.state.number()),
                messages::content.eq(content),
                messages::reply_to.eq(message.reply_to.map(|id| id.to_string())),
                messages::client_seq.eq(message.client_seq),
                messages::server_time.eq(message.server_time.as_micros()),
            ))
            .returning(messages::position)
            .get_result(self.connection)?;
        Ok(position)
    }

    /// What became of a message, and its number, if it is known.
    pub(crate) fn message_state(
        &mut self,
        message: MessageId,
        conversation: ConversationId,
    ) -> Result<Option<(MessageState, Seq)>> {
        let found: Option<(i32, Seq)> = messages::table
            .filter(messages::message_id.eq(message.to_string()))
            .filter(messages::conversation_id.eq(conversation.to_string()))
            .select((messages::state, messages::seq))
            .first(self.connection)
            .optional()?;
        found.map(|(state, seq)| Ok((MessageState::read(state)?, seq))).transpose()
    }

    /// A known message has another number since the server's history went back.
    pub(crate) fn renumber_message(
        &mut self,
        message: MessageId,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<()> {
        diesel::update(
            messages::table
                .filter(messages::message_id.eq(message.to_string()))
                .filter(messages::conversation_id.eq(conversation.to_string())),
        )
        .set(messages::seq.eq(seq))
        .execute(self.connection)?;
        Ok(())
    }

    pub(crate) fn remove_message(&mut self, message: MessageId, conversation: ConversationId) -> Result<()> {
        diesel::delete(
            messages::table
                .filter(messages::message_id.eq(message.to_string()))
                .filter(messages::conversation_id.eq(conversation.to_string())),
        )
        .execute(self.connection)?;
        Ok(())
    }

    /// Messages of a group that wait for a key, in their order.
    pub(crate) fn waiting_messages(&mut self, conversation: ConversationId) -> Result<Vec<MessageRow>> {
        let rows: Vec<Row> = messages::table
            .filter(messages::conversation_id.eq(conversation.to_string()))
            .filter(messages::state.eq(MessageState::Waiting.number()))
            .order(messages::seq)
            .select(Row::as_select())
            .load(self.connection)?;
        self.read_rows(rows)
    }

    /// Readable messages of other devices after a position, in the order in which this device could
    /// read them.
    pub(crate) fn messages_since(&mut self, me: DeviceId, position: i64, limit: i64) -> Result<Vec<MessageRow>> {
        let rows: Vec<Row> = messages::table
            .filter(messages::position.gt(position))
            .filter(messages::from_device.ne(me.to_string()))
            .filter(messages::state.eq(MessageState::Readable.number()))
            .order(messages::position)
            .limit(limit)
            .select(Row::as_select())
            .load(self.connection)?;
        self.read_rows(rows)
    }

    /// The highest position that was ever given.
    pub(crate) fn last_position(&mut self) -> Result<i64> {
        let last: Option<i64> = messages::table.select(diesel::dsl::max(messages::position)).first(self.connection)?;
        Ok(last.unwrap_or(0))
    }

    /// Readable messages of a conversation before a number, the last ones, ascending.
    pub(crate) fn messages_before(
        &mut self,
        conversation: ConversationId,
        seq: Seq,
        limit: i64,
    ) -> Result<Vec<MessageRow>> {
        let mut rows: Vec<Row> = messages::table
            .filter(messages::conversation_id.eq(conversation.to_string()))
            .filter(messages::seq.lt(seq))
            .filter(messages::state.eq(MessageState::Readable.number()))
            .order(messages::seq.desc())
            .limit(limit)
            .select(Row::as_select())
            .load(self.connection)?;
        rows.reverse();
        self.read_rows(rows)
    }

    /// Whether others' messages in (`after`, `up_to`] are waiting for the user to read them.
    pub(crate) fn has_unread(
        &mut self,
        conversation: ConversationId,
        after: Seq,
        up_to: Seq,
        me: UserId,
    ) -> Result<bool> {
        let internal = [MessageState::Internal.number(), MessageState::Membership.number()];
        let found: Option<i64> = messages::table
            .filter(messages::conversation_id.eq(conversation.to_string()))
            .filter(messages::seq.gt(after))
            .filter(messages::seq.le(up_to))
            .filter(messages::state.ne_all(internal))
            .filter(messages::from_user.ne(me.to_string()))
            .select(messages::seq)
            .first(self.connection)
            .optional()?;
        Ok(found.is_some())
    }

    fn read_rows(&mut self, rows: Vec<Row>) -> Result<Vec<MessageRow>> {
        rows.into_iter().map(|row| self.read_row(row)).collect()
    }

    fn read_row(&mut self, row: Row) -> Result<MessageRow> {
        let context = context(&row.message_id, &row.conversation_id);
        let content = row.content.map(|sealed| self.unseal(&context, &sealed).map(|text| text.to_vec())).transpose()?;
        let from = match (row.from_user, row.from_device) {
            (Some(user), Some(device)) => Some(Sender { user_id: id(&user)?, device_id: id(&device)? }),
            _ => None,
        };
        Ok(MessageRow {
            position: row.position,
            message_id: id(&row.message_id)?,
            conversation_id: id(&row.conversation_id)?,
            seq: row.seq,
            kind: Kind::parse(&row.kind).ok_or_else(|| Error::store("unknown kind"))?,
            from,
            content,
            reply_to: row.reply_to.map(|text| id(&text)).transpose()?,
            client_seq: row.client_seq,
            server_time: Timestamp::from_micros(row.server_time),
        })
    }
}
