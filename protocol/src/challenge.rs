//! Challenges that a client may have to answer before a code is sent.

use crate::problem::FieldError;
use crate::{Timestamp, text};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// Most characters of a challenge.
pub const MAX_CHALLENGE: usize = 200;
/// Most characters of a solution; captcha services give long ones.
pub const MAX_SOLUTION: usize = 8192;

/// The challenge to be answered: the member `challenge` of a `challenge_required` problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Challenge {
    /// A solution is to be found by computing.
    ProofOfWork {
        /// The text that the solution is found for.
        challenge: String,
        /// Leading zero bits that are needed.
        difficulty: u32,
        /// When it stops being taken.
        expires_at: Timestamp,
    },
    /// An answer is to be got from a captcha service.
    Captcha {
        /// The site key at the service.
        site_key: String,
    },
}

/// The answer to a [`Challenge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChallengeResponse {
    /// The challenge's text, of a proof of work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// The solution of a proof of work, or the token from the captcha widget.
    pub solution: String,
}

impl ChallengeResponse {
    /// Checks lengths and characters; `prefix` is the pointer of the object.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, prefix: &str) -> Result<(), FieldError> {
        if let Some(challenge) = &self.challenge {
            text::check(&format!("{prefix}/challenge"), challenge, MAX_CHALLENGE, true)?;
        }
        text::check(&format!("{prefix}/solution"), &self.solution, MAX_SOLUTION, true)
    }
}

/// Counts the leading zero bits of SHA-256 over the challenge's text followed by the solution's text.
#[must_use]
pub fn zero_bits(challenge: &str, solution: &str) -> u32 {
    let digest = Sha256::new().chain_update(challenge).chain_update(solution).finalize();
    let mut bits = 0;
    for byte in digest {
        bits += byte.leading_zeros();
        if byte != 0 {
            break;
        }
    }
    bits
}

/// Finds the first decimal number that solves a proof of work. It computes for as long as that takes.
#[must_use]
pub fn solve(challenge: &str, difficulty: u32) -> Option<String> {
    (0..u64::MAX).map(|counter| counter.to_string()).find(|solution| zero_bits(challenge, solution) >= difficulty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_documentation() {
        let challenge = "AQwAAAGVtN5jgGhlbGxvLCBub25jZSEhISEhISEh";
        assert_eq!(solve(challenge, 12).as_deref(), Some("5958"));
        assert!(zero_bits(challenge, "5958") >= 12);
        assert!(zero_bits(challenge, "0") < 12);
    }
}
