//! Sealing of what the store keeps: pickles, tokens, message texts.

use crate::error::{Error, Result};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

const KEY_LENGTH: usize = 32;

/// The key that seals a store. An application with a keychain supplies it; others let it be kept in
/// a file beside the store, which protects copies of the store alone and nothing more.
#[derive(Clone)]
pub struct StoreKey([u8; KEY_LENGTH]);

impl StoreKey {
    /// A key from the application's keychain.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LENGTH]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; KEY_LENGTH];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Error::crypto("no random numbers"))?;
        Ok(Self(bytes))
    }

    /// The key's bytes, to be put into a keychain.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }

    /// Reads the key from the file `STORE.key` beside the store, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be read or made, or has another length.
    pub fn beside(store: &Path) -> Result<Self> {
        let mut name = store.as_os_str().to_owned();
        name.push(".key");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        match options.open(&name) {
            Ok(mut file) => {
                let key = Self::random()?;
                file.write_all(&key.0).and_then(|()| file.sync_all()).map_err(Error::store)?;
                Ok(key)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let mut bytes = Zeroizing::new(Vec::new());
                std::fs::File::open(&name).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(Error::store)?;
                bytes.as_slice().try_into().map(Self).map_err(|_| Error::StoreKey)
            }
            Err(error) => Err(Error::store(error)),
        }
    }
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StoreKey(..)")
    }
}

impl Drop for StoreKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Seals and opens with AES-256-GCM. The context names the row, so that a sealed value cannot be
/// moved into another place of the store.
pub(crate) struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Seal {
    pub(crate) fn new(key: &StoreKey) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &key.0).map_err(|_| Error::StoreKey)?;
        Ok(Self { key: LessSafeKey::new(key), random: SystemRandom::new() })
    }

    pub(crate) fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| Error::crypto("no random numbers"))?;
        let mut text = plain.to_vec();
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context.as_bytes()), &mut text)
            .map_err(|_| Error::crypto("sealing failed"))?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    pub(crate) fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Error::StoreKey)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context.as_bytes()), &mut text)
            .map_err(|_| Error::StoreKey)?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_in_its_place_and_with_its_key() {
        let seal = Seal::new(&StoreKey::random().unwrap()).unwrap();
        let sealed = seal.seal("a", b"text").unwrap();
        assert_eq!(seal.open("a", &sealed).unwrap().as_slice(), b"text");
        assert!(seal.open("b", &sealed).is_err());
        let other = Seal::new(&StoreKey::random().unwrap()).unwrap();
        assert!(other.open("a", &sealed).is_err());
        assert!(seal.open("a", b"short").is_err());
    }

    #[test]
    fn a_key_beside_the_store_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.db");
        let first = StoreKey::beside(&store).unwrap();
        let second = StoreKey::beside(&store).unwrap();
        assert_eq!(first.as_bytes(), second.as_bytes());
    }
}
