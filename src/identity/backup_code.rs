//! Backup codes: what stands in for a second factor whose device is lost, once each.
//!
//! A code has 50 random bits. Its hash is salted, and sealed beside that: the database alone gives nothing to try codes
//! against.

use std::fmt;

use ring::digest;
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// How many codes an account gets at once.
pub const COUNT: usize = 10;
/// Characters of a code, without the hyphen.
const LEN: usize = 10;
/// Bytes of a salt.
const SALT_LEN: usize = 16;
/// 32 characters that are not mistaken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Domain of the hash.
const DOMAIN: &[u8] = b"sotto backup code v1";

/// A code on its way to its owner, or back from him. `Debug` hides it; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct BackupCode(String);

impl BackupCode {
    /// Draws a code, each equally likely.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random(random: &SystemRandom) -> Result<Self, Unspecified> {
        let mut bytes = [0; LEN];
        random.fill(&mut bytes)?;
        // 256 is a multiple of 32: no character is favoured.
        let letters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32)).copied());
        let code = Self(letters.map(char::from).collect());
        bytes.zeroize();
        Ok(code)
    }

    /// Reads what somebody typed: capitals, spaces and hyphens do not matter. `None`: it cannot be a code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 4 * LEN {
            return None;
        }
        let letters = text.chars().filter(|letter| *letter != '-' && !letter.is_whitespace());
        let code = Self(letters.map(|letter| letter.to_ascii_lowercase()).collect());
        let is_code = code.0.len() == LEN && code.0.bytes().all(|byte| ALPHABET.contains(&byte));
        is_code.then_some(code)
    }

    /// The code as it is shown, in two halves.
    #[must_use]
    pub fn expose(&self) -> String {
        let (first, second) = self.0.split_at_checked(LEN / 2).unwrap_or((&self.0, ""));
        format!("{first}-{second}")
    }

    /// Draws a salt.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn salt(random: &SystemRandom) -> Result<[u8; SALT_LEN], Unspecified> {
        let mut salt = [0; SALT_LEN];
        random.fill(&mut salt)?;
        Ok(salt)
    }

    /// What is sealed and stored: SHA-256 over salt and code.
    #[must_use]
    pub fn hash(&self, salt: &[u8]) -> Vec<u8> {
        digest::digest(&digest::SHA256, &[DOMAIN, salt, self.0.as_bytes()].concat()).as_ref().to_vec()
    }

    /// Whether the hash is this code's, in constant time.
    #[must_use]
    pub fn matches(&self, salt: &[u8], hash: &[u8]) -> bool {
        self.hash(salt).ct_eq(hash).into()
    }
}

impl fmt::Debug for BackupCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BackupCode(***)")
    }
}

impl Drop for BackupCode {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_as_people_type() {
        let code = BackupCode::random(&SystemRandom::new()).unwrap();
        let shown = code.expose();
        assert_eq!((shown.len(), shown.find('-')), (11, Some(5)));
        for text in [
            shown.clone(),
            shown.to_uppercase(),
            shown.replace('-', " "),
            shown.replace('-', ""),
            format!(" {shown}\n"),
        ] {
            assert!(BackupCode::parse(&text).unwrap() == code, "{text}");
        }
        for text in ["", "abcde", "abcde-fghi1", "abcde-fghil", "abcde-fghijk", "äbcde-fghij", &"a".repeat(100)] {
            assert!(BackupCode::parse(text).is_none(), "{text}");
        }
        assert_eq!(format!("{code:?}"), "BackupCode(***)");
    }

    #[test]
    fn a_hash_belongs_to_code_and_salt() {
        let random = SystemRandom::new();
        let (code, other) = (BackupCode::random(&random).unwrap(), BackupCode::random(&random).unwrap());
        let (salt, another) = (BackupCode::salt(&random).unwrap(), BackupCode::salt(&random).unwrap());
        let hash = code.hash(&salt);
        assert!(code.matches(&salt, &hash));
        assert!(!code.matches(&another, &hash) && !other.matches(&salt, &hash) && !code.matches(&salt, &[]));
        assert!(code != other);
    }
}
