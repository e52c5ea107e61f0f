//! Conversations as last seen, and this device's own counters in them.

use super::schema::{conversations, marks};
use super::{Tx, id};
use crate::error::{Error, Result};
use diesel::prelude::*;
use sotto_protocol::conversation::{Conversation, ConversationType};
use sotto_protocol::{ConversationId, Seq, UserId};

fn context(conversation: &str) -> String {
    format!("conversation {conversation}")
}

impl Tx<'_> {
    /// A conversation as last seen, and whether nothing is known to have changed since.
    pub(crate) fn conversation(&mut self, conversation: ConversationId) -> Result<Option<(Conversation, bool)>> {
        let name = conversation.to_string();
        let row: Option<(Vec<u8>, bool)> = conversations::table
            .find(&name)
            .select((conversations::content, conversations::fresh))
            .first(self.connection)
            .optional()?;
        row.map(|(sealed, fresh)| {
            let text = self.unseal(&context(&name), &sealed)?;
            Ok((serde_json::from_slice(&text).map_err(Error::store)?, fresh))
        })
        .transpose()
    }

    /// Keeps a conversation as the server shows it to `me`. One that does not name all of its members is to be fetched
    /// before the next message there.
    pub(crate) fn put_conversation(&mut self, conversation: &Conversation, me: UserId) -> Result<()> {
        let name = conversation.conversation_id.to_string();
        let other = match conversation.kind {
            ConversationType::Direct => {
                conversation.members.iter().map(|member| member.user_id).find(|user| *user != me)
            }
            ConversationType::Group => None,
        };
        let text = serde_json::to_vec(conversation).map_err(Error::store)?;
        let sealed = self.seal(&context(&name), &text)?;
        diesel::replace_into(conversations::table)
            .values((
                conversations::conversation_id.eq(&name),
                conversations::other_user.eq(other.map(|user| user.to_string())),
                conversations::content.eq(sealed),
                conversations::fresh.eq(conversation.has_all_members()),
            ))
            .execute(self.connection)?;
        self.raise_read_mark(conversation.conversation_id, conversation.read_up_to)
    }

    /// Members or roles changed: to be fetched before the next message there.
    pub(crate) fn outdate_conversation(&mut self, conversation: ConversationId) -> Result<()> {
        diesel::update(conversations::table.find(conversation.to_string()))
            .set(conversations::fresh.eq(false))
            .execute(self.connection)?;
        Ok(())
    }

    /// The history went back: everything is to be fetched again.
    pub(crate) fn outdate_all_conversations(&mut self) -> Result<()> {
        diesel::update(conversations::table).set(conversations::fresh.eq(false)).execute(self.connection)?;
        Ok(())
    }

    /// The direct conversation with a user.
    pub(crate) fn direct_conversation(&mut self, user: UserId) -> Result<Option<ConversationId>> {
        let found: Option<String> = conversations::table
            .filter(conversations::other_user.eq(user.to_string()))
            .select(conversations::conversation_id)
            .first(self.connection)
            .optional()?;
        found.map(|text| id(&text)).transpose()
    }

    /// How far the user has read.
    pub(crate) fn read_mark(&mut self, conversation: ConversationId) -> Result<Seq> {
        let found: Option<Seq> =
            marks::table.find(conversation.to_string()).select(marks::read_up_to).first(self.connection).optional()?;
        Ok(found.unwrap_or(0))
    }

    /// Raises how far the user has read; it never falls.
    pub(crate) fn raise_read_mark(&mut self, conversation: ConversationId, up_to: Seq) -> Result<()> {
        self.touch_marks(conversation)?;
        diesel::update(marks::table.find(conversation.to_string()).filter(marks::read_up_to.lt(up_to)))
            .set(marks::read_up_to.eq(up_to))
            .execute(self.connection)?;
        Ok(())
    }

    /// The next number of this device's own count in a conversation.
    pub(crate) fn next_client_seq(&mut self, conversation: ConversationId) -> Result<i64> {
        self.touch_marks(conversation)?;
        let next = diesel::update(marks::table.find(conversation.to_string()))
            .set(marks::client_seq.eq(marks::client_seq + 1))
            .returning(marks::client_seq)
            .get_result(self.connection)?;
        Ok(next)
    }

    fn touch_marks(&mut self, conversation: ConversationId) -> Result<()> {
        diesel::insert_or_ignore_into(marks::table)
            .values((
                marks::conversation_id.eq(conversation.to_string()),
                marks::read_up_to.eq(0_i64),
                marks::client_seq.eq(0_i64),
            ))
            .execute(self.connection)?;
        Ok(())
    }

    /// This device has got a new id: its counts begin again.
    pub(crate) fn restart_client_seqs(&mut self) -> Result<()> {
        diesel::update(marks::table).set(marks::client_seq.eq(0_i64)).execute(self.connection)?;
        Ok(())
    }
}
