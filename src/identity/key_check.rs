//! Checks what a device publishes before anything of it is stored: lengths, types, ids, signatures.

use std::collections::HashSet;

use ed25519_dalek::{Signature, VerifyingKey};
use sotto_protocol::keys::{Keys, SignedKey, Suite, identity_text};
use sotto_protocol::{Binary, FieldError, limits};

use super::xeddsa::{self, IdentityKey};

/// The type byte before a Kyber-1024 public key.
const KYBER_TYPE: u8 = 0x08;
/// Length of a Kyber-1024 public key with its type byte.
pub const KYBER_KEY_LEN: usize = 1569;
/// Length of a bare Curve25519 or Ed25519 public key.
pub const BARE_KEY_LEN: usize = 32;
/// Largest id of a key.
const MAX_KEY_ID: i64 = (1 << 31) - 1;
/// Largest registration id (14 bits, never 0).
const MAX_REGISTRATION_ID: i64 = 16_383;

/// Who signs a device's keys: what is stored of it, or what it brings itself when it registers.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// The family of encryption.
    pub suite: Suite,
    /// The long-term key.
    pub identity_key: &'a [u8],
    /// Ed25519, for `olm`.
    pub signing_key: Option<&'a [u8]>,
}

impl Signer<'_> {
    fn has_signed(&self, key: &SignedKey) -> bool {
        let signer = match self.suite {
            Suite::Signal => Some(self.identity_key),
            Suite::Olm => self.signing_key,
        };
        signer.is_some_and(|signer| is_signature(self.suite, signer, key.public_key.as_ref(), key.signature.as_ref()))
    }
}

/// Whether `signature` is `signer`'s over exactly `message`: XEdDSA for `signal`, strict Ed25519 (RFC 8032 section
/// 5.1.7, small orders refused) for `olm`.
#[must_use]
pub fn is_signature(suite: Suite, signer: &[u8], message: &[u8], signature: &[u8]) -> bool {
    match suite {
        Suite::Signal => IdentityKey::parse(signer).is_some_and(|key| key.verify(message, signature)),
        Suite::Olm => {
            let (Ok(signer), Ok(signature)) = (signer.try_into(), Signature::from_slice(signature)) else {
                return false;
            };
            VerifyingKey::from_bytes(signer).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
        }
    }
}

/// Checks the complete keys of a device that registers or signs in; `prefix` is the pointer of the object, as `/keys`.
/// Gives the suite and identity that the keys name.
///
/// # Errors
/// Every place that is wrong or missing.
pub fn complete<'a>(prefix: &str, keys: &'a Keys) -> Result<Signer<'a>, Vec<FieldError>> {
    let mut check = Check { prefix, errors: Vec::new() };
    let (Some(suite), Some(identity_key)) = (keys.suite, keys.identity_key.as_ref()) else {
        check.require("suite", keys.suite.is_some());
        check.require("identity_key", keys.identity_key.is_some());
        return Err(check.errors);
    };
    check.require("signed_prekey", keys.signed_prekey.is_some());
    check.require("one_time_prekeys", keys.one_time_prekeys.is_some());
    match suite {
        Suite::Signal => {
            check.require("registration_id", keys.registration_id.is_some());
            check.require("pq_last_resort_prekey", keys.pq_last_resort_prekey.is_some());
        }
        Suite::Olm => check.require("signing_key", keys.signing_key.is_some()),
    }
    let signer = Signer {
        suite,
        identity_key: identity_key.as_ref(),
        signing_key: keys.signing_key.as_ref().map(Binary::as_ref),
    };
    check.parts(keys, &signer);
    if check.errors.is_empty() { Ok(signer) } else { Err(check.errors) }
}

/// Checks an upload of any part by a device whose `signer` is stored. That `suite`, `identity_key` and `signing_key`
/// are the stored ones is the caller's to compare (409). `registration_id` is the stored one: another comes only with a
/// new signed prekey.
///
/// # Errors
/// Every place that is wrong.
pub fn part(
    prefix: &str,
    keys: &Keys,
    signer: &Signer<'_>,
    registration_id: Option<i64>,
) -> Result<(), Vec<FieldError>> {
    let mut check = Check { prefix, errors: Vec::new() };
    if keys.registration_id.is_some() && keys.registration_id != registration_id {
        // A new registration means new sessions; without a new signed prekey nobody could begin them.
        check.require("signed_prekey", keys.signed_prekey.is_some());
    }
    check.parts(keys, signer);
    if check.errors.is_empty() { Ok(()) } else { Err(check.errors) }
}

