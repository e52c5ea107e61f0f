//! The proof that a sign-in comes from a device that is known already: a signature with its identity.

use sotto_protocol::keys::Suite;
use sotto_protocol::{VerificationId, limits};

use super::key_check;

/// The text that a device signs: `sotto-device-proof-v1:` and the verification's id.
#[must_use]
pub fn message(verification_id: VerificationId) -> String {
    format!("{}{verification_id}", limits::DEVICE_PROOF_PREFIX)
}

/// Whether `proof` is the device's signature for this verification: by `identity_key` for `signal`, by `signing_key`
/// for `olm`. The keys must be the stored ones, never those of the request.
#[must_use]
pub fn holds(
    suite: Suite,
    identity_key: &[u8],
    signing_key: Option<&[u8]>,
    verification_id: VerificationId,
    proof: &[u8],
) -> bool {
    let signer = match suite {
        Suite::Signal => Some(identity_key),
        Suite::Olm => signing_key,
    };
    signer.is_some_and(|key| key_check::is_signature(suite, key, message(verification_id).as_bytes(), proof))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::xeddsa::SigningKey;

    #[test]
    fn a_proof_is_bound_to_key_and_verification() {
        let (key, other) = (SigningKey::from_bytes([7; 32]), SigningKey::from_bytes([8; 32]));
        let id = VerificationId::random();
        let proof = key.sign(message(id).as_bytes(), &[1; 64]).unwrap();
        assert!(holds(Suite::Signal, &key.public(), None, id, &proof));
        assert!(!holds(Suite::Signal, &other.public(), None, id, &proof));
        assert!(!holds(Suite::Signal, &key.public(), None, VerificationId::random(), &proof));
        assert!(!holds(Suite::Olm, &key.public(), None, id, &proof));
    }
}
