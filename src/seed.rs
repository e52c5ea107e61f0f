//! Users by the thousand for load tools: stored in bulk, their tokens in a file that only its owner reads.

use std::fs::{self, DirBuilder};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Serialize;
use sotto_protocol::conversation::ConversationType;
use sotto_protocol::keys::identity_text;
use sotto_protocol::{ConversationId, DeviceId, Timestamp, UserId};
use sotto_schema::rows::seed::{Seed, SeedConversation, SeedUser};
use sotto_schema::{Store, StoreError};
use tempfile::NamedTempFile;
use uuid::Uuid;

use crate::boot::{self, BootError};
use crate::config::Config;
use crate::identity::access_token::{self, Claims, TokenError};
use crate::identity::secret_key::{SecretKeyError, SecretKeys};

/// How long tokens and their families hold.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a signed prekey serves, as after a sign-in.
const SIGNED_PREKEY_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// About so many users are stored in one transaction: a server on the same SQLite file waits for the writer.
const AT_ONCE: u32 = 1_000;
/// Numbers of an area that no country has (E.164), so that nobody gets a text message, and twelve digits of our own.
const AREA: &str = "+999";
const NUMBERS: u64 = 1_000_000_000_000;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Direct conversations between users 2k and 2k+1.
    Pairs,
    /// Groups of so many; the last one may be smaller.
    Groups(u32),
}

impl Shape {
    /// How many users a conversation has.
    const fn size(self) -> u32 {
        match self {
            Self::Pairs | Self::Groups(0 | 1) => 2,
            Self::Groups(size) => size,
        }
    }
}

/// Why users could not be made. What was stored before stays.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The keys are missing, wrong, or another database's.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The database refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A token could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The file cannot be written.
    #[error("cannot write {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl From<SecretKeyError> for SeedError {
    fn from(error: SecretKeyError) -> Self {
        Self::Boot(error.into())
    }
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    user_id: UserId,
    device_id: DeviceId,
    access_token: &'a str,
    conversation_id: ConversationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_user_id: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_device_id: Option<DeviceId>,
}

/// Makes users with a device and conversations each, and writes one JSON line per user to `out`, which is replaced.
/// `progress` is told how many are stored.
///
/// # Errors
/// Keys, database or file cannot be used.
pub async fn seed(
    config: &Config,
    count: u32,
    shape: Shape,
    out: &Path,
    mut progress: impl FnMut(u32),
) -> Result<(), SeedError> {
    let failed = |error| SeedError::File { path: out.to_owned(), error };
    let mut file = draft(out).map_err(failed)?;
    let keys = open_keys(config)?;
    let store = open_store(config, &keys).await?;
    let random = SystemRandom::new();
    let first_number = u64::from_le_bytes(bytes(&random)?) % NUMBERS;
    let now = Timestamp::now();
    // Whole conversations only.
    let size = shape.size();
    let at_once = (AT_ONCE / size).max(1) * size;
    let mut made = 0;
    while made < count {
        let part = at_once.min(count - made);
        let users: Vec<SeedUser> = (made..made + part)
            .map(|index| user(&random, (first_number + u64::from(index)) % NUMBERS))
            .collect::<Result<_, _>>()?;
        let groups = users.chunks(usize::try_from(size).unwrap_or(usize::MAX));
        let conversations: Vec<_> = groups.clone().map(|members| conversation(shape, members)).collect();
        let mut lines = BufWriter::new(file.as_file_mut());
        for (members, conversation) in groups.zip(&conversations) {
            write_lines(&mut lines, &keys, members, conversation, now, out)?;
        }
        lines.flush().map_err(failed)?;
        drop(lines);
        let seed = Seed {
            users,
            conversations,
            signed_prekey_expires_at: now.plus(SIGNED_PREKEY_LIFE),
            families_expire_at: now.plus(LIFE),
        };
        store.seed(seed, now).await?;
        made += part;
        progress(made);
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(out).map_err(|error| failed(error.error))?;
    Ok(())
}

/// A file beside the place, mode 0600, that takes it when it is complete.
fn draft(out: &Path) -> io::Result<NamedTempFile> {
    if fs::metadata(out).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it exists and is not a file"));
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::Builder::new().prefix(".sotto-seed").tempfile_in(folder.unwrap_or_else(|| Path::new(".")))
}

/// The server's keys: whoever comes first makes them.
fn open_keys(config: &Config) -> Result<SecretKeys, SeedError> {
    let folder = &config.data.dir;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| SeedError::File { path: folder.clone(), error })?;
    Ok(SecretKeys::open(&config.secret_key_file())?)
}

async fn open_store(config: &Config, keys: &SecretKeys) -> Result<Store, SeedError> {
    let store = boot::open_store(config).await?;
    let fingerprint = keys.fingerprint();
    if store.claim_fingerprint(fingerprint.clone()).await? != fingerprint {
        return Err(BootError::OtherKeys(config.secret_key_file().display().to_string()).into());
    }
    Ok(store)
}

fn bytes<const N: usize>(random: &SystemRandom) -> Result<[u8; N], SeedError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| SeedError::Random)?;
    Ok(bytes)
}

/// A user with a device. Its keys are as good as real ones to whoever asks for them, but nobody has the private halves.
fn user(random: &SystemRandom, number: u64) -> Result<SeedUser, SeedError> {
    let signing = Ed25519KeyPair::from_seed_unchecked(&bytes::<32>(random)?).map_err(|_| SeedError::Random)?;
    let (identity_key, signed_prekey) = (bytes::<32>(random)?, bytes::<32>(random)?);
    Ok(SeedUser {
        user_id: UserId::random(),
        phone: format!("{AREA}{number:012}"),
        device_id: DeviceId::random(),
        identity_key: identity_key.to_vec(),
        signing_key: signing.public_key().as_ref().to_vec(),
        identity_signature: signing.sign(&identity_text(&identity_key)).as_ref().to_vec(),
        signed_prekey: signed_prekey.to_vec(),
        signature: signing.sign(&signed_prekey).as_ref().to_vec(),
        family: Uuid::new_v4(),
    })
}

fn conversation(shape: Shape, members: &[SeedUser]) -> SeedConversation {
    SeedConversation {
        conversation_id: ConversationId::ordered(),
        kind: if shape == Shape::Pairs { ConversationType::Direct } else { ConversationType::Group },
        members: members.iter().map(|member| member.user_id).collect(),
    }
}

fn write_lines(
    lines: &mut impl io::Write,
    keys: &SecretKeys,
    members: &[SeedUser],
    conversation: &SeedConversation,
    now: Timestamp,
    out: &Path,
) -> Result<(), SeedError> {
    for member in members {
        let is_direct = conversation.kind == ConversationType::Direct;
        let peer = members.iter().find(|other| is_direct && other.user_id != member.user_id);
        let claims = Claims::new(member.user_id, member.device_id, member.family, 1, now, now.plus(LIFE));
        let line = Line {
            user_id: member.user_id,
            device_id: member.device_id,
            access_token: &access_token::sign(keys, &claims)?,
            conversation_id: conversation.conversation_id,
            peer_user_id: peer.map(|peer| peer.user_id),
            peer_device_id: peer.map(|peer| peer.device_id),
        };
        let text = serde_json::to_string(&line).map_err(io::Error::from);
        text.and_then(|text| writeln!(lines, "{text}"))
            .map_err(|error| SeedError::File { path: out.to_owned(), error })?;
    }
    Ok(())
}
