//! Letters between nodes: whoever shares the secret key file can read and write them, and nobody else.
//!
//! `version (1) ‖ sender's incarnation (16) ‖ number (8, big-endian) ‖ ciphertext and tag`, by AES-256-GCM
//! (NIST SP 800-38D). Each incarnation seals with a key of its own, derived from the cluster's by HKDF-SHA256
//! (RFC 5869), and counts its letters, so no nonce comes twice. What stands in front and the receiver's incarnation are
//! authenticated with it: a letter cannot be altered, turned to another node, or posted again.

use crate::registry::Incarnation;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use std::collections::HashMap;
use std::fmt;
use uuid::Uuid;

/// The one version that this program writes and reads.
pub const VERSION: u8 = 1;
const HEAD: usize = 1 + 16 + 8;
const SALT: &[u8] = b"sotto bus v1";
/// Senders that are remembered; a cluster has far fewer nodes, restarts included.
const MAX_SENDERS: usize = 1024;

/// Secrets from which the keys of letters are derived: the first seals, all open. Never shown.
#[derive(Clone)]
pub struct ClusterKeys(Vec<[u8; 32]>);

impl ClusterKeys {
    /// From the secret key file; the first one must be known to every node.
    #[must_use]
    pub const fn new(keys: Vec<[u8; 32]>) -> Self {
        Self(keys)
    }
}

impl fmt::Debug for ClusterKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClusterKeys(***)")
    }
}

/// Why a letter is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Of a version that this program does not know.
    Version,
    /// Not from a node of this cluster, not for this node, or altered.
    Forged,
    /// Known already.
    Repeated,
}

impl Refusal {
    /// For metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Forged => "forged",
            Self::Repeated => "repeated",
        }
    }
}

fn key_of(secret: &[u8; 32], sender: Incarnation) -> Option<LessSafeKey> {
    let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret);
    let info = [sender.0.as_bytes().as_slice()];
    Some(LessSafeKey::new(UnboundKey::from(root.expand(&info, &AES_256_GCM).ok()?)))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn context(head: &[u8], receiver: Incarnation) -> Vec<u8> {
    [head, receiver.0.as_bytes().as_slice()].concat()
}

/// Seals the letters of one incarnation.
pub struct Sealer {
    own: Incarnation,
    key: Option<LessSafeKey>,
    number: u64,
}

impl Sealer {
    /// For a node that has just started, under an incarnation that nobody else has.
    #[must_use]
    pub fn new(keys: &ClusterKeys, own: Incarnation) -> Self {
        Self { own, key: keys.0.first().and_then(|secret| key_of(secret, own)), number: 0 }
    }

    /// A letter to a node; `None` if it cannot be sealed.
    pub fn seal(&mut self, to: Incarnation, content: Vec<u8>) -> Option<Vec<u8>> {
        self.number += 1;
        let mut letter = Vec::with_capacity(HEAD + content.len() + AES_256_GCM.tag_len());
        letter.push(VERSION);
        letter.extend_from_slice(self.own.0.as_bytes());
        letter.extend_from_slice(&self.number.to_be_bytes());
        let aad = context(&letter, to);
        let mut sealed = content;
        self.key.as_ref()?.seal_in_place_append_tag(nonce(self.number), Aad::from(aad), &mut sealed).ok()?;
        letter.extend_from_slice(&sealed);
        Some(letter)
    }
}

/// Who says to have written a letter; true of one that was opened.
#[must_use]
pub fn sender_of(letter: &[u8]) -> Option<Incarnation> {
    letter.get(1..17).and_then(|bytes| Uuid::from_slice(bytes).ok()).map(Incarnation)
}

struct Known {
    keys: Vec<LessSafeKey>,
    last: u64,
}

/// Opens letters to one incarnation.
pub struct Opener {
    own: Incarnation,
    secrets: ClusterKeys,
    senders: HashMap<Incarnation, Known>,
}

impl Opener {
    /// For the node that letters are addressed to.
    #[must_use]
    pub fn new(secrets: ClusterKeys, own: Incarnation) -> Self {
        Self { own, secrets, senders: HashMap::new() }
    }

