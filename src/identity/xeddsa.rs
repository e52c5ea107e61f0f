//! XEdDSA signatures as libsignal makes them: a Curve25519 (Montgomery) key that signs like Ed25519.
//!
//! The paper fixes the sign of the Edwards point to 0 and adjusts the private scalar. libsignal does not: it leaves
//! the scalar alone and puts the point's sign into bit 7 of byte 63 of the signature, a bit that a reduced scalar
//! never uses. A verifier that ignores this refuses the keys of about half of all devices.

use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, Scalar};
use ring::digest;

/// The type byte before a Curve25519 public key.
pub const CURVE25519_TYPE: u8 = 0x05;
/// Length of a public key with its type byte.
pub const PUBLIC_KEY_LEN: usize = 33;
/// Length of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// Bit 7: in the signature's last byte it carries the sign of the Edwards point.
const SIGN_BIT: u8 = 0x80;

/// The field's order, 2²⁵⁵ − 19, little endian (RFC 7748 section 4.1).
const FIELD_ORDER: [u8; 32] = [
    0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
];

/// A Curve25519 identity key that can check signatures: canonical, on the curve, of large order.
#[derive(Clone, Copy, Debug)]
pub struct IdentityKey(MontgomeryPoint);

impl IdentityKey {
    /// Reads 33 bytes, the type byte 0x05 first.
    ///
    /// `None` when the length or type is another, when the number is not below the field's order, when it is no point
    /// of the curve (but of its twist), or when the point has a small order.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let number: [u8; 32] = rest.try_into().ok()?;
        if *kind != CURVE25519_TYPE || !is_canonical(&number) {
            return None;
        }
        let point = MontgomeryPoint(number);
        let edwards = point.to_edwards(0)?;
        (!edwards.is_small_order()).then_some(Self(point))
    }

    /// Whether `signature` is this key's over exactly `message`.
    ///
    /// A scalar that is not below the group's order is refused, so that nobody can make a second signature of a first.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.check(message, signature).is_some()
    }

    fn check(&self, message: &[u8], signature: &[u8]) -> Option<()> {
        let signature: &[u8; SIGNATURE_LEN] = signature.try_into().ok()?;
        let (commitment, scalar) = signature.split_first_chunk::<32>()?;
        let mut scalar: [u8; 32] = scalar.try_into().ok()?;
        let last = scalar.last_mut()?;
        let sign = *last >> 7;
        *last &= !SIGN_BIT;
        let scalar = Option::<Scalar>::from(Scalar::from_canonical_bytes(scalar))?;

        let point = self.0.to_edwards(sign)?;
        let challenge = hash(&[commitment, point.compress().as_bytes(), message])?;
        let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&challenge, &-point, &scalar);
        // All of it is public, so the comparison need not be in constant time.
        (expected.compress().as_bytes() == commitment).then_some(())
    }
}

/// Whether a Curve25519 public key has one of the few values that lead every agreement to the same secret.
#[must_use]
pub fn is_low_order(key: &[u8; 32]) -> bool {
    MontgomeryPoint(*key).mul_bits_be([true, false, false, false].into_iter()).0 == [0; 32]
}

/// Is the little-endian number below the field's order?
fn is_canonical(number: &[u8; 32]) -> bool {
    number.iter().rev().lt(FIELD_ORDER.iter().rev())
}

/// SHA-512 over all parts, as a number modulo the group's order.
fn hash(parts: &[&[u8]]) -> Option<Scalar> {
    let mut context = digest::Context::new(&digest::SHA512);
    for part in parts {
        context.update(part);
    }
    let wide = context.finish().as_ref().try_into().ok()?;
    Some(Scalar::from_bytes_mod_order_wide(&wide))
}

/// A private key that signs as libsignal does; the server never holds one, tests and `user seed` make them.
pub struct SigningKey([u8; 32]);

