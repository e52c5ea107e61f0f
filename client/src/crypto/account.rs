//! The device's own keys: identity, one-time keys, fallback key.

use crate::error::{Error, Result};
use crate::store::Tx;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sotto_protocol::device_link::proof_text;
use sotto_protocol::keys::{Keys, OneTimeKey, SignedKey, Suite, identity_text};
use sotto_protocol::{Binary, LinkId, Timestamp, VerificationId, limits};
use vodozemac::KeyId;
use vodozemac::olm::{Account, AccountPickle};

const ACCOUNT: &str = "account";
const FALLBACK_AT: &str = "fallback_at";

/// The account, if there is one.
pub(crate) fn find(tx: &mut Tx<'_>) -> Result<Option<Account>> {
    let pickle: Option<AccountPickle> = tx.meta_json(ACCOUNT)?;
    Ok(pickle.map(Account::from_pickle))
}

/// The account; an error where nobody has signed in.
pub(crate) fn load(tx: &mut Tx<'_>) -> Result<Account> {
    find(tx)?.ok_or(Error::NotSignedIn)
}

pub(crate) fn save(tx: &mut Tx<'_>, account: &Account) -> Result<()> {
    tx.set_meta_json(ACCOUNT, &account.pickle())
}

/// All public keys of this device for signing in, made where they are missing and kept before they
/// are told to anybody.
pub(crate) fn sign_in_keys(tx: &mut Tx<'_>) -> Result<Keys> {
    let mut account = find(tx)?.unwrap_or_default();
    if account.fallback_key().is_empty() {
        account.generate_fallback_key();
        tx.set_meta_json(FALLBACK_AT, &Timestamp::now())?;
    }
    let keys = complete_keys(&mut account, limits::MAX_KEYS_PER_UPLOAD)?;
    save(tx, &account)?;
    Ok(keys)
}

/// All public keys with up to `count` unpublished one-time keys, made where they are missing.
pub(crate) fn complete_keys(account: &mut Account, count: usize) -> Result<Keys> {
    let unpublished = account.one_time_keys().len();
    account.generate_one_time_keys(count.min(limits::MAX_KEYS_PER_UPLOAD).saturating_sub(unpublished));
    let mut keys = unpublished_keys(account)?;
    keys.suite = Some(Suite::Olm);
    keys.one_time_prekeys.get_or_insert_default();
    keys.identity_key = Some(account.curve25519_key().to_vec().into());
    keys.signing_key = Some(account.ed25519_key().as_bytes().to_vec().into());
    Ok(keys)
}

/// Makes `count` more one-time keys and, if wanted, a new fallback key; what has to be uploaded.
/// What an earlier upload may not have brought is part of it: the server skips what it knows.
pub(crate) fn refill(tx: &mut Tx<'_>, count: usize, new_fallback: bool) -> Result<Keys> {
    let mut account = load(tx)?;
    let unpublished = account.one_time_keys().len();
    account.generate_one_time_keys(count.min(limits::MAX_KEYS_PER_UPLOAD).saturating_sub(unpublished));
    if new_fallback && account.fallback_key().is_empty() {
        account.generate_fallback_key();
        tx.set_meta_json(FALLBACK_AT, &Timestamp::now())?;
    }
    save(tx, &account)?;
    unpublished_keys(&account)
}

/// When the fallback key was made.
pub(crate) fn fallback_made_at(tx: &mut Tx<'_>) -> Result<Timestamp> {
    Ok(tx.meta_json(FALLBACK_AT)?.unwrap_or_default())
}

/// The server has the keys.
pub(crate) fn mark_published(tx: &mut Tx<'_>) -> Result<()> {
    let mut account = load(tx)?;
    account.mark_keys_as_published();
    save(tx, &account)
}

/// Proves that this store's keys are those of a device that the server knows.
pub(crate) fn device_proof(tx: &mut Tx<'_>, verification: VerificationId) -> Result<Binary> {
    Ok(sign_proof(&load(tx)?, verification))
}

pub(crate) fn sign_proof(account: &Account, verification: VerificationId) -> Binary {
    let text = format!("{}{verification}", limits::DEVICE_PROOF_PREFIX);
    account.sign(text.as_bytes()).to_bytes().to_vec().into()
}

/// Proves that these are the keys of the device that shows a link's QR code.
pub(crate) fn link_proof(tx: &mut Tx<'_>, link: LinkId, challenge: &Binary) -> Result<Binary> {
    Ok(sign_link_proof(&load(tx)?, link, challenge))
}

pub(crate) fn sign_link_proof(account: &Account, link: LinkId, challenge: &Binary) -> Binary {
    account.sign(proof_text(link, challenge.as_ref()).as_bytes()).to_bytes().to_vec().into()
}

fn unpublished_keys(account: &Account) -> Result<Keys> {
    let mut one_time = Vec::new();
    for (name, key) in account.one_time_keys() {
        one_time.push(OneTimeKey { key_id: number(name)?, public_key: key.to_vec().into() });
    }
    one_time.sort_by_key(|key| key.key_id);
    one_time.truncate(limits::MAX_KEYS_PER_UPLOAD);
    let mut signed_prekey = None;
    for (name, key) in account.fallback_key() {
        let signature = account.sign(key.as_bytes()).to_bytes().to_vec().into();
        signed_prekey = Some(SignedKey { key_id: number(name)?, public_key: key.to_vec().into(), signature });
    }
    let one_time_prekeys = (!one_time.is_empty()).then_some(one_time);
    // In every upload: a device from before 0.2 becomes a signed one with its next keys.
    let identity = identity_text(account.curve25519_key().as_bytes());
    let identity_signature = Some(account.sign(&identity).to_bytes().to_vec().into());
    Ok(Keys { identity_signature, signed_prekey, one_time_prekeys, ..Keys::default() })
}

/// The number in a key's name: the account counts its keys, which makes ids that grow and that a
/// repeated upload names alike.
fn number(name: KeyId) -> Result<i64> {
    let bytes = STANDARD_NO_PAD.decode(name.to_base64()).map_err(Error::crypto)?;
    let bytes: [u8; 8] = bytes.as_slice().try_into().map_err(Error::crypto)?;
    i64::try_from(u64::from_be_bytes(bytes)).map_err(Error::crypto)
}

/// The device is gone: its keys are of no use to anybody.
pub(crate) fn remove(tx: &mut Tx<'_>) -> Result<()> {
    tx.remove_meta(ACCOUNT)
}
