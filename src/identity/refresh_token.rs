//! Refresh tokens: opaque, 32 bytes, kept only as a hash, and with a successor that can be told twice.
//!
//! A token works once, but its answer may get lost on the way. So the successor is not drawn but derived, from the
//! presented token and a secret of its row: whoever presents the token again gets the same successor, while the
//! database alone, which holds hashes and row secrets, gives none.

use std::fmt;

use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use sotto_protocol::Binary;
use zeroize::Zeroize;

use super::secret_key::SecretKeys;

/// Length of a token, its hash and its row's secret, in bytes.
pub const TOKEN_LEN: usize = 32;

/// A refresh token. `Debug` hides it; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; TOKEN_LEN]);

/// Draws 32 random bytes: a row's secret.
///
/// # Errors
/// When the system gives no random bytes.
pub fn row_secret(random: &SystemRandom) -> Result<[u8; TOKEN_LEN], Unspecified> {
    let mut bytes = [0; TOKEN_LEN];
    random.fill(&mut bytes)?;
    Ok(bytes)
}

impl RefreshToken {
    /// Draws the first token of a family.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random(random: &SystemRandom) -> Result<Self, Unspecified> {
        row_secret(random).map(Self)
    }

    /// Reads a presented token; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Binary::decode(text)?;
        let token = bytes.as_slice().try_into().ok().map(Self);
        bytes.zeroize();
        token
    }

    /// The first token of the family that a device link brings: derived from the secret that only the new device has, so that
    /// an answer that was lost can be given again, while the database alone gives none.
    #[must_use]
    pub fn of_link(keys: &SecretKeys, link_secret: &[u8]) -> Self {
        Self::derived(keys, &[b"link", link_secret].concat())
    }

    fn derived(keys: &SecretKeys, message: &[u8]) -> Self {
        let tag = keys.sign_refresh_token(message);
        let mut token = [0; TOKEN_LEN];
        for (byte, drawn) in token.iter_mut().zip(tag.as_ref()) {
            *byte = *drawn;
        }
        Self(token)
    }

    /// The token as it is given to its device.
    #[must_use]
    pub fn expose(&self) -> String {
        Binary::encode(&self.0)
    }

    /// What is stored and looked up: HMAC-SHA256 under the server's key.
    #[must_use]
    pub fn hash(&self, keys: &SecretKeys) -> Vec<u8> {
        keys.sign_refresh_token(&[b"hash", self.0.as_slice()].concat()).as_ref().to_vec()
    }

    /// The one token that follows this one, whose row has `row_secret`.
    #[must_use]
    pub fn successor(&self, keys: &SecretKeys, row_secret: &[u8]) -> Self {
        Self::derived(keys, &[b"next", self.0.as_slice(), row_secret].concat())
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RefreshToken(***)")
    }
}

impl Drop for RefreshToken {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_is_always_the_same_and_needs_token_row_and_key() {
        let random = SystemRandom::new();
        let (keys, others) = (SecretKeys::random().unwrap(), SecretKeys::random().unwrap());
        let (token, secret) = (RefreshToken::random(&random).unwrap(), row_secret(&random).unwrap());
        let next = token.successor(&keys, &secret);
        assert!(next == token.successor(&keys, &secret));
        assert!(next != token);
        assert!(next != token.successor(&others, &secret));
        assert!(next != token.successor(&keys, &row_secret(&random).unwrap()));
        assert!(next != RefreshToken::random(&random).unwrap().successor(&keys, &secret));
    }

    #[test]
    fn text_comes_back_and_the_hash_is_not_the_token() {
        let keys = SecretKeys::random().unwrap();
        let token = RefreshToken::random(&SystemRandom::new()).unwrap();
        assert!(RefreshToken::parse(&token.expose()).unwrap() == token);
        assert_eq!(token.hash(&keys).len(), TOKEN_LEN);
        assert_ne!(token.hash(&keys), token.0);
        assert!(RefreshToken::parse("").is_none() && RefreshToken::parse("not a token").is_none());
        assert_eq!(format!("{token:?}"), "RefreshToken(***)");
    }
}
