//! The ledger of one-time keys: each is handed out at most once, ever.

use std::collections::HashMap;

use sotto_client::protocol::{Binary, DeviceId};

use crate::findings::{Findings, Promise};

/// What happened to a one-time key.
#[derive(Clone, Debug)]
pub enum KeyNote {
    /// Its owner is about to upload it.
    Uploaded {
        /// Whose key.
        owner: DeviceId,
        /// Its number.
        key_id: i64,
        /// The key.
        key: Binary,
    },
    /// Somebody who claimed was given it.
    Given {
        /// Whose key.
        owner: DeviceId,
        /// Its number.
        key_id: i64,
        /// The key.
        key: Binary,
    },
}

/// All one-time keys of a run.
#[derive(Default)]
pub struct KeyBook {
    keys: HashMap<(DeviceId, i64), (Binary, bool)>,
    /// Keys of which nobody here knows the upload, and that were given.
    strangers: HashMap<(DeviceId, i64), Binary>,
    given: u64,
    findings: Findings,
}

/// Judges notes about keys.
#[must_use]
pub fn check_keys(notes: impl IntoIterator<Item = KeyNote>) -> Findings {
    let mut book = KeyBook::default();
    for note in notes {
        book.note(note);
    }
    book.findings().clone()
}

impl KeyBook {
    /// Writes a note and judges it.
    pub fn note(&mut self, note: KeyNote) {
        match note {
            KeyNote::Uploaded { owner, key_id, key } => {
                self.keys.entry((owner, key_id)).or_insert((key, false));
            }
            KeyNote::Given { owner, key_id, key } => {
                self.given += 1;
                match self.keys.get_mut(&(owner, key_id)) {
                    Some((_, given @ false)) => *given = true,
                    Some(_) => self.twice(owner, key_id),
                    // Of an earlier run. It is handed out once all the same.
                    None if self.strangers.insert((owner, key_id), key.clone()).is_some() => self.twice(owner, key_id),
                    None => {}
                }
                if self.keys.get(&(owner, key_id)).is_some_and(|(uploaded, _)| *uploaded != key) {
                    self.findings.add(Promise::Altered, || format!("key {key_id} of {owner} is not what it uploaded"));
                }
            }
        }
    }

    fn twice(&mut self, owner: DeviceId, key_id: i64) {
        self.findings.add(Promise::KeyTwice, || format!("key {key_id} of {owner} was handed out twice"));
    }

    /// How many were handed out.
    #[must_use]
    pub const fn given(&self) -> u64 {
        self.given
    }

    /// What was found so far.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: DeviceId = DeviceId(uuid::Uuid::from_u128(10));
    const BEN: DeviceId = DeviceId(uuid::Uuid::from_u128(11));

    fn uploaded(owner: DeviceId, key_id: i64) -> KeyNote {
        KeyNote::Uploaded { owner, key_id, key: Binary(vec![1; 32]) }
    }

    fn given(owner: DeviceId, key_id: i64) -> KeyNote {
        KeyNote::Given { owner, key_id, key: Binary(vec![1; 32]) }
    }

    #[test]
    fn a_key_given_once_is_clean() {
        let findings = check_keys([
            uploaded(ANN, 1),
            uploaded(ANN, 2),
            given(ANN, 1),
            // A repeated upload, and the same number of another device.
            uploaded(ANN, 1),
            uploaded(BEN, 1),
            given(BEN, 1),
            given(ANN, 2),
            given(ANN, 7),
        ]);
        assert!(findings.is_clean(), "{findings:?}");
    }

    #[test]
    fn a_key_given_twice_is_found() {
        let twice = |notes: Vec<KeyNote>| {
            let findings = check_keys(notes);
            (findings.count(Promise::KeyTwice), findings.count(Promise::Altered))
        };
        assert_eq!(twice(vec![uploaded(ANN, 1), given(ANN, 1), given(ANN, 1)]), (1, 0));
        // A repeated upload brings it back.
        assert_eq!(twice(vec![uploaded(ANN, 1), given(ANN, 1), uploaded(ANN, 1), given(ANN, 1)]), (1, 0));
        // Of an earlier run.
        assert_eq!(twice(vec![given(ANN, 5), given(ANN, 5)]), (1, 0));
        let other = KeyNote::Given { owner: ANN, key_id: 1, key: Binary(vec![2; 32]) };
        assert_eq!(twice(vec![uploaded(ANN, 1), other]), (0, 1));
    }
}
