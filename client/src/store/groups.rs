//! Megolm sessions of groups: the one this device sends with, and those of other devices.

use super::Tx;
use super::schema::{group_inbound, group_indices, group_outbound};
use crate::error::{Error, Result};
use diesel::prelude::*;
use sotto_protocol::{ConversationId, DeviceId, MessageId, Timestamp};
use vodozemac::megolm::{GroupSession, GroupSessionPickle, InboundGroupSession, InboundGroupSessionPickle};
use zeroize::Zeroizing;

/// The session that this device sends with in a group.
pub(crate) struct OutboundGroup {
    pub(crate) session: GroupSession,
    /// The device list's version it was shared with.
    pub(crate) roster: String,
    pub(crate) made_at: Timestamp,
}

fn outbound_context(conversation: &str) -> String {
    format!("group out {conversation}")
}

fn inbound_context(conversation: &str, session: &str, device: &str) -> String {
    format!("group in {conversation} {session} {device}")
}

impl Tx<'_> {
    pub(crate) fn outbound_group(&mut self, conversation: ConversationId) -> Result<Option<OutboundGroup>> {
        let name = conversation.to_string();
        let row: Option<(String, Vec<u8>, i64)> = group_outbound::table
            .find(&name)
            .select((group_outbound::roster, group_outbound::pickle, group_outbound::made_at))
            .first(self.connection)
            .optional()?;
        row.map(|(roster, sealed, made_at)| {
            let text = self.unseal(&outbound_context(&name), &sealed)?;
            let pickle: GroupSessionPickle = serde_json::from_slice(&text).map_err(Error::store)?;
            Ok(OutboundGroup {
                session: GroupSession::from_pickle(pickle),
                roster,
                made_at: Timestamp::from_micros(made_at),
            })
        })
        .transpose()
    }

    pub(crate) fn put_outbound_group(&mut self, conversation: ConversationId, group: &OutboundGroup) -> Result<()> {
        let name = conversation.to_string();
        let text = Zeroizing::new(serde_json::to_vec(&group.session.pickle()).map_err(Error::store)?);
        let sealed = self.seal(&outbound_context(&name), &text)?;
        diesel::replace_into(group_outbound::table)
            .values((
                group_outbound::conversation_id.eq(&name),
                group_outbound::session_id.eq(group.session.session_id()),
                group_outbound::roster.eq(&group.roster),
                group_outbound::pickle.eq(sealed),
                group_outbound::made_at.eq(group.made_at.as_micros()),
            ))
            .execute(self.connection)?;
        Ok(())
    }

    pub(crate) fn forget_outbound_group(&mut self, conversation: ConversationId) -> Result<()> {
        diesel::delete(group_outbound::table.find(conversation.to_string())).execute(self.connection)?;
        Ok(())
    }

    pub(crate) fn forget_outbound_groups(&mut self) -> Result<()> {
        diesel::delete(group_outbound::table).execute(self.connection)?;
        Ok(())
    }

    pub(crate) fn inbound_group(
        &mut self,
        conversation: ConversationId,
        session: &str,
        device: DeviceId,
    ) -> Result<Option<InboundGroupSession>> {
        let (conversation, device) = (conversation.to_string(), device.to_string());
        let row: Option<Vec<u8>> = group_inbound::table
            .find((conversation.as_str(), session, device.as_str()))
            .select(group_inbound::pickle)
            .first(self.connection)
            .optional()?;
        row.map(|sealed| {
            let text = self.unseal(&inbound_context(&conversation, session, &device), &sealed)?;
            let pickle: InboundGroupSessionPickle = serde_json::from_slice(&text).map_err(Error::store)?;
            Ok(InboundGroupSession::from_pickle(pickle))
        })
        .transpose()
    }

    pub(crate) fn put_inbound_group(
        &mut self,
        conversation: ConversationId,
        device: DeviceId,
        session: &InboundGroupSession,
    ) -> Result<()> {
        let (conversation, device) = (conversation.to_string(), device.to_string());
        let name = session.session_id();
        let text = Zeroizing::new(serde_json::to_vec(&session.pickle()).map_err(Error::store)?);
        let sealed = self.seal(&inbound_context(&conversation, &name, &device), &text)?;
        diesel::replace_into(group_inbound::table)
            .values((
                group_inbound::conversation_id.eq(&conversation),
                group_inbound::session_id.eq(&name),
                group_inbound::device_id.eq(&device),
                group_inbound::pickle.eq(sealed),
            ))
            .execute(self.connection)?;
        Ok(())
    }

    /// Notes that a number of a session belongs to a message; `false` if it belongs to another one.
    pub(crate) fn claim_group_index(
        &mut self,
        session: &str,
        device: DeviceId,
        index: u32,
        message: MessageId,
    ) -> Result<bool> {
        let (device, message) = (device.to_string(), message.to_string());
        diesel::insert_or_ignore_into(group_indices::table)
            .values((
                group_indices::session_id.eq(session),
                group_indices::device_id.eq(&device),
                group_indices::message_index.eq(i64::from(index)),
                group_indices::message_id.eq(&message),
            ))
            .execute(self.connection)?;
        let owner: String = group_indices::table
            .find((session, device.as_str(), i64::from(index)))
            .select(group_indices::message_id)
            .first(self.connection)?;
        Ok(owner == message)
    }
}
