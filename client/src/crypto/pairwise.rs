//! Olm between two devices: one line of sessions per conversation.

use super::payload::{self, Header};
use super::{Me, Opened, Opening, account, curve_key};
use crate::error::{Error, Result};
use crate::event::Reason;
use crate::store::{QueuedMessage, Tx};
use sotto_protocol::keys::{Bundle, Suite, identity_text};
use sotto_protocol::message::{Envelope, Message, Sender};
use sotto_protocol::{ConversationId, DeviceId, UserId};
use vodozemac::Ed25519PublicKey;
use vodozemac::olm::{OlmMessage, PreKeyMessage, SessionConfig};
use vodozemac::{Curve25519PublicKey, Ed25519Signature};
use zeroize::Zeroizing;

/// The envelope for a device that speaks another encryption: the server wants one for each device.
const FOREIGN_TYPE: u8 = 255;
const FOREIGN: [u8; 1] = [0];

/// Whom a message goes to, and what is missing before it can.
pub(crate) struct Targets {
    pub(crate) devices: Vec<(UserId, DeviceId, Suite)>,
}

/// The devices of a list of users without this one; the first user whose list is not known otherwise.
pub(crate) fn targets(tx: &mut Tx<'_>, me: Me, users: &[UserId]) -> Result<Result<Targets, UserId>> {
    let mut devices = Vec::new();
    for user in users {
        let Some(list) = tx.device_list(*user)? else { return Ok(Err(*user)) };
        if *user != me.user_id && !list.is_empty() && !list.iter().any(|(_, suite)| *suite == Suite::Olm) {
            return Err(Error::NoCommonSuite(*user));
        }
        devices.extend(list.into_iter().map(|(device, suite)| (*user, device, suite)));
    }
    devices.retain(|(_, device, _)| *device != me.device_id);
    Ok(Ok(Targets { devices }))
}

/// The Olm devices without a session to encrypt with.
pub(crate) fn without_session(
    tx: &mut Tx<'_>,
    conversation: ConversationId,
    targets: &Targets,
) -> Result<Vec<(UserId, DeviceId)>> {
    let mut missing = Vec::new();
    for (user, device, suite) in &targets.devices {
        if *suite == Suite::Olm && tx.sending_session(conversation, *device)?.is_none() {
            missing.push((*user, *device));
        }
    }
    Ok(missing)
}

/// The Ed25519 key of a bundle.
fn signing_key(bundle: &Bundle) -> Result<Ed25519PublicKey> {
    let key = bundle.signing_key.as_ref().and_then(|key| <&[u8; 32]>::try_from(key.0.as_slice()).ok());
    key.and_then(|key| Ed25519PublicKey::from_slice(key).ok())
        .ok_or_else(|| Error::protocol("a bundle without signing key"))
}

/// Refuses a bundle whose identity key is signed wrongly. One without a signature is accepted: the device is from before 0.2.
pub(crate) fn check_identity(user: UserId, bundle: &Bundle) -> Result<()> {
    let Some(signature) = bundle.identity_signature.as_ref().filter(|_| bundle.suite == Suite::Olm) else {
        return Ok(());
    };
    let is_signed = Ed25519Signature::from_slice(&signature.0).is_ok_and(|signature| {
        signing_key(bundle).is_ok_and(|key| key.verify(&identity_text(&bundle.identity_key.0), &signature).is_ok())
    });
    if is_signed { Ok(()) } else { Err(Error::IdentityForged { user_id: user, device_id: bundle.device_id }) }
}

/// Begins a session with a device from what the key directory gave.
pub(crate) fn start_session(
    tx: &mut Tx<'_>,
    conversation: ConversationId,
    user: UserId,
    bundle: &Bundle,
) -> Result<()> {
    if bundle.suite != Suite::Olm {
        return Ok(());
    }
    check_identity(user, bundle)?;
    tx.pin_identity(user, bundle.device_id, bundle.suite, &bundle.identity_key.0, true)?;
    let prekey = bundle.signed_prekey.as_ref().ok_or_else(|| Error::protocol("a bundle without signed prekey"))?;
    let signing_key = signing_key(bundle)?;
    let signature = Ed25519Signature::from_slice(&prekey.signature.0).map_err(Error::crypto)?;
    signing_key.verify(&prekey.public_key.0, &signature).map_err(Error::crypto)?;
    let chosen = bundle.one_time_prekey.as_ref().map_or(&prekey.public_key, |key| &key.public_key);
    let key = |bytes: &[u8]| curve_key(bytes).ok_or_else(|| Error::protocol("a key of the wrong length"));
    let session = account::load(tx)?
        .create_outbound_session(SessionConfig::version_1(), key(&bundle.identity_key.0)?, key(&chosen.0)?)
        .map_err(Error::crypto)?;
    tx.put_session(conversation, bundle.device_id, &session, true)
}

/// Encrypts a message for each device; the sessions' new states are in the same transaction.
pub(crate) fn encrypt(tx: &mut Tx<'_>, me: Me, message: &QueuedMessage, targets: &Targets) -> Result<Vec<Envelope>> {
    let own = account::load(tx)?.curve25519_key().to_vec();
    let mut envelopes = Vec::with_capacity(targets.devices.len());
    for (user, device, suite) in &targets.devices {
        let (kind, ciphertext) = match suite {
            Suite::Signal => (FOREIGN_TYPE, FOREIGN.to_vec()),
            Suite::Olm => encrypt_one(tx, me, message, &own, *device)?,
        };
        envelopes.push(Envelope {
            user_id: *user,
            device_id: *device,
            registration_id: None,
            kind,
            ciphertext: ciphertext.into(),
        });
    }
    Ok(envelopes)
}

