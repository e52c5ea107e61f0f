//! The server's own keys: one file, from which every key for a purpose is derived.
//!
//! The file is JSON: `{"keys":[{"kid":"…","secret":"…","not_before":"…"?}]}`. The first key whose time has come is used for
//! what is made now, all of them for what was made before, so a key rotates by putting a new one in front. Each purpose
//! has its own key, derived with HKDF-SHA256 (RFC 5869): what leaks of one tells nothing about another.
//!
//! A running server reads the file again when it has become another: at a key's name that it does not know, and every two
//! seconds beside that. So a key may be added under load, and what is made with it is opened everywhere.

mod file;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ring::{digest, hkdf, hmac};
use sotto_protocol::{Binary, Timestamp};
use zeroize::{Zeroize, ZeroizeOnDrop};

use self::file::Stamp;

pub use self::file::MOST_KEYS;

/// Fewest bytes of a secret.
const MIN_SECRET: usize = 32;
/// Length of a derived key.
const KEY_LEN: usize = 32;
/// Domain of all derivations.
const SALT: &[u8] = b"sotto secret key v1";

/// Why the server has no keys. No text repeats anything of the file's content.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The file or its folder cannot be used.
    #[error("the key file {path} cannot be {what}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Others than the owner may use the file.
    #[error("the key file {path} has mode {mode:o}, so others can use it; make it yours alone with `chmod 600`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The content is not a set of keys.
    #[error("the key file {path} is not valid: {reason}; restore it from a backup, never make another in its place")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no room for another key.
    #[error("the key file {path} holds {most} keys, which is the most; take out those that seal nothing any more", most = MOST_KEYS)]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// A key for one purpose, as bytes; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PurposeKey([u8; KEY_LEN]);

impl PurposeKey {
    /// The 32 bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for PurposeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PurposeKey(***)")
    }
}

/// What is derived from one key of the file.
pub struct KeySet {
    kid: String,
    access_token: PurposeKey,
    cursor: hmac::Key,
    encryption: PurposeKey,
    cluster: PurposeKey,
    code: hmac::Key,
    refresh_token: hmac::Key,
    challenge: hmac::Key,
    fingerprint: [u8; KEY_LEN],
}

impl KeySet {
    /// The key's name, as it stands in token headers.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Signs access tokens (HS256).
    #[must_use]
    pub fn access_token(&self) -> &PurposeKey {
        &self.access_token
    }

    /// Signs sync cursors and page cursors (HMAC-SHA256).
    #[must_use]
    pub fn cursor(&self) -> &hmac::Key {
        &self.cursor
    }

    /// Encrypts secrets in columns (AES-256-GCM).
    #[must_use]
    pub fn encryption(&self) -> &PurposeKey {
        &self.encryption
    }

    /// Seals what nodes tell each other.
    #[must_use]
    pub fn cluster(&self) -> &PurposeKey {
        &self.cluster
    }

    fn derive(kid: String, secret: &[u8]) -> Option<Self> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret);
        let purpose = |name: &str| {
            let mut key = PurposeKey([0; KEY_LEN]);
            let info = [name.as_bytes()];
            root.expand(&info, hkdf::HKDF_SHA256).ok()?.fill(&mut key.0).ok()?;
            Some(key)
        };
        let hmac_key = |name: &str| Some(hmac::Key::new(hmac::HMAC_SHA256, purpose(name)?.expose()));
        Some(Self {
            kid,
            access_token: purpose("access token")?,
            cursor: hmac_key("cursor")?,
            encryption: purpose("encryption")?,
            cluster: purpose("cluster")?,
            code: hmac_key("code")?,
            refresh_token: hmac_key("refresh token")?,
            challenge: hmac_key("challenge")?,
            fingerprint: purpose("fingerprint")?.0,
        })
    }
}

/// The keys of the file as they were read last.
struct Ring {
    /// In the order of the file; never empty.
    sets: Vec<(Arc<KeySet>, Option<Timestamp>)>,
    active: Arc<KeySet>,
    oldest: Arc<KeySet>,
    /// Which file they are from.
    stamp: Option<Stamp>,
}

