//! Secrets in columns: sealed with AES-256-GCM (NIST SP 800-38D) before they are stored, bound to their place.
//!
//! A cell is `version (1) ‖ nonce (12) ‖ ciphertext and tag`, with the key's name beside it. What it belongs to (column,
//! user, row, key) is authenticated with it: a cell that was moved to another row or column does not open. A nonce is
//! drawn at random for each cell, which bounds a key to some billions of them; keys rotate long before.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sotto_protocol::UserId;
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_schema::rows::sealed::{Reseal, SealedCell, SealedColumn, SealedRow};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::secret_key::{KeySet, SecretKeys};
use crate::error::ApiError;

/// The one version that is written and read.
const VERSION: u8 = 1;
/// Domain of what is authenticated.
const DOMAIN: &[u8] = b"sotto sealed cell";

/// Why a cell does not open, or cannot be made. No text repeats anything of its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key file has no key of this name.
    #[error("it is sealed with a key that is not in the key file")]
    UnknownKey,
    /// It was altered, cut, or belongs to another place.
    #[error("it was altered or does not belong there")]
    Forged,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// Where a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Table and column.
    pub column: SealedColumn,
    /// Whose row it is.
    pub user_id: UserId,
    /// The row.
    pub row: Uuid,
}

impl Place {
    /// What is authenticated with a cell. Every part has a length of its own or stands behind its length.
    fn context(&self, key_id: &str) -> Vec<u8> {
        let column = self.column.as_str().as_bytes();
        let length = u8::try_from(column.len()).unwrap_or(u8::MAX);
        let ids = [self.user_id.as_bytes().as_slice(), self.row.as_bytes().as_slice()].concat();
        [DOMAIN, &[VERSION, length], column, ids.as_slice(), key_id.as_bytes()].concat()
    }

    /// Logs that the cell here does not open, once and where it is handled, and gives what a client hears of it.
    pub fn does_not_open(&self, cell: &SealedCell, error: &SealError) -> ApiError {
        tracing::error!(
            column = self.column.as_str(),
            user_id = %self.user_id,
            row = %self.row,
            key_id = ?cell.key_id,
            %error,
            "a sealed cell does not open"
        );
        Problem::new(ErrorCode::Internal, "something went wrong here; the server's log knows more").into()
    }
}

fn cipher(set: &KeySet) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, set.encryption().expose()).ok().map(LessSafeKey::new)
}

/// Seals a secret for its place with the active key.
///
/// # Errors
/// When the system gives no random bytes.
pub fn seal(keys: &SecretKeys, random: &SystemRandom, place: &Place, secret: &[u8]) -> Result<SealedCell, SealError> {
    let set = keys.active();
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce).map_err(|_| SealError::Random)?;
    let mut body = secret.to_vec();
    let context = Aad::from(place.context(set.kid()));
    let sealed = cipher(&set).and_then(|cipher| {
        cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), context, &mut body).ok()
    });
    sealed.ok_or(SealError::Random)?;
    Ok(SealedCell { key_id: set.kid().to_owned(), sealed: [[VERSION].as_slice(), &nonce, body.as_slice()].concat() })
}

/// Opens a cell at its place. A key that was added a moment ago is found.
///
/// # Errors
/// When its key is not known, or it was altered or moved.
pub fn open(keys: &SecretKeys, place: &Place, cell: &SealedCell) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let set = keys.by_kid(&cell.key_id).ok_or(SealError::UnknownKey)?;
    let (&VERSION, rest) = cell.sealed.split_first().ok_or(SealError::Forged)? else {
        return Err(SealError::Forged);
    };
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Forged)?;
    let mut body = Zeroizing::new(body.to_vec());
    let context = Aad::from(place.context(&cell.key_id));
    let cipher = cipher(&set).ok_or(SealError::Forged)?;
    let opened = cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), context, &mut body);
    let length = opened.map_err(|_| SealError::Forged)?.len();
    body.truncate(length);
    Ok(body)
}

