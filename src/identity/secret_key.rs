//! The server's own keys: one file, from which every key for a purpose is derived.
//!
//! The file is JSON: `{"keys":[{"kid":"…","secret":"…"}]}`. The first key is used for what is made now, all of them
//! for what was made before, so a key rotates by putting a new one in front. Each purpose has its own key, derived
//! with HKDF-SHA256 (RFC 5869): what leaks of one tells nothing about another.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hkdf, hmac};
use serde::{Deserialize, Serialize};
use sotto_protocol::Binary;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Fewest bytes of a secret.
const MIN_SECRET: usize = 32;
/// Most bytes of the file; what is larger is not ours.
const MAX_FILE: u64 = 64 * 1024;
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
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Stored {
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    kid: String,
    secret: String,
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
            fingerprint: purpose("fingerprint")?.0,
        })
    }
}

/// All keys of the file. `Debug` shows their names only.
pub struct SecretKeys {
    active: KeySet,
    older: Vec<KeySet>,
}

impl SecretKeys {
    /// Reads the file, or makes it when there is none (mode 0600, exclusive: of two nodes that start together on one
    /// file, both use the one that was first).
    ///
    /// # Errors
    /// When the file cannot be read or made, can be used by others, or is not a set of keys.
    pub fn open(path: &Path) -> Result<Self, SecretKeyError> {
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path)?;
                let file = File::open(path).map_err(|source| file_error(path, "opened", source))?;
                Self::read(path, file)
            }
            Err(source) => Err(file_error(path, "opened", source)),
        }
    }

    /// A set that stands in no file, for tests and for tools that never sign in.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, SecretKeyError> {
        let mut secret = draw::<MIN_SECRET>()?;
        let active = KeySet::derive(kid()?, &secret).ok_or(SecretKeyError::Random);
        secret.zeroize();
        Ok(Self { active: active?, older: Vec::new() })
    }

    fn read(path: &Path, mut file: File) -> Result<Self, SecretKeyError> {
        let metadata = file.metadata().map_err(|source| file_error(path, "examined", source))?;
        let mode = metadata.mode() & 0o777;
        let ours = fs::metadata("/proc/self").map_or(0, |own| own.uid());
        if is_exposed(mode, metadata.uid(), ours) {
            return Err(SecretKeyError::Exposed { path: path.to_owned(), mode });
        }
        let content = |reason| SecretKeyError::Content { path: path.to_owned(), reason };
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(content("it is not a small regular file"));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|source| file_error(path, "read", source))?;
        let stored = serde_json::from_str(&text).map_err(|_| content("it is not the JSON that the server writes"));
        text.zeroize();
        Self::from_stored(&stored?).map_err(content)
    }

    fn from_stored(stored: &Stored) -> Result<Self, &'static str> {
        let mut sets = Vec::new();
        for key in &stored.keys {
            if key.kid.is_empty() || key.kid.len() > 64 || !key.kid.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("a `kid` is not 1 to 64 visible ASCII characters");
            }
            if sets.iter().any(|set: &KeySet| set.kid == key.kid) {
                return Err("two keys have the same `kid`");
            }
            let mut secret = Binary::decode(&key.secret).ok_or("a `secret` is not base64url")?;
            let set = KeySet::derive(key.kid.clone(), &secret);
            let length = secret.len();
            secret.zeroize();
            if length < MIN_SECRET {
                return Err("a `secret` has fewer than 32 bytes");
            }
            sets.push(set.ok_or("a `secret` cannot be used")?);
        }
        let mut sets = sets.into_iter();
        let active = sets.next().ok_or("there is no key in it")?;
        Ok(Self { active, older: sets.collect() })
    }

    /// The keys for what is made now.
    #[must_use]
    pub fn active(&self) -> &KeySet {
        &self.active
    }

    /// The keys with this name.
    #[must_use]
    pub fn by_kid(&self, kid: &str) -> Option<&KeySet> {
        self.all().find(|set| set.kid == kid)
    }

    /// All keys, the active one first.
    pub fn all(&self) -> impl Iterator<Item = &KeySet> {
        std::iter::once(&self.active).chain(&self.older)
    }

    /// Hashes codes.
    pub(super) fn code(&self) -> &hmac::Key {
        &self.active.code
    }

    /// Whether the hash was made with any of the keys; codes of the last minutes may be from before a rotation.
    pub(super) fn verify_code(&self, message: &[u8], hash: &[u8]) -> bool {
        self.all().fold(false, |found, set| hmac::verify(&set.code, message, hash).is_ok() | found)
    }

    /// Hashes refresh tokens and derives their successors. Always the oldest key of the file: a rotation must not end
    /// every session. Taking that key out of the file does.
    pub(super) fn refresh_token(&self) -> &hmac::Key {
        &self.older.last().unwrap_or(&self.active).refresh_token
    }

    /// Stands for a number or an address where things are only counted. Always of the oldest key, as refresh tokens.
    #[must_use]
    pub fn pseudonym(&self, text: &str) -> Vec<u8> {
        let tag = hmac::sign(self.refresh_token(), &[b"name", text.as_bytes()].concat());
        tag.as_ref().to_vec()
    }

    /// Names the set in the database, so that a node with another set is refused. Tells nothing about the keys. Only
    /// the oldest key counts, so that nodes may restart one by one when a new key was put in front.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let oldest = self.older.last().unwrap_or(&self.active);
        Binary::encode(digest::digest(&digest::SHA256, &oldest.fingerprint).as_ref())
    }
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.all().map(KeySet::kid)).finish()
    }
}

