//! Olm sessions: per conversation and device, the one used last first.

use super::Tx;
use super::schema::sessions;
use crate::error::{Error, Result};
use diesel::prelude::*;
use sotto_protocol::{ConversationId, DeviceId};
use vodozemac::olm::{Session, SessionPickle};
use zeroize::Zeroizing;

/// Older ones are forgotten: both sides beginning at once makes two, a repair one more.
const SESSIONS_KEPT: i64 = 5;
/// `used_at` of a session that failed: it still decrypts, but nothing new is encrypted with it.
const BROKEN: i64 = -1;

fn context(conversation: &str, device: &str, session: &str) -> String {
    format!("session {conversation} {device} {session}")
}

impl Tx<'_> {
    /// All sessions with a device in a conversation, the one used last first.
    pub(crate) fn sessions(&mut self, conversation: ConversationId, device: DeviceId) -> Result<Vec<Session>> {
        self.read_sessions(conversation, device, i64::MIN)
    }

    /// The session to encrypt with.
    pub(crate) fn sending_session(
        &mut self,
        conversation: ConversationId,
        device: DeviceId,
    ) -> Result<Option<Session>> {
        Ok(self.read_sessions(conversation, device, BROKEN + 1)?.into_iter().next())
    }

    fn read_sessions(&mut self, conversation: ConversationId, device: DeviceId, least: i64) -> Result<Vec<Session>> {
        let (conversation, device) = (conversation.to_string(), device.to_string());
        let rows: Vec<(String, Vec<u8>)> = sessions::table
            .filter(sessions::conversation_id.eq(&conversation))
            .filter(sessions::device_id.eq(&device))
            .filter(sessions::used_at.ge(least))
            .order(sessions::used_at.desc())
            .select((sessions::session_id, sessions::pickle))
            .load(self.connection)?;
        rows.into_iter()
            .map(|(session, sealed)| {
                let text = self.unseal(&context(&conversation, &device, &session), &sealed)?;
                let pickle: SessionPickle = serde_json::from_slice(&text).map_err(Error::store)?;
                Ok(Session::from_pickle(pickle))
            })
            .collect()
    }

    /// Keeps a session's new state. `used` makes it the one to encrypt with.
    pub(crate) fn put_session(
        &mut self,
        conversation: ConversationId,
        device: DeviceId,
        session: &Session,
        used: bool,
    ) -> Result<()> {
        let (conversation, device) = (conversation.to_string(), device.to_string());
        let name = session.session_id();
        let text = Zeroizing::new(serde_json::to_vec(&session.pickle()).map_err(Error::store)?);
        let sealed = self.seal(&context(&conversation, &device, &name), &text)?;
        let of_device =
            sessions::table.filter(sessions::conversation_id.eq(&conversation)).filter(sessions::device_id.eq(&device));
        let last: Option<i64> = of_device.select(diesel::dsl::max(sessions::used_at)).first(self.connection)?;
        let key = (conversation.as_str(), device.as_str(), name.as_str());
        let present: Option<i64> =
            sessions::table.find(key).select(sessions::used_at).first(self.connection).optional()?;
        let used_at = match present {
            Some(present) if !used => present,
            _ => last.unwrap_or(0).max(0) + 1,
        };
        diesel::replace_into(sessions::table)
            .values((
                sessions::conversation_id.eq(&conversation),
                sessions::device_id.eq(&device),
                sessions::session_id.eq(&name),
                sessions::pickle.eq(sealed),
                sessions::used_at.eq(used_at),
            ))
            .execute(self.connection)?;
        let old: Vec<String> = of_device
            .order(sessions::used_at.desc())
            .offset(SESSIONS_KEPT)
            .limit(1000)
            .select(sessions::session_id)
            .load(self.connection)?;
        diesel::delete(of_device.filter(sessions::session_id.eq_any(old))).execute(self.connection)?;
        Ok(())
    }

    /// Something from this device could not be decrypted: what is sent next begins a new session.
    pub(crate) fn break_sessions(&mut self, conversation: ConversationId, device: DeviceId) -> Result<()> {
        diesel::update(
            sessions::table
                .filter(sessions::conversation_id.eq(conversation.to_string()))
                .filter(sessions::device_id.eq(device.to_string())),
        )
        .set(sessions::used_at.eq(BROKEN))
        .execute(self.connection)?;
        Ok(())
    }

    /// This device has got a new id: nobody has a session with it.
    pub(crate) fn forget_sessions(&mut self) -> Result<()> {
        diesel::delete(sessions::table).execute(self.connection)?;
        Ok(())
    }
}
