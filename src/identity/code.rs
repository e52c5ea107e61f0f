//! Codes from text messages: six digits, kept only as a salted keyed hash.

use std::fmt;

use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use sotto_protocol::VerificationId;
use zeroize::Zeroize;

use super::secret_key::SecretKeys;

/// How many codes there are.
const CODES: u32 = 1_000_000;
/// The largest multiple of [`CODES`] that 32 bits hold: numbers from here on would favour small codes.
const FAIR: u32 = u32::MAX - u32::MAX % CODES;

/// A code on its way to its owner. Shown only by [`Code::expose`], wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Code(String);

impl Code {
    /// Draws a code, each of the million equally likely.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random(random: &SystemRandom) -> Result<Self, Unspecified> {
        loop {
            let mut bytes = [0; 4];
            random.fill(&mut bytes)?;
            if let Some(code) = Self::from_number(u32::from_le_bytes(bytes)) {
                return Ok(code);
            }
        }
    }

    /// Without the modulo's bias: a number of the last, incomplete million is no code.
    fn from_number(number: u32) -> Option<Self> {
        (number < FAIR).then(|| Self(format!("{:06}", number % CODES)))
    }

    /// The digits, for the message to the owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored: HMAC-SHA256 under the server's key, salted with the verification's id.
    #[must_use]
    pub fn hash(&self, keys: &SecretKeys, verification_id: VerificationId) -> Vec<u8> {
        keys.hash_code(&salted(verification_id, &self.0)).as_ref().to_vec()
    }
}

/// The hashes that a presented text may have in the database, one for each of the server's keys.
#[must_use]
pub fn hashes(keys: &SecretKeys, verification_id: VerificationId, text: &str) -> Vec<Vec<u8>> {
    keys.hash_code_by_all(&salted(verification_id, text))
}

fn salted(verification_id: VerificationId, code: &str) -> Vec<u8> {
    let mut message = verification_id.as_bytes().to_vec();
    message.extend_from_slice(code.as_bytes());
    message
}

impl fmt::Debug for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Code(***)")
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_last_incomplete_million_are_drawn_again() {
        assert_eq!(FAIR, 4_294_000_000);
        assert_eq!(Code::from_number(0).unwrap().expose(), "000000");
        assert_eq!(Code::from_number(FAIR - 1).unwrap().expose(), "999999");
        assert!(Code::from_number(FAIR).is_none());
        assert!(Code::from_number(u32::MAX).is_none());
        let code = Code::random(&SystemRandom::new()).unwrap();
        assert!(code.expose().len() == 6 && code.expose().bytes().all(|byte| byte.is_ascii_digit()));
    }

    #[test]
    fn a_hash_belongs_to_code_key_and_verification() {
        let (keys, others) = (SecretKeys::random().unwrap(), SecretKeys::random().unwrap());
        let (id, other) = (VerificationId::random(), VerificationId::random());
        let code = Code::from_number(123_456).unwrap();
        let hash = code.hash(&keys, id);
        let matches = |keys, id, text| hashes(keys, id, text).contains(&hash);
        assert!(matches(&keys, id, "123456"));
        assert!(!matches(&keys, id, "123457"));
        assert!(!matches(&keys, id, ""));
        assert!(!matches(&keys, other, "123456"));
        assert!(!matches(&others, id, "123456"));
        assert_eq!(format!("{code:?}"), "Code(***)");
    }
}