/// Writes a new file beside the place and links it there: it appears whole or not at all, and never over another.
fn make(path: &Path) -> Result<(), SecretKeyError> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Err(SecretKeyError::Content { path: path.to_owned(), reason: "it is a folder" }),
    };
    fs::create_dir_all(folder).map_err(|source| file_error(folder, "made", source))?;
    let mut secret = draw::<MIN_SECRET>()?;
    let stored = Stored { keys: vec![StoredKey { kid: kid()?, secret: Binary::encode(&secret) }] };
    secret.zeroize();
    let text = serde_json::to_string(&stored);
    let mut text = text.map_err(|error| file_error(path, "written", error.into()))?;
    let draft = path.with_extension(format!("{}.new", kid()?));
    let written = write(&draft, text.as_bytes());
    text.zeroize();
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    // Whatever happened, the draft has served.
    let _ = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(file_error(path, "made", error)),
        _ => File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| file_error(path, "kept", error)),
    }
}

/// Whether others than this process may use a file. Orchestrators hand secrets out as files of root that a group may
/// read: to a process that is not root, its own group is nobody else.
const fn is_exposed(mode: u32, owner: u32, ours: u32) -> bool {
    let forbidden = if owner == 0 && ours != 0 { 0o037 } else { 0o077 };
    mode & forbidden != 0
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn draw<const N: usize>() -> Result<[u8; N], SecretKeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SecretKeyError::Random)?;
    Ok(bytes)
}

fn kid() -> Result<String, SecretKeyError> {
    Ok(Binary::encode(&draw::<9>()?))
}

fn file_error(path: &Path, what: &'static str, source: io::Error) -> SecretKeyError {
    SecretKeyError::File { path: path.to_owned(), what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("secret.key");
        (folder, path)
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
    fn a_group_may_read_what_belongs_to_root_alone() {
        const ROOT: u32 = 0;
        for (mode, owner, ours, expected) in [
            (0o440, ROOT, 65532, false),
            (0o640, ROOT, 65532, false),
            (0o644, ROOT, 65532, true),
            (0o660, ROOT, 65532, true),
            (0o640, ROOT, ROOT, true),
            (0o640, 65532, 65532, true),
            (0o600, 65532, 65532, false),
        ] {
            assert_eq!(is_exposed(mode, owner, ours), expected, "{mode:o} of {owner} for {ours}");
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
        let set = |names: &[&str]| {
            let keys = names
                .iter()
                .map(|name| StoredKey { kid: (*name).to_owned(), secret: Binary::encode(&name.as_bytes().repeat(32)) });
            SecretKeys::from_stored(&Stored { keys: keys.collect() }).unwrap()
        };
        let (old, new) = (set(&["a"]), set(&["b", "a"]));
        assert_ne!(old.active().access_token().expose(), old.active().encryption().expose());
        assert_eq!(new.active().kid(), "b");
        assert_eq!(new.by_kid("a").unwrap().encryption().expose(), old.active().encryption().expose());
        assert!(new.by_kid("c").is_none());
        assert_eq!(old.fingerprint(), new.fingerprint());
        let sign = |keys: &SecretKeys| hmac::sign(keys.refresh_token(), b"x").as_ref().to_vec();
        assert_eq!(sign(&old), sign(&new));
        assert_eq!(format!("{new:?}"), r#"["b", "a"]"#);
    }
}