impl SigningKey {
    /// From 32 random bytes, clamped as RFC 7748 section 5 says.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        if let Some(first) = bytes.first_mut() {
            *first &= 248;
        }
        if let Some(last) = bytes.last_mut() {
            *last &= 127;
            *last |= 64;
        }
        Self(bytes)
    }

    /// The public key, 33 bytes with its type.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        let mut key = vec![CURVE25519_TYPE];
        key.extend_from_slice(MontgomeryPoint::mul_base_clamped(self.0).as_bytes());
        key
    }

    /// Signs a message; `random` must be new for every signature. `None` never happens with SHA-512 and 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8], random: &[u8; 64]) -> Option<[u8; SIGNATURE_LEN]> {
        let private = Scalar::from_bytes_mod_order(self.0);
        let public = EdwardsPoint::mul_base(&private).compress();
        let mut prefix = [0xff; 32];
        *prefix.first_mut()? = 0xfe;
        let nonce = hash(&[&prefix, &self.0, message, random])?;
        let commitment = EdwardsPoint::mul_base(&nonce).compress();
        let challenge = hash(&[commitment.as_bytes(), public.as_bytes(), message])?;
        let scalar = challenge * private + nonce;

        let mut signature = [0; SIGNATURE_LEN];
        let (left, right) = signature.split_at_mut(32);
        left.copy_from_slice(commitment.as_bytes());
        right.copy_from_slice(scalar.as_bytes());
        *signature.last_mut()? |= public.as_bytes().last()? & SIGN_BIT;
        Some(signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Vectors {
        group_order: String,
        cases: Vec<Case>,
        low_order: Vec<String>,
        non_canonical: Vec<String>,
        twist: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Case {
        private: String,
        public: String,
        message: String,
        random: String,
        signature: String,
        sign: u8,
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../../tests/vectors/xeddsa.json")).unwrap()
    }

    #[test]
    fn signatures_of_an_independent_implementation_hold_for_both_signs() {
        let vectors = vectors();
        let mut seen = [0; 2];
        assert!(vectors.cases.len() >= 64);
        for case in &vectors.cases {
            let (public, message, signature) = (hex(&case.public), hex(&case.message), hex(&case.signature));
            assert_eq!(signature[63] >> 7, case.sign);
            seen[usize::from(case.sign)] += 1;
            assert!(IdentityKey::parse(&public).unwrap().verify(&message, &signature));
        }
        assert!(seen[0] >= 16 && seen[1] >= 16, "{seen:?}");
    }

    #[test]
    fn our_signatures_are_the_same_bytes() {
        for case in &vectors().cases {
            let key = SigningKey::from_bytes(hex(&case.private).try_into().unwrap());
            assert_eq!(key.public(), hex(&case.public));
            let random: [u8; 64] = hex(&case.random).try_into().unwrap();
            assert_eq!(key.sign(&hex(&case.message), &random).unwrap().to_vec(), hex(&case.signature));
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_noticed() {
        for case in vectors().cases.iter().take(3) {
            let key = IdentityKey::parse(&hex(&case.public)).unwrap();
            let (message, signature) = (hex(&case.message), hex(&case.signature));
            for bit in 0..signature.len() * 8 {
                let mut flipped = signature.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!key.verify(&message, &flipped), "bit {bit} of the signature");
            }
            for bit in 0..message.len() * 8 {
                let mut flipped = message.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!key.verify(&flipped, &signature), "bit {bit} of the message");
            }
            assert!(!key.verify(&message, &signature[..63]));
            assert!(!key.verify(&message, &[0; 64]));
        }
    }

    #[test]
    fn a_scalar_with_the_group_order_added_is_refused() {
        let vectors = vectors();
        let order = hex(&vectors.group_order);
        for case in &vectors.cases {
            let mut signature = hex(&case.signature);
            signature[63] &= 0x7f;
            let mut carry = 0_u16;
            for (byte, add) in signature[32..].iter_mut().zip(&order) {
                let sum = u16::from(*byte) + u16::from(*add) + carry;
                [*byte, _] = sum.to_le_bytes();
                carry = sum >> 8;
            }
            signature[63] |= case.sign << 7;
            assert!(!IdentityKey::parse(&hex(&case.public)).unwrap().verify(&hex(&case.message), &signature));
        }
    }

    #[test]
    fn weak_and_ambiguous_keys_are_no_identity() {
        let vectors = vectors();
        assert!(vectors.low_order.len() >= 5 && vectors.non_canonical.len() >= 19 && vectors.twist.len() >= 8);
        for text in vectors.low_order.iter().chain(&vectors.non_canonical).chain(&vectors.twist) {
            assert!(IdentityKey::parse(&hex(text)).is_none(), "{text}");
        }
        for text in &vectors.low_order {
            assert!(is_low_order(hex(text)[1..].try_into().unwrap()), "{text}");
        }
        let good = hex(&vectors.cases[0].public);
        assert!(!is_low_order(good[1..].try_into().unwrap()));
        assert!(IdentityKey::parse(&good[1..]).is_none());
        assert!(IdentityKey::parse(&[&[0x06], &good[1..]].concat()).is_none());
    }
}