/// The same secret at the same place, sealed with the active key.
///
/// # Errors
/// As [`open`] and [`seal`].
pub fn reseal(
    keys: &SecretKeys,
    random: &SystemRandom,
    column: SealedColumn,
    row: &SealedRow,
) -> Result<Reseal, SealError> {
    let place = Place { column, user_id: row.user_id, row: row.id };
    let secret = open(keys, &place, &row.cell)?;
    let after = seal(keys, random, &place, &secret)?;
    Ok(Reseal { id: row.id, before: row.cell.clone(), after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place() -> Place {
        Place { column: SealedColumn::TotpSecret, user_id: UserId::random(), row: Uuid::new_v4() }
    }

    #[test]
    fn a_cell_opens_at_its_place_and_nowhere_else() {
        let (keys, others) = (SecretKeys::random().unwrap(), SecretKeys::random().unwrap());
        let (random, here) = (SystemRandom::new(), place());
        let cell = seal(&keys, &random, &here, b"hunter2").unwrap();
        assert_eq!(open(&keys, &here, &cell).unwrap().as_slice(), b"hunter2");
        assert!(!cell.sealed.windows(7).any(|part| part == b"hunter2"));
        assert_ne!(cell, seal(&keys, &random, &here, b"hunter2").unwrap(), "no two cells are alike");
        for elsewhere in [
            Place { column: SealedColumn::BackupCodeHash, ..here },
            Place { user_id: UserId::random(), ..here },
            Place { row: Uuid::new_v4(), ..here },
        ] {
            assert_eq!(open(&keys, &elsewhere, &cell), Err(SealError::Forged));
        }
        assert_eq!(open(&others, &here, &cell), Err(SealError::UnknownKey));
        let renamed = SealedCell { key_id: others.active().kid().to_owned(), ..cell.clone() };
        assert_eq!(open(&others, &here, &renamed), Err(SealError::Forged));
        assert!(!format!("{cell:?}").contains("sealed"));
    }

    #[test]
    fn every_column_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = SealedColumn::ALL.map(SealedColumn::as_str).into_iter().collect();
        assert_eq!(names.len(), SealedColumn::ALL.len());
    }

    #[test]
    fn sealed_anew_with_a_newer_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let (node, command) = (SecretKeys::open(&path).unwrap(), SecretKeys::open(&path).unwrap());
        let (random, here) = (SystemRandom::new(), place());
        let cell = seal(&node, &random, &here, b"secret").unwrap();
        let kid = command.add(None).unwrap();
        let row = SealedRow { id: here.row, user_id: here.user_id, cell };
        let anew = reseal(&command, &random, here.column, &row).unwrap();
        assert_eq!((anew.after.key_id.as_str(), &anew.before), (kid.as_str(), &row.cell));
        // The node has not read the file since, and opens both.
        assert_eq!(open(&node, &here, &anew.after).unwrap().as_slice(), b"secret");
        assert_eq!(open(&node, &here, &anew.before).unwrap().as_slice(), b"secret");
    }

    proptest! {
        #[test]
        fn one_changed_bit_or_a_missing_byte_is_noticed(secret in proptest::collection::vec(any::<u8>(), 0..64),
            at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
            let (keys, here) = (SecretKeys::random().unwrap(), place());
            let cell = seal(&keys, &SystemRandom::new(), &here, &secret).unwrap();
            let opened = open(&keys, &here, &cell).unwrap();
            prop_assert_eq!(opened.as_slice(), secret.as_slice());
            let mut altered = cell.clone();
            let at = at.index(altered.sealed.len());
            altered.sealed[at] ^= 1 << bit;
            prop_assert_eq!(open(&keys, &here, &altered), Err(SealError::Forged));
            let mut cut = cell;
            cut.sealed.truncate(at);
            prop_assert_eq!(open(&keys, &here, &cut), Err(SealError::Forged));
        }

        #[test]
        fn any_bytes_are_read_without_harm(sealed in proptest::collection::vec(any::<u8>(), 0..80)) {
            let keys = SecretKeys::random().unwrap();
            let cell = SealedCell { key_id: keys.active().kid().to_owned(), sealed };
            prop_assert!(open(&keys, &place(), &cell).is_err());
        }
    }
}