struct Check<'a> {
    prefix: &'a str,
    errors: Vec<FieldError>,
}

impl Check<'_> {
    fn fail(&mut self, place: &str, code: &str) {
        self.errors.push(FieldError::at(format!("{}/{place}", self.prefix), code));
    }

    fn require(&mut self, place: &str, present: bool) {
        if !present {
            self.fail(place, "missing");
        }
    }

    fn parts(&mut self, keys: &Keys, signer: &Signer<'_>) {
        self.identity(keys, signer.suite);
        if !self.errors.is_empty() {
            // With a wrong identity every signature would be wrong too, which helps nobody.
            return;
        }
        if let Some(signature) = &keys.identity_signature {
            self.identity_signature(signature, signer);
        }
        if let Some(key) = &keys.signed_prekey {
            self.signed("signed_prekey", key, signer, Kind::Curve);
        }
        if let Some(list) = &keys.one_time_prekeys {
            self.list("one_time_prekeys", list.iter().map(|key| key.key_id));
            for (index, key) in list.iter().take(limits::MAX_KEYS_PER_UPLOAD).enumerate() {
                let place = format!("one_time_prekeys/{index}");
                self.id(&place, key.key_id);
                self.public_key(&place, &key.public_key, signer.suite, Kind::Curve);
            }
        }
        if let Some(key) = &keys.pq_last_resort_prekey {
            self.signed("pq_last_resort_prekey", key, signer, Kind::Kyber);
        }
        if let Some(list) = &keys.pq_one_time_prekeys {
            self.list("pq_one_time_prekeys", list.iter().map(|key| key.key_id));
            for (index, key) in list.iter().take(limits::MAX_KEYS_PER_UPLOAD).enumerate() {
                self.signed(&format!("pq_one_time_prekeys/{index}"), key, signer, Kind::Kyber);
            }
        }
    }

    fn identity(&mut self, keys: &Keys, suite: Suite) {
        if let Some(id) = keys.registration_id
            && !(1..=MAX_REGISTRATION_ID).contains(&id)
        {
            self.fail("registration_id", "out_of_range");
        }
        if let Some(key) = &keys.identity_key {
            self.curve_key("identity_key", key, suite);
            if self.errors.is_empty() && !is_sound_identity(suite, key.as_ref()) {
                self.fail("identity_key", "invalid_key");
            }
        }
        match (suite, &keys.signing_key) {
            (Suite::Signal, Some(_)) => self.fail("signing_key", "not_allowed"),
            (Suite::Olm, Some(key)) if key.len() != BARE_KEY_LEN => self.fail("signing_key", "wrong_length"),
            (Suite::Olm, Some(key)) if !is_sound_signing_key(key.as_ref()) => self.fail("signing_key", "invalid_key"),
            _ => {}
        }
        if suite == Suite::Olm {
            if keys.pq_last_resort_prekey.is_some() {
                self.fail("pq_last_resort_prekey", "not_allowed");
            }
            if keys.pq_one_time_prekeys.as_ref().is_some_and(|list| !list.is_empty()) {
                self.fail("pq_one_time_prekeys", "not_allowed");
            }
        }
    }

    fn identity_signature(&mut self, signature: &Binary, signer: &Signer<'_>) {
        let is_signed =
            |key: &[u8]| is_signature(signer.suite, key, &identity_text(signer.identity_key), signature.as_ref());
        match signer.suite {
            Suite::Signal => self.fail("identity_signature", "not_allowed"),
            Suite::Olm if signature.len() != xeddsa::SIGNATURE_LEN => self.fail("identity_signature", "wrong_length"),
            Suite::Olm if !signer.signing_key.is_some_and(is_signed) => {
                self.fail("identity_signature", "invalid_signature");
            }
            Suite::Olm => {}
        }
    }

    fn list(&mut self, place: &str, ids: impl ExactSizeIterator<Item = i64>) {
        if ids.len() > limits::MAX_KEYS_PER_UPLOAD {
            self.fail(place, "too_many");
            return;
        }
        let mut seen = HashSet::new();
        for (index, id) in ids.enumerate() {
            if !seen.insert(id) {
                self.fail(&format!("{place}/{index}/key_id"), "duplicate");
            }
        }
    }

    fn id(&mut self, place: &str, id: i64) {
        if !(0..=MAX_KEY_ID).contains(&id) {
            self.fail(&format!("{place}/key_id"), "out_of_range");
        }
    }

    fn signed(&mut self, place: &str, key: &SignedKey, signer: &Signer<'_>, kind: Kind) {
        self.id(place, key.key_id);
        let before = self.errors.len();
        self.public_key(place, &key.public_key, signer.suite, kind);
        if key.signature.len() != xeddsa::SIGNATURE_LEN {
            self.fail(&format!("{place}/signature"), "wrong_length");
        }
        if self.errors.len() == before && !signer.has_signed(key) {
            self.fail(&format!("{place}/signature"), "invalid_signature");
        }
    }

    fn public_key(&mut self, place: &str, key: &Binary, suite: Suite, kind: Kind) {
        let place = format!("{place}/public_key");
        match kind {
            Kind::Curve => self.curve_key(&place, key, suite),
            Kind::Kyber => self.typed_key(&place, key, KYBER_KEY_LEN, KYBER_TYPE),
        }
    }

    fn curve_key(&mut self, place: &str, key: &Binary, suite: Suite) {
        match suite {
            Suite::Signal => self.typed_key(place, key, xeddsa::PUBLIC_KEY_LEN, xeddsa::CURVE25519_TYPE),
            Suite::Olm if key.len() != BARE_KEY_LEN => self.fail(place, "wrong_length"),
            Suite::Olm => {}
        }
    }

    fn typed_key(&mut self, place: &str, key: &Binary, length: usize, kind: u8) {
        if key.len() != length {
            self.fail(place, "wrong_length");
        } else if key.as_ref().first() != Some(&kind) {
            self.fail(place, "wrong_key_type");
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Curve,
    Kyber,
}

/// Olm agrees with its identity key and never verifies with it, so only a key that gives away the secret is refused.
fn is_sound_identity(suite: Suite, key: &[u8]) -> bool {
    match suite {
        Suite::Signal => IdentityKey::parse(key).is_some(),
        Suite::Olm => <&[u8; BARE_KEY_LEN]>::try_from(key).is_ok_and(|key| !xeddsa::is_low_order(key)),
    }
}

fn is_sound_signing_key(key: &[u8]) -> bool {
    <&[u8; BARE_KEY_LEN]>::try_from(key).is_ok_and(|key| VerifyingKey::from_bytes(key).is_ok_and(|key| !key.is_weak()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::xeddsa::SigningKey;
    use ed25519_dalek::Signer as _;
    use sotto_protocol::keys::OneTimeKey;

    fn curve(seed: u8) -> Binary {
        Binary(SigningKey::from_bytes([seed; 32]).public())
    }

    fn signed(by: &SigningKey, key_id: i64, public_key: Vec<u8>) -> SignedKey {
        let signature = by.sign(&public_key, &[9; 64]).unwrap().to_vec();
        SignedKey { key_id, public_key: public_key.into(), signature: signature.into() }
    }

    fn kyber(fill: u8) -> Vec<u8> {
        let mut key = vec![fill; KYBER_KEY_LEN];
        key[0] = KYBER_TYPE;
        key
    }

    fn signal() -> Keys {
        let identity = SigningKey::from_bytes([1; 32]);
        Keys {
            suite: Some(Suite::Signal),
            registration_id: Some(1),
            identity_key: Some(identity.public().into()),
            signing_key: None,
            identity_signature: None,
            signed_prekey: Some(signed(&identity, 0, curve(2).0)),
            one_time_prekeys: Some(vec![OneTimeKey { key_id: MAX_KEY_ID, public_key: curve(3) }]),
            pq_last_resort_prekey: Some(signed(&identity, 1, kyber(1))),
            pq_one_time_prekeys: Some(vec![signed(&identity, 2, kyber(2))]),
        }
    }

    fn olm() -> Keys {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        let key = curve(2).0[1..].to_vec();
        let signature = signing.sign(&key).to_bytes().to_vec();
        let identity_key = curve(1).0[1..].to_vec();
        let identity_signature = signing.sign(&identity_text(&identity_key)).to_bytes().to_vec();
        Keys {
            suite: Some(Suite::Olm),
            identity_key: Some(identity_key.into()),
            identity_signature: Some(identity_signature.into()),
            signing_key: Some(signing.verifying_key().to_bytes().to_vec().into()),
            signed_prekey: Some(SignedKey { key_id: 1, public_key: key.into(), signature: signature.into() }),
            one_time_prekeys: Some(Vec::new()),
            ..Keys::default()
        }
    }

    fn errors(keys: &Keys) -> Vec<(String, String)> {
        let errors = complete("/keys", keys).map(|_| ()).unwrap_err();
        errors.into_iter().map(|error| (error.pointer.unwrap(), error.code)).collect()
    }

    fn one(pointer: &str, code: &str) -> Vec<(String, String)> {
        vec![(format!("/keys/{pointer}"), code.to_owned())]
    }

    #[test]
    fn complete_keys_of_both_suites_are_taken() {
        assert!(complete("/keys", &signal()).is_ok());
        assert!(complete("/keys", &olm()).is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(errors(&Keys::default()), [one("suite", "missing"), one("identity_key", "missing")].concat());
        let bare = Keys { suite: Some(Suite::Signal), identity_key: Some(curve(1)), ..Keys::default() };
        let missing = ["signed_prekey", "one_time_prekeys", "registration_id", "pq_last_resort_prekey"];
        assert_eq!(errors(&bare), missing.map(|name| one(name, "missing")).concat());
        let keys = Keys { signing_key: None, ..olm() };
        assert_eq!(errors(&keys)[0], one("signing_key", "missing")[0]);
    }

    #[test]
    fn a_signature_must_be_over_exactly_the_key() {
        let mut keys = signal();
        keys.signed_prekey.as_mut().unwrap().signature.0[5] ^= 1;
        assert_eq!(errors(&keys), one("signed_prekey/signature", "invalid_signature"));
        keys.signed_prekey.as_mut().unwrap().signature.0.pop();
        assert_eq!(errors(&keys), one("signed_prekey/signature", "wrong_length"));
        let mut keys = signal();
        keys.pq_one_time_prekeys.as_mut().unwrap()[0].public_key.0[700] ^= 1;
        assert_eq!(errors(&keys), one("pq_one_time_prekeys/0/signature", "invalid_signature"));
        let mut keys = olm();
        keys.signed_prekey.as_mut().unwrap().signature.0[40] ^= 1;
        assert_eq!(errors(&keys), one("signed_prekey/signature", "invalid_signature"));
    }

    #[test]
    fn an_identity_key_is_signed_by_the_signing_key_or_not_at_all() {
        assert!(complete("/keys", &Keys { identity_signature: None, ..olm() }).is_ok());
        let mut keys = olm();
        keys.identity_signature.as_mut().unwrap().0[40] ^= 1;
        assert_eq!(errors(&keys), one("identity_signature", "invalid_signature"));
        keys.identity_signature.as_mut().unwrap().0.pop();
        assert_eq!(errors(&keys), one("identity_signature", "wrong_length"));
        // Over another key, over the key without the prefix, and by another signing key.
        let mut keys = Keys { identity_key: Some(curve(9).0[1..].to_vec().into()), ..olm() };
        assert_eq!(errors(&keys), one("identity_signature", "invalid_signature"));
        let signing = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        let bare = signing.sign(keys.identity_key.as_ref().unwrap().as_ref()).to_bytes().to_vec();
        keys.identity_signature = Some(bare.into());
        assert_eq!(errors(&keys), one("identity_signature", "invalid_signature"));
        let other = ed25519_dalek::SigningKey::from_bytes(&[6; 32]);
        let identity_key = olm().identity_key.unwrap();
        let signature = other.sign(&identity_text(identity_key.as_ref())).to_bytes().to_vec();
        let keys = Keys { identity_signature: Some(signature.into()), ..olm() };
        assert_eq!(errors(&keys), one("identity_signature", "invalid_signature"));
        let keys = Keys { identity_signature: olm().identity_signature, ..signal() };
        assert_eq!(errors(&keys), one("identity_signature", "not_allowed"));
        // Alone, for a device that is stored.
        let whole = olm();
        let signer = complete("", &whole).unwrap();
        let alone = |signature: Option<Binary>| Keys { identity_signature: signature, ..Keys::default() };
        assert!(part("", &alone(olm().identity_signature), &signer, None).is_ok());
        let wrong = part("", &alone(Some(vec![0; 64].into())), &signer, None).unwrap_err();
        assert_eq!(wrong, [FieldError::at("/identity_signature", "invalid_signature")]);
    }

    /// Made with the Python package `cryptography`, by the key of RFC 8032 section 7.1, test 1.
    #[test]
    fn the_signature_of_an_identity_key_is_what_others_compute() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let identity_key = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let signing_key = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = hex(concat!(
            "01e129f31f19a64e9e143b3758c4ae1d5bca7cd2c8548ffe49a4a2a70411e133",
            "dbae0b674eecabc431fe5208d0705ac773453a75f48974281d60fc42130ac805"
        ));
        assert!(is_signature(Suite::Olm, &signing_key, &identity_text(&identity_key), &signature));
    }

    #[test]
    fn lengths_types_and_ranges_are_checked() {
        let mut keys = signal();
        keys.identity_key.as_mut().unwrap().0.pop();
        assert_eq!(errors(&keys), one("identity_key", "wrong_length"));
        let keys = Keys { identity_key: Some([&[5_u8][..], &[0; 32]].concat().into()), ..signal() };
        assert_eq!(errors(&keys), one("identity_key", "invalid_key"));
        let mut keys = signal();
        keys.one_time_prekeys.as_mut().unwrap()[0].public_key.0[0] = 6;
        assert_eq!(errors(&keys), one("one_time_prekeys/0/public_key", "wrong_key_type"));
        for id in [-1, MAX_KEY_ID + 1] {
            let mut keys = signal();
            keys.one_time_prekeys.as_mut().unwrap()[0].key_id = id;
            assert_eq!(errors(&keys), one("one_time_prekeys/0/key_id", "out_of_range"));
        }
        for id in [0, 16_384] {
            let keys = Keys { registration_id: Some(id), ..signal() };
            assert_eq!(errors(&keys), one("registration_id", "out_of_range"));
        }
        let keys = Keys { signing_key: Some(vec![1; 32].into()), ..signal() };
        assert_eq!(errors(&keys), one("signing_key", "not_allowed"));
        let keys = Keys { pq_last_resort_prekey: signal().pq_last_resort_prekey, ..olm() };
        assert_eq!(errors(&keys), one("pq_last_resort_prekey", "not_allowed"));
        let keys = Keys { identity_key: Some(vec![0; 32].into()), ..olm() };
        assert_eq!(errors(&keys), one("identity_key", "invalid_key"));
    }

    #[test]
    fn one_hundred_different_keys_per_upload() {
        let list = |count: i64| (0..count).map(|key_id| OneTimeKey { key_id, public_key: curve(3) }).collect();
        assert!(complete("/keys", &Keys { one_time_prekeys: Some(list(100)), ..signal() }).is_ok());
        let keys = Keys { one_time_prekeys: Some(list(101)), ..signal() };
        assert_eq!(errors(&keys), one("one_time_prekeys", "too_many"));
        let twice = [list(2), list(1)].concat();
        let keys = Keys { one_time_prekeys: Some(twice), ..signal() };
        assert_eq!(errors(&keys), one("one_time_prekeys/2/key_id", "duplicate"));
    }

    #[test]
    fn any_part_can_be_uploaded_alone() {
        let whole = signal();
        let signer = complete("", &whole).unwrap();
        assert!(part("", &Keys::default(), &signer, Some(1)).is_ok());
        let keys = Keys { pq_one_time_prekeys: signal().pq_one_time_prekeys, ..Keys::default() };
        assert!(part("", &keys, &signer, Some(1)).is_ok());
        let keys = Keys { registration_id: Some(5), ..Keys::default() };
        assert!(part("", &keys, &signer, Some(5)).is_ok());
        let keys = Keys { registration_id: Some(5), ..Keys::default() };
        let errors = part("", &keys, &signer, Some(1)).unwrap_err();
        assert_eq!(errors, [FieldError::at("/signed_prekey", "missing")]);
        let other = Signer { identity_key: &curve(4).0, ..signer };
        let keys = Keys { signed_prekey: signal().signed_prekey, ..Keys::default() };
        let errors = part("", &keys, &other, Some(1)).unwrap_err();
        assert_eq!(errors, [FieldError::at("/signed_prekey/signature", "invalid_signature")]);
    }
}
