//! The secret key file: read, made once, and given a new key in front of the others.
//!
//! Whoever writes makes a new file beside the place and puts it there whole: a reader finds the old one or the new one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sotto_protocol::{Binary, Timestamp};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{KeySet, MIN_SECRET, SecretKeyError};

/// Most bytes of the file; what is larger is not ours.
const MAX_FILE: u64 = 64 * 1024;
/// Most keys of a file. Each is tried for what carries no key's name, such as cursors.
pub const MOST_KEYS: usize = 64;

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    pub(super) keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredKey {
    pub(super) kid: String,
    pub(super) secret: String,
    /// Until then the key opens and does not seal, so that every node can have it before one uses it.
    #[zeroize(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<Timestamp>,
}

/// What tells one state of the file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Of the file that is there now.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

impl Stored {
    /// The keys in their order, each with the moment from which it seals.
    pub(super) fn sets(&self) -> Result<Vec<(KeySet, Option<Timestamp>)>, &'static str> {
        let mut sets: Vec<(KeySet, Option<Timestamp>)> = Vec::new();
        for key in &self.keys {
            if key.kid.is_empty() || key.kid.len() > 64 || !key.kid.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("a `kid` is not 1 to 64 visible ASCII characters");
            }
            if sets.iter().any(|(set, _)| set.kid == key.kid) {
                return Err("two keys have the same `kid`");
            }
            let mut secret = Binary::decode(&key.secret).ok_or("a `secret` is not base64url")?;
            let set = KeySet::derive(key.kid.clone(), &secret);
            let length = secret.len();
            secret.zeroize();
            if length < MIN_SECRET {
                return Err("a `secret` has fewer than 32 bytes");
            }
            sets.push((set.ok_or("a `secret` cannot be used")?, key.not_before));
        }
        Ok(sets)
    }
}

/// Opens the file and makes sure that it is ours alone.
fn open(path: &Path) -> Result<(File, fs::Metadata), SecretKeyError> {
    let file = File::open(path).map_err(|source| file_error(path, "opened", source))?;
    let metadata = file.metadata().map_err(|source| file_error(path, "examined", source))?;
    let mode = metadata.mode() & 0o777;
    let ours = fs::metadata("/proc/self").map_or(0, |own| own.uid());
    if is_exposed(mode, metadata.uid(), ours) {
        return Err(SecretKeyError::Exposed { path: path.to_owned(), mode });
    }
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(content(path, "it is not a small regular file"));
    }
    Ok((file, metadata))
}

/// Reads the file, and tells what kind of file it was.
pub(super) fn read(path: &Path) -> Result<(Stored, fs::Metadata), SecretKeyError> {
    let (mut file, metadata) = open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|source| file_error(path, "read", source))?;
    let stored = serde_json::from_str(&text).map_err(|_| content(path, "it is not the JSON that the server writes"));
    text.zeroize();
    Ok((stored?, metadata))
}

/// Makes the file with one key, unless somebody else was first.
pub(super) fn make(path: &Path) -> Result<(), SecretKeyError> {
    let folder = folder_of(path)?;
    fs::create_dir_all(folder).map_err(|source| file_error(folder, "made", source))?;
    let stored = Stored { keys: vec![fresh(None)?] };
    let draft = draft_of(path)?;
    let written = write(&draft, &stored, None);
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    // Whatever happened, the draft has served.
    let _ = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(file_error(path, "made", error)),
        _ => sync(folder),
    }
}

/// Puts a new key in front of those of the file and gives its name. Owner and mode of the file stay as they were.
pub(super) fn add(path: &Path, not_before: Option<Timestamp>) -> Result<String, SecretKeyError> {
    // A mounted secret is often a link; the file behind it is replaced, not the link.
    let path = &fs::canonicalize(path).map_err(|source| file_error(path, "found", source))?;
    let folder = folder_of(path)?;
    // Of two that add a key, one waits; what it reads then has the other's key.
    let lock = File::open(folder).map_err(|source| file_error(folder, "opened", source))?;
    lock.lock().map_err(|source| file_error(folder, "locked", source))?;
    let (mut stored, metadata) = read(path)?;
    if stored.keys.len() >= MOST_KEYS {
        return Err(SecretKeyError::TooMany { path: path.clone() });
    }
    let key = fresh(not_before)?;
    let kid = key.kid.clone();
    stored.keys.insert(0, key);
    let draft = draft_of(path)?;
    let put = write(&draft, &stored, Some(&metadata)).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = put {
        let _ = fs::remove_file(&draft);
        return Err(file_error(path, "replaced", error));
    }
    sync(folder)?;
    Ok(kid)
}

fn fresh(not_before: Option<Timestamp>) -> Result<StoredKey, SecretKeyError> {
    let mut secret = draw::<MIN_SECRET>()?;
    let key = StoredKey { kid: kid()?, secret: Binary::encode(&secret), not_before };
    secret.zeroize();
    Ok(key)
}

fn folder_of(path: &Path) -> Result<&Path, SecretKeyError> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) => Ok(folder),
        None => Err(content(path, "it is a folder")),
    }
}

fn draft_of(path: &Path) -> Result<PathBuf, SecretKeyError> {
    Ok(path.with_extension(format!("{}.new", kid()?)))
}

/// Whether others than this process may use a file. Orchestrators hand secrets out as files of root that a group may
/// read: to a process that is not root, its own group is nobody else.
const fn is_exposed(mode: u32, owner: u32, ours: u32) -> bool {
    let forbidden = if owner == 0 && ours != 0 { 0o037 } else { 0o077 };
    mode & forbidden != 0
}

/// Writes a file that is not there yet, as `like` has its owner and mode, else for its owner alone.
fn write(path: &Path, stored: &Stored, like: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut text = serde_json::to_string(stored)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n"));
    text.zeroize();
    written?;
    if let Some(like) = like {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(like.mode() & 0o777))?;
    }
    file.sync_all()
}

fn sync(folder: &Path) -> Result<(), SecretKeyError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| file_error(folder, "kept", error))
}

pub(super) fn draw<const N: usize>() -> Result<[u8; N], SecretKeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SecretKeyError::Random)?;
    Ok(bytes)
}

pub(super) fn kid() -> Result<String, SecretKeyError> {
    Ok(Binary::encode(&draw::<9>()?))
}

fn file_error(path: &Path, what: &'static str, source: io::Error) -> SecretKeyError {
    SecretKeyError::File { path: path.to_owned(), what, source }
}

pub(super) fn content(path: &Path, reason: &'static str) -> SecretKeyError {
    SecretKeyError::Content { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn of_many_that_add_a_key_all_are_there_and_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        make(&path).unwrap();
        let first = read(&path).unwrap().0.keys[0].kid.clone();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || add(&path, None).unwrap())
            })
            .collect();
        let mut added: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let mut kids: Vec<String> = read(&path).unwrap().0.keys.iter().map(|key| key.kid.clone()).collect();
        assert_eq!(kids.pop().unwrap(), first, "the oldest key stays last");
        added.sort();
        kids.sort();
        assert_eq!(added, kids);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("secret.key"));
        make(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        add(&link, None).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&real).unwrap().0.keys.len(), 2);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        make(&path).unwrap();
        for _ in 1..MOST_KEYS {
            add(&path, None).unwrap();
        }
        assert!(matches!(add(&path, None), Err(SecretKeyError::TooMany { .. })));
        assert_eq!(read(&path).unwrap().0.keys.len(), MOST_KEYS);
    }
}