    /// What stands in a letter.
    ///
    /// # Errors
    /// It is refused; nothing of it is to be used.
    pub fn open(&mut self, letter: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (version, _) = letter.split_first().ok_or(Refusal::Forged)?;
        if *version != VERSION {
            return Err(Refusal::Version);
        }
        let (head, sealed) = letter.split_at_checked(HEAD).ok_or(Refusal::Forged)?;
        let sender = sender_of(head).ok_or(Refusal::Forged)?;
        let number = head.get(17..HEAD).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let number = number.ok_or(Refusal::Forged)?;
        let aad = context(head, self.own);
        let opens = |keys: &[LessSafeKey]| {
            keys.iter().find_map(|key| {
                let mut content = sealed.to_vec();
                let length = key.open_in_place(nonce(number), Aad::from(&aad), &mut content).ok()?.len();
                content.truncate(length);
                Some(content)
            })
        };
        if let Some(known) = self.senders.get_mut(&sender) {
            let content = opens(&known.keys).ok_or(Refusal::Forged)?;
            if number <= known.last {
                return Err(Refusal::Repeated);
            }
            known.last = number;
            return Ok(content);
        }
        let keys: Vec<LessSafeKey> = self.secrets.0.iter().filter_map(|secret| key_of(secret, sender)).collect();
        let content = opens(&keys).ok_or(Refusal::Forged)?;
        // Only those who know the secret come so far, so nobody else can make this grow.
        if self.senders.len() >= MAX_SENDERS {
            self.senders.clear();
        }
        self.senders.insert(sender, Known { keys, last: number });
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener, Incarnation) {
        let keys = ClusterKeys::new(vec![[7; 32]]);
        let (a, b) = (Incarnation::fresh(), Incarnation::fresh());
        (Sealer::new(&keys, a), Opener::new(keys, b), b)
    }

    #[test]
    fn a_letter_is_opened_once_and_only_by_its_receiver() {
        let (mut sealer, mut opener, to) = pair();
        let first = sealer.seal(to, b"one".to_vec()).unwrap_or_default();
        let second = sealer.seal(to, b"two".to_vec()).unwrap_or_default();
        assert_eq!(opener.open(&first), Ok(b"one".to_vec()));
        assert_eq!(opener.open(&first), Err(Refusal::Repeated));
        assert_eq!(opener.open(&second), Ok(b"two".to_vec()));
        assert_eq!(opener.open(&first), Err(Refusal::Repeated));
        let mut other = Opener::new(ClusterKeys::new(vec![[7; 32]]), Incarnation::fresh());
        assert_eq!(other.open(&second), Err(Refusal::Forged), "addressed to somebody else");
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        let (mut sealer, _, to) = pair();
        let letter = sealer.seal(to, b"content".to_vec()).unwrap_or_default();
        for place in 0..letter.len() {
            let mut opener = Opener::new(ClusterKeys::new(vec![[7; 32]]), to);
            let mut altered = letter.clone();
            if let Some(byte) = altered.get_mut(place) {
                *byte ^= 1;
            }
            let expected = if place == 0 { Refusal::Version } else { Refusal::Forged };
            assert_eq!(opener.open(&altered), Err(expected), "byte {place}");
            assert!(opener.open(letter.get(..place).unwrap_or_default()).is_err(), "cut at {place}");
        }
        let mut stranger = Opener::new(ClusterKeys::new(vec![[8; 32]]), to);
        assert_eq!(stranger.open(&letter), Err(Refusal::Forged));
    }

    #[test]
    fn a_cluster_that_rotates_its_key_reads_both() {
        let (a, b) = (Incarnation::fresh(), Incarnation::fresh());
        let mut old = Sealer::new(&ClusterKeys::new(vec![[7; 32]]), a);
        let mut opener = Opener::new(ClusterKeys::new(vec![[8; 32], [7; 32]]), b);
        let letter = old.seal(b, b"old".to_vec()).unwrap_or_default();
        assert_eq!(opener.open(&letter), Ok(b"old".to_vec()));
    }
}