impl Ring {
    fn new(sets: Vec<(KeySet, Option<Timestamp>)>, stamp: Option<Stamp>, now: Timestamp) -> Result<Self, &'static str> {
        let sets: Vec<_> = sets.into_iter().map(|(set, not_before)| (Arc::new(set), not_before)).collect();
        let oldest = sets.last().map(|(set, _)| Arc::clone(set)).ok_or("there is no key in it")?;
        let active = active(&sets, now).unwrap_or_else(|| Arc::clone(&oldest));
        Ok(Self { sets, active, oldest, stamp })
    }

    fn read(path: &Path, now: Timestamp) -> Result<Self, SecretKeyError> {
        let (stored, metadata) = file::read(path)?;
        let ring = stored.sets().and_then(|sets| Self::new(sets, Some(Stamp::of(&metadata)), now));
        ring.map_err(|reason| file::content(path, reason))
    }

    fn by_kid(&self, kid: &str) -> Option<Arc<KeySet>> {
        self.sets.iter().find(|(set, _)| set.kid == kid).map(|(set, _)| Arc::clone(set))
    }
}

/// The first key whose time has come.
fn active(sets: &[(Arc<KeySet>, Option<Timestamp>)], now: Timestamp) -> Option<Arc<KeySet>> {
    let found = sets.iter().find(|(_, not_before)| not_before.is_none_or(|moment| moment <= now));
    found.map(|(set, _)| Arc::clone(set))
}

/// All keys of the file. `Debug` shows their names only.
pub struct SecretKeys {
    /// None for keys that stand in no file.
    path: Option<PathBuf>,
    ring: RwLock<Ring>,
}

impl SecretKeys {
    /// Reads the file, or makes it when there is none (mode 0600, exclusive: of two nodes that start together on one
    /// file, both use the one that was first).
    ///
    /// # Errors
    /// When the file cannot be read or made, can be used by others, or is not a set of keys.
    pub fn open(path: &Path) -> Result<Self, SecretKeyError> {
        match Self::open_existing(path) {
            Err(SecretKeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                file::make(path)?;
                Self::open_existing(path)
            }
            outcome => outcome,
        }
    }

    /// Reads the file and makes none.
    ///
    /// # Errors
    /// When the file is not there, cannot be read, can be used by others, or is not a set of keys.
    pub fn open_existing(path: &Path) -> Result<Self, SecretKeyError> {
        let ring = Ring::read(path, Timestamp::now())?;
        Ok(Self { path: Some(path.to_owned()), ring: RwLock::new(ring) })
    }