fn encrypt_one(
    tx: &mut Tx<'_>,
    me: Me,
    message: &QueuedMessage,
    own: &[u8],
    device: DeviceId,
) -> Result<(u8, Vec<u8>)> {
    let identity = tx.identity_key(device)?.ok_or_else(|| Error::crypto("an unknown device"))?;
    let mut session = tx
        .sending_session(message.conversation_id, device)?
        .ok_or_else(|| Error::crypto("no session with a device"))?;
    let header = Header::new(message, me, own, Some(&identity));
    let text = payload::encode(&header, &message.content);
    let (kind, ciphertext) = session.encrypt(text.as_slice()).map_err(Error::crypto)?.to_parts();
    tx.put_session(message.conversation_id, device, &session, false)?;
    Ok((u8::try_from(kind).map_err(Error::crypto)?, ciphertext))
}

/// Opens this device's own ciphertext of a message. On failure what is sent to that device next
/// begins a new session, which repairs a broken one.
pub(crate) fn decrypt(
    tx: &mut Tx<'_>,
    me: Me,
    message: &Message,
    from: Sender,
    kind: u8,
    ciphertext: &[u8],
) -> Result<Opening> {
    let opened = try_decrypt(tx, me, message, from, kind, ciphertext)?;
    if matches!(opened, Err(Reason::NoSession | Reason::Damaged)) {
        tx.break_sessions(message.conversation_id, from.device_id)?;
    }
    Ok(opened)
}

fn try_decrypt(
    tx: &mut Tx<'_>,
    me: Me,
    message: &Message,
    from: Sender,
    kind: u8,
    ciphertext: &[u8],
) -> Result<Opening> {
    let olm = match OlmMessage::from_parts(usize::from(kind), ciphertext) {
        Ok(olm) => olm,
        Err(_) if kind > 1 => return Ok(Err(Reason::Unsupported)),
        Err(_) => return Ok(Err(Reason::Damaged)),
    };
    if let OlmMessage::PreKey(first) = &olm
        && let Some(known) = tx.identity_key(from.device_id)?
        && known != first.identity_key().as_bytes()
    {
        return Ok(Err(Reason::IdentityChanged));
    }
    let wanted = match &olm {
        OlmMessage::PreKey(first) => Some(first.session_id()),
        OlmMessage::Normal(_) => None,
    };
    let sessions = tx.sessions(message.conversation_id, from.device_id)?;
    let found_none = sessions.is_empty();
    for mut session in sessions {
        if wanted.as_ref().is_some_and(|wanted| *wanted != session.session_id()) {
            continue;
        }
        if let Ok(text) = session.decrypt(&olm) {
            let opened = read(tx, me, message, from, Zeroizing::new(text))?;
            if opened.is_ok() {
                tx.put_session(message.conversation_id, from.device_id, &session, true)?;
            }
            return Ok(opened);
        }
    }
    match &olm {
        OlmMessage::PreKey(first) => answer_session(tx, me, message, from, first),
        OlmMessage::Normal(_) if found_none => Ok(Err(Reason::NoSession)),
        OlmMessage::Normal(_) => Ok(Err(Reason::Damaged)),
    }
}

/// The first message of a session that the other side began.
fn answer_session(tx: &mut Tx<'_>, me: Me, message: &Message, from: Sender, first: &PreKeyMessage) -> Result<Opening> {
    let mut account = account::load(tx)?;
    let identity: Curve25519PublicKey = first.identity_key();
    let Ok(created) = account.create_inbound_session(SessionConfig::version_1(), identity, first) else {
        return Ok(Err(Reason::NoSession));
    };
    // The first identity key seen of a device is its identity key; the directory is compared with it.
    match tx.pin_identity(from.user_id, from.device_id, Suite::Olm, identity.as_bytes(), false) {
        Ok(()) => {}
        Err(Error::IdentityChanged { .. }) => return Ok(Err(Reason::IdentityChanged)),
        Err(error) => return Err(error),
    }
    let opened = read(tx, me, message, from, Zeroizing::new(created.plaintext))?;
    if opened.is_ok() {
        account::save(tx, &account)?;
        tx.put_session(message.conversation_id, from.device_id, &created.session, true)?;
    }
    Ok(opened)
}

fn read(tx: &mut Tx<'_>, me: Me, message: &Message, from: Sender, text: Zeroizing<Vec<u8>>) -> Result<Opening> {
    let Some(Opened { header, body }) = payload::decode(&text) else { return Ok(Err(Reason::Unsupported)) };
    let own = account::load(tx)?.curve25519_key();
    let from_identity = tx.identity_key(from.device_id)?;
    let fits = header.fits(message)
        && from.device_id != me.device_id
        && header.to_identity.as_ref().is_some_and(|key| key.0 == own.as_bytes())
        && from_identity.is_some_and(|key| key == header.from_identity.0);
    Ok(if fits { Ok(Opened { header, body }) } else { Err(Reason::Forged) })
}
