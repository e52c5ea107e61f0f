//! Megolm in groups: one session per sending device, its key told to every member's devices.

use super::payload::{self, Header};
use super::{Me, Opening, account};
use crate::error::{Error, Result};
use crate::event::Reason;
use crate::store::{OutboundGroup, QueuedMessage, Tx};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use sotto_protocol::message::{Kind, Message, Sender};
use sotto_protocol::{Binary, ConversationId, MessageId, Timestamp, UserId};
use std::time::Duration;
use vodozemac::megolm::{GroupSession, InboundGroupSession, MegolmMessage, SessionConfig, SessionKey};
use zeroize::Zeroize as _;

const VERSION: u8 = 1;
const SESSION_ID_LENGTH: usize = 32;
/// After so many messages or so long a new session is begun, whoever is there.
const MOST_MESSAGES: u32 = 1000;
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The content of an internal message: the key of a group's session.
#[derive(Serialize, Deserialize)]
pub(crate) struct RoomKey {
    pub(crate) conversation_id: ConversationId,
    session_key: Binary,
}

impl Drop for RoomKey {
    fn drop(&mut self) {
        self.session_key.0.zeroize();
    }
}

/// Whether the present session may be used for this device list.
pub(crate) fn is_current(group: &OutboundGroup, roster: &str) -> bool {
    group.roster == roster
        && group.session.message_index() < MOST_MESSAGES
        && Timestamp::now().since(group.made_at) < LONGEST
}

/// Begins a new session and queues its key for each member, all in this transaction.
pub(crate) fn rotate(
    tx: &mut Tx<'_>,
    conversation: ConversationId,
    roster: &str,
    members: &[(UserId, ConversationId)],
) -> Result<()> {
    let group = OutboundGroup {
        session: GroupSession::new(SessionConfig::version_1()),
        roster: roster.to_owned(),
        made_at: Timestamp::now(),
    };
    let session_id = group.session.session_id();
    let key = RoomKey { conversation_id: conversation, session_key: group.session.session_key().to_bytes().into() };
    let content = serde_json::to_vec(&key).map_err(Error::crypto)?;
    for (_, direct) in members {
        tx.queue(&QueuedMessage {
            message_id: MessageId::ordered(),
            conversation_id: *direct,
            kind: Kind::System,
            internal: true,
            content: content.clone(),
            reply_to: None,
            expires_in: None,
            for_session: Some(session_id.clone()),
        })?;
    }
    tx.put_outbound_group(conversation, &group)
}

/// Encrypts for the whole group; the ciphertext and the roster it was made for.
pub(crate) fn encrypt(tx: &mut Tx<'_>, me: Me, message: &QueuedMessage) -> Result<(Vec<u8>, String)> {
    let mut group = tx.outbound_group(message.conversation_id)?.ok_or_else(|| Error::crypto("no group session"))?;
    let identity = account::load(tx)?.curve25519_key();
    let header = Header::new(message, me, identity.as_bytes(), None);
    let text = payload::encode(&header, &message.content);
    let encrypted = group.session.encrypt(text.as_slice()).to_bytes();
    let session_id = STANDARD_NO_PAD.decode(group.session.session_id()).map_err(Error::crypto)?;
    let mut ciphertext = Vec::with_capacity(1 + session_id.len() + encrypted.len());
    ciphertext.push(VERSION);
    ciphertext.extend_from_slice(&session_id);
    ciphertext.extend_from_slice(&encrypted);
    tx.put_outbound_group(message.conversation_id, &group)?;
    Ok((ciphertext, group.roster))
}

/// Opens a shared ciphertext.
pub(crate) fn decrypt(tx: &mut Tx<'_>, message: &Message, from: Sender, ciphertext: &[u8]) -> Result<Opening> {
    let Some((VERSION, rest)) = ciphertext.split_first().map(|(version, rest)| (*version, rest)) else {
        return Ok(Err(Reason::Unsupported));
    };
    let Some((session_id, encrypted)) = rest.split_first_chunk::<SESSION_ID_LENGTH>() else {
        return Ok(Err(Reason::Damaged));
    };
    let session_id = STANDARD_NO_PAD.encode(session_id);
    let Some(mut session) = tx.inbound_group(message.conversation_id, &session_id, from.device_id)? else {
        return Ok(Err(Reason::KeyMissing));
    };
    let decrypted = MegolmMessage::from_bytes(encrypted).ok().and_then(|text| session.decrypt(&text).ok());
    let Some(mut decrypted) = decrypted else { return Ok(Err(Reason::Damaged)) };
    let opened = payload::decode(&decrypted.plaintext);
    decrypted.plaintext.zeroize();
    let Some(opened) = opened else { return Ok(Err(Reason::Unsupported)) };
    let identity = tx.identity_key(from.device_id)?;
    if !opened.header.fits(message)
        || opened.header.internal
        || identity.is_none_or(|key| key != opened.header.from_identity.0)
    {
        return Ok(Err(Reason::Forged));
    }
    let index = decrypted.message_index;
    if !tx.claim_group_index(&session_id, from.device_id, index, message.message_id)? {
        return Ok(Err(Reason::Forged));
    }
    Ok(Ok(opened))
}

/// Takes a key that a member's device told; the group it is for, if it was worth something.
pub(crate) fn take_key(tx: &mut Tx<'_>, from: Sender, body: &[u8]) -> Result<Option<ConversationId>> {
    let Ok(key) = serde_json::from_slice::<RoomKey>(body) else { return Ok(None) };
    let Ok(session_key) = SessionKey::from_bytes(&key.session_key.0) else { return Ok(None) };
    let session = InboundGroupSession::new(&session_key, SessionConfig::version_1());
    let known = tx.inbound_group(key.conversation_id, &session.session_id(), from.device_id)?;
    if known.is_some_and(|known| known.first_known_index() <= session.first_known_index()) {
        return Ok(None);
    }
    tx.put_inbound_group(key.conversation_id, from.device_id, &session)?;
    Ok(Some(key.conversation_id))
}