    /// A set that stands in no file, for tests and for tools that never sign in.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, SecretKeyError> {
        let mut secret = file::draw::<MIN_SECRET>()?;
        let set = KeySet::derive(file::kid()?, &secret).ok_or(SecretKeyError::Random);
        secret.zeroize();
        let ring = Ring::new(vec![(set?, None)], None, Timestamp::now()).map_err(|_| SecretKeyError::Random)?;
        Ok(Self { path: None, ring: RwLock::new(ring) })
    }

    /// Puts a new key in front of the file's and reads it; gives its name. Until `not_before` it opens and does not seal.
    ///
    /// # Errors
    /// When the file cannot be replaced, or holds [`MOST_KEYS`].
    pub fn add(&self, not_before: Option<Timestamp>) -> Result<String, SecretKeyError> {
        let Some(path) = &self.path else {
            let source = io::Error::new(io::ErrorKind::Unsupported, "these keys stand in no file");
            return Err(SecretKeyError::File { path: PathBuf::new(), what: "replaced", source });
        };
        let kid = file::add(path, not_before)?;
        self.look();
        Ok(kid)
    }

    /// Reads the file again if it is another than the one that was read, and looks whose time has come. A file that
    /// cannot be used, or holds keys of another server, changes nothing: the keys of before stay.
    pub fn look(&self) {
        let Some(path) = &self.path else { return };
        let now = Timestamp::now();
        let stamp = Stamp::at(path).ok();
        let is_known = stamp.is_none() || self.with(|ring| ring.stamp == stamp);
        let is_current = |ring: &Ring| active(&ring.sets, now).is_none_or(|active| active.kid == ring.active.kid);
        // Anybody can name a key that is not there: readers are held up only where something changes.
        if is_known && self.with(is_current) {
            return;
        }
        let read = if is_known { None } else { Some(Ring::read(path, now)) };
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Some(Ok(fresh)) if fresh.oldest.fingerprint == ring.oldest.fingerprint => {
                tracing::info!(keys = fresh.sets.len(), active = fresh.active.kid, "the secret keys were read again");
                *ring = fresh;
            }
            Some(Ok(_)) => {
                // Said once for each file.
                ring.stamp = stamp;
                tracing::error!("the secret key file holds another server's keys; they are not used");
            }
            Some(Err(error)) => {
                ring.stamp = stamp;
                tracing::error!(%error, "the secret key file was changed and cannot be used; the keys of before stay");
            }
            None => {
                if let Some(active) = active(&ring.sets, now).filter(|active| active.kid != ring.active.kid) {
                    tracing::info!(active = active.kid, "a secret key's time has come");
                    ring.active = active;
                }
            }
        }
    }

    fn with<T>(&self, look: impl FnOnce(&Ring) -> T) -> T {
        look(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keys for what is made now.
    #[must_use]
    pub fn active(&self) -> Arc<KeySet> {
        self.with(|ring| Arc::clone(&ring.active))
    }

    /// The keys with this name; for a name that is not known the file is looked at again.
    #[must_use]
    pub fn by_kid(&self, kid: &str) -> Option<Arc<KeySet>> {
        self.with(|ring| ring.by_kid(kid)).or_else(|| {
            self.look();
            self.with(|ring| ring.by_kid(kid))
        })
    }

    /// All keys in the order of the file: the newest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = Arc<KeySet>> + use<> {
        let sets: Vec<_> = self.with(|ring| ring.sets.iter().map(|(set, _)| Arc::clone(set)).collect());
        sets.into_iter()
    }

    /// The newest key and the moment before which it does not seal, if that has not come yet.
    #[must_use]
    pub fn waiting(&self, now: Timestamp) -> Option<(Arc<KeySet>, Timestamp)> {
        let newest = self.with(|ring| ring.sets.first().cloned());
        newest.and_then(|(set, not_before)| Some((set, not_before.filter(|moment| *moment > now)?)))
    }

    /// The oldest key of the file, for what must not end by a rotation: refresh tokens and what is only counted.
    /// Taking that key out of the file ends them.
    fn oldest(&self) -> Arc<KeySet> {
        self.with(|ring| Arc::clone(&ring.oldest))
    }

    /// Hashes a code.
    pub(super) fn hash_code(&self, message: &[u8]) -> hmac::Tag {
        hmac::sign(&self.active().code, message)
    }

    /// Hashes a message with each of the keys, because the stored hash may be from before a rotation, or from a node that has
    /// seen a newer key.
    pub(super) fn hash_code_by_all(&self, message: &[u8]) -> Vec<Vec<u8>> {
        self.look();
        self.all().map(|set| hmac::sign(&set.code, message).as_ref().to_vec()).collect()
    }

    /// Whether the hash was made with any of the keys; codes of the last minutes may be from before a rotation, or from
    /// a node that has seen a newer key.
    pub(super) fn verify_code(&self, message: &[u8], hash: &[u8]) -> bool {
        self.look();
        self.all().fold(false, |found, set| hmac::verify(&set.code, message, hash).is_ok() | found)
    }

    /// Signs a challenge.
    pub(super) fn sign_challenge(&self, message: &[u8]) -> hmac::Tag {
        hmac::sign(&self.active().challenge, message)
    }

    /// Whether a challenge was signed with any of the keys, as [`SecretKeys::verify_code`] does it.
    pub(super) fn verify_challenge(&self, message: &[u8], tag: &[u8]) -> bool {
        self.look();
        self.all().any(|set| hmac::verify(&set.challenge, message, tag).is_ok())
    }

    /// Hashes refresh tokens and derives their successors, by the oldest key: a rotation must not end every session.
    pub(super) fn sign_refresh_token(&self, message: &[u8]) -> hmac::Tag {
        hmac::sign(&self.oldest().refresh_token, message)
    }

    /// Stands for a number or an address where things are only counted. Always of the oldest key, as refresh tokens.
    #[must_use]
    pub fn pseudonym(&self, text: &str) -> Vec<u8> {
        self.sign_refresh_token(&[b"name", text.as_bytes()].concat()).as_ref().to_vec()
    }

    /// Names the set in the database, so that a node with another set is refused. Tells nothing about the keys. Only
    /// the oldest key counts, so that it stays the same when a new key is put in front.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        Binary::encode(digest::digest(&digest::SHA256, &self.oldest().fingerprint).as_ref())
    }
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.all().map(|set| set.kid.clone())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::file::{Stored, StoredKey};
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_millis(1_795_253_400_000);

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("secret.key");
        (folder, path)
    }

    fn ring(keys: &[(&str, Option<Timestamp>)]) -> Ring {
        let keys = keys.iter().map(|(name, not_before)| StoredKey {
            kid: (*name).to_owned(),
            secret: Binary::encode(&name.as_bytes().repeat(32)),
            not_before: *not_before,
        });
        Ring::new(Stored { keys: keys.collect() }.sets().unwrap(), None, NOW).unwrap()
    }

    fn keys(names: &[&str]) -> SecretKeys {
        let names: Vec<_> = names.iter().map(|name| (*name, None)).collect();
        SecretKeys { path: None, ring: RwLock::new(ring(&names)) }
    }

    #[test]
    fn made_once_then_read() {
        let (_folder, path) = place();
        let first = SecretKeys::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = SecretKeys::open(&path).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.active().access_token().expose(), second.active().access_token().expose());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_ne!(first.fingerprint(), SecretKeys::random().unwrap().fingerprint());
    }

    #[test]
    fn of_many_that_start_together_all_get_the_same() {
        let (_folder, path) = place();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || SecretKeys::open(&path).unwrap().fingerprint())
            })
            .collect();
        let all: std::collections::HashSet<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn a_file_that_others_can_use_is_refused() {
        let (_folder, path) = place();
        SecretKeys::open(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = SecretKeys::open(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{mode:o}")), "{error}");
        }
    }

    #[test]
    fn a_broken_file_is_refused_and_not_repeated() {
        let (_folder, path) = place();
        SecretKeys::open(&path).unwrap();
        let secret = Binary::encode(&[1; 31]);
        let long = Binary::encode(&[1; 32]);
        for (text, reason) in [
            ("hunter2".to_owned(), "JSON"),
            (String::new(), "JSON"),
            (r#"{"keys":[]}"#.to_owned(), "no key"),
            (format!(r#"{{"keys":[{{"kid":"a","secret":"{secret}"}}]}}"#), "fewer than 32"),
            (format!(r#"{{"keys":[{{"kid":"","secret":"{long}"}}]}}"#), "`kid`"),
            (r#"{"keys":[{"kid":"a","secret":"hunter2 "}]}"#.to_owned(), "base64url"),
            (format!(r#"{{"keys":[{{"kid":"a","secret":"{long}"}},{{"kid":"a","secret":"{long}"}}]}}"#), "same `kid`"),
        ] {
            fs::write(&path, text).unwrap();
            let error = SecretKeys::open(&path).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn each_purpose_has_its_own_key_and_a_new_key_goes_in_front() {
        let (old, new) = (keys(&["a"]), keys(&["b", "a"]));
        assert_ne!(old.active().access_token().expose(), old.active().encryption().expose());
        assert_eq!(new.active().kid(), "b");
        assert_eq!(new.by_kid("a").unwrap().encryption().expose(), old.active().encryption().expose());
        assert!(new.by_kid("c").is_none());
        assert_eq!(old.fingerprint(), new.fingerprint());
        let sign = |keys: &SecretKeys| keys.sign_refresh_token(b"x").as_ref().to_vec();
        assert_eq!(sign(&old), sign(&new));
        assert_eq!(format!("{new:?}"), r#"["b", "a"]"#);
    }

    #[test]
    fn a_key_whose_time_has_not_come_opens_and_does_not_seal() {
        let soon = NOW.plus(Duration::from_secs(60));
        let ring = ring(&[("c", Some(soon)), ("b", None), ("a", None)]);
        assert_eq!(ring.active.kid(), "b");
        assert!(ring.by_kid("c").is_some());
        assert_eq!(active(&ring.sets, soon).unwrap().kid(), "c");
        let keys = SecretKeys { path: None, ring: RwLock::new(ring) };
        let (newest, from) = keys.waiting(NOW).unwrap();
        assert_eq!((newest.kid(), from), ("c", soon));
        assert!(keys.waiting(soon).is_none());
    }

    #[test]
    fn a_key_that_was_added_elsewhere_is_found_by_its_name() {
        let (_folder, path) = place();
        let (node, command) = (SecretKeys::open(&path).unwrap(), SecretKeys::open(&path).unwrap());
        let before = node.active().kid().to_owned();
        let kid = command.add(None).unwrap();
        assert_eq!(command.active().kid(), kid);
        assert_eq!(node.active().kid(), before, "nobody has told it yet");
        assert!(node.by_kid(&kid).is_some());
        assert_eq!(node.active().kid(), kid, "and from now on it seals with it");
        assert!(node.by_kid(&before).is_some());
        assert_eq!(node.fingerprint(), SecretKeys::open(&path).unwrap().fingerprint());
    }

    #[test]
    fn keys_of_before_stay_when_the_file_cannot_be_used() {
        let (_folder, path) = place();
        let node = SecretKeys::open(&path).unwrap();
        let before = node.active().kid().to_owned();
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, "{").unwrap();
        node.look();
        assert_eq!(node.active().kid(), before);
        // Another server's file.
        fs::remove_file(&path).unwrap();
        SecretKeys::open(&path).unwrap();
        node.look();
        assert_eq!(node.active().kid(), before);
        fs::remove_file(&path).unwrap();
        node.look();
        assert!(node.by_kid(&before).is_some());
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let kid = SecretKeys::open(&path).unwrap().add(None).unwrap();
        assert!(node.by_kid(&kid).is_some());
    }
}
