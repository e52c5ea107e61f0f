//! What the server knows of an account, put together for its user.
//!
//! The document is written as its rows are read, page by page: an export holds some hundred kilobytes in memory, however
//! much there is. *Bounds:* three a day per account, counted in the database, which fails closed; one at a time per account
//! and [`MOST_AT_ONCE`] at a time on a node; [`MOST_TIME`] for the whole and [`PATIENCE`] for a reader that does not read.
//! *On failure:* the connection breaks off in the middle of the document, so that nobody takes a part for the whole.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use serde::Serialize;
use sotto_protocol::account::AccountDeletion;
use sotto_protocol::auth::MeUser;
use sotto_protocol::export::{ExportedConversation, ExportedDevice, ExportedSession};
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::registration_lock::RegistrationLockState;
use sotto_protocol::second_factor::SecondFactorState;
use sotto_protocol::{ConversationId, Seq, Timestamp, UserId};
use sotto_schema::account_change::Change;
use sotto_schema::rows::export::ExportedStayRow;
use sotto_schema::rows::sign_in::{Allowance, Reached};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use uuid::Uuid;

use super::Identity;
use super::reauthentication::proved_or_refused;
use super::session::Caller;
use crate::error::ApiError;

/// Exports of an account in a day.
const A_DAY: u32 = 3;
const DAY: Duration = Duration::from_secs(86_400);
/// Exports that are written at the same time on a node.
const MOST_AT_ONCE: usize = 4;
/// When to try again while others are written.
const SOON: Duration = Duration::from_secs(5);
/// Rows that are read at once.
const AT_ONCE: usize = 500;
/// Bytes that are handed over at once, and as many wait.
const CHUNK: usize = 32 * 1024;
/// How long a reader may take for a chunk.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long all of it may take.
const MOST_TIME: Duration = Duration::from_secs(300);

/// What there is beside an export.
const NOT_INCLUDED: [&str; 4] = [
    "messages: ciphertexts that the server cannot read; GET /v1/conversations/{id}/messages gives those of yours",
    "one-time keys and signed prekeys: public, and known to your devices; the stock stands here",
    "counts for limits: kept under keyed hashes of numbers and networks, which cannot be turned back",
    "tokens and secrets: only as hashes or sealed",
];

/// The exports that are being written.
pub(super) struct Exports {
    accounts: Mutex<HashSet<UserId>>,
    places: Arc<Semaphore>,
}

impl Default for Exports {
    fn default() -> Self {
        Self { accounts: Mutex::default(), places: Arc::new(Semaphore::new(MOST_AT_ONCE)) }
    }
}

/// One export's place, until it is dropped.
struct Place {
    identity: Arc<Identity>,
    user: UserId,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(identity: Arc<Identity>, user: UserId) -> Result<Self, ApiError> {
        let exports = &identity.exports;
        let mut accounts = exports.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.contains(&user) {
            return Err(ApiError::limited(&Reached { kind: "export_at_once", most: 1, span: SOON, wait: SOON }));
        }
        let Ok(permit) = Arc::clone(&exports.places).try_acquire_owned() else {
            let wait = u64::try_from(SOON.as_millis()).unwrap_or(u64::MAX);
            return Err(Problem::unavailable("other exports are being written").retry_after(wait).into());
        };
        accounts.insert(user);
        drop(accounts);
        Ok(Self { identity, user, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.identity.exports.accounts.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.user);
    }
}

/// The members of [`sotto_protocol::export::Export`] that are small.
#[derive(Serialize)]
struct Head {
    exported_at: Timestamp,
    user: MeUser,
    devices: Vec<ExportedDevice>,
    sessions: Vec<ExportedSession>,
    second_factor: SecondFactorState,
    registration_lock: RegistrationLockState,
    deletion: AccountDeletion,
    waiting_events: u64,
    not_included: [&'static str; 4],
}

/// Why an export breaks off.
#[derive(Debug)]
pub enum Broken {
    /// The store failed, which is logged.
    Store(ApiError),
    /// The reader is gone, or does not read.
    Reader,
    /// It took too long.
    Time,
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Store(_) => "the store failed",
            Self::Reader => "the reader does not read",
            Self::Time => "the export took too long",
        })
    }
}

impl std::error::Error for Broken {}

impl<E: Into<ApiError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

/// A document on its way, as text.
struct Writer {
    text: Vec<u8>,
    out: mpsc::Sender<Result<Bytes, Broken>>,
}

impl Writer {
    fn raw(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn value(&mut self, value: &impl Serialize) -> Result<(), Broken> {
        serde_json::to_writer(&mut self.text, value).map_err(|_| Broken::Store(unwritable()))
    }

    /// Further items of a list whose bracket is open.
    async fn items<T: Serialize>(&mut self, items: &[T], is_first: bool) -> Result<(), Broken> {
        for (index, item) in items.iter().enumerate() {
            if !is_first || index > 0 {
                self.raw(",");
            }
            self.value(item)?;
            if self.text.len() >= CHUNK {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        let chunk = std::mem::take(&mut self.text);
        match timeout(PATIENCE, self.out.send(Ok(chunk.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Broken::Reader),
        }
    }
}

fn unwritable() -> ApiError {
    Problem::new(ErrorCode::Internal, "something went wrong here").into()
}

/// Everything that the server knows of the caller's account, but for what `not_included` names, as the text of a
/// [`sotto_protocol::export::Export`].
///
/// # Errors
/// 401 `code_rejected` and `second_factor_required` as at sign-in; 429 after three in a day, and while another one of this account is
/// written; 503 while too many others are.
pub async fn export(
    identity: Arc<Identity>,
    caller: Caller,
    request: &Reauthentication,
    address: IpAddr,
    now: Timestamp,
) -> Result<impl Stream<Item = Result<Bytes, Broken>> + use<>, ApiError> {
    let user = caller.user_id;
    let place = Place::take(Arc::clone(&identity), user)?;
    let (proof, field) = identity.proof(&caller, request, Change::Export, address, now).await?;
    proved_or_refused(identity.store.prove(proof).await?, field)?;
    if identity.limits.enabled {
        let allowance = Allowance::new("export", user.as_bytes().as_slice(), A_DAY, DAY);
        if let Some(reached) = identity.store.take_allowance(allowance, 1, now).await? {
            return Err(ApiError::limited(&reached));
        }
    }
    let head = identity.export_head(&caller, now).await?;
    let (out, receiver) = mpsc::channel(1);
    actix_rt::spawn(async move {
        let writer = Writer { text: Vec::with_capacity(CHUNK), out: out.clone() };
        let outcome = timeout(MOST_TIME, identity.write_export(&caller, head, writer, now)).await;
        // Whoever has read the end may begin the next one.
        drop(place);
        if let Err(broken) = outcome.unwrap_or(Err(Broken::Time)) {
            tracing::debug!(%user, %broken, "an export was broken off");
            // If nobody reads, nobody has to be told.
            let _ = timeout(PATIENCE, out.send(Err(broken))).await;
        }
    });
    Ok(stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|chunk| (chunk, receiver)) }))
}

impl Identity {
    async fn export_head(&self, caller: &Caller, now: Timestamp) -> Result<Head, ApiError> {
        let user = caller.user_id;
        let me = self.me(caller).await?;
        let mut push = self.store.exported_push_tokens(user).await?;
        let mut devices = Vec::new();
        for device in self.own_devices(caller).await?.devices {
            let keys = self.store.key_count(device.device_id).await?;
            let place = push.iter().position(|row| row.id == device.device_id);
            let tokens = place.and_then(|place| push.swap_remove(place).push);
            let push = tokens.and_then(|tokens| serde_json::from_value(tokens).ok());
            devices.push(ExportedDevice { device, push, keys });
        }
        let sessions = self.store.exported_sessions(user).await?.into_iter().map(|row| ExportedSession {
            session_id: row.id,
            device_id: row.device_id,
            created_at: row.created_at,
            expires_at: row.expires_at,
        });
        let waiting = self.store.account_events_count(user).await?;
        Ok(Head {
            exported_at: now,
            user: me.user,
            devices,
            sessions: sessions.collect(),
            second_factor: self.second_factor(caller, now).await?,
            registration_lock: self.registration_lock(caller).await?,
            deletion: self.deletion(caller).await?,
            waiting_events: u64::try_from(waiting).unwrap_or(0),
            not_included: NOT_INCLUDED,
        })
    }

    async fn write_export(&self, caller: &Caller, head: Head, mut out: Writer, now: Timestamp) -> Result<(), Broken> {
        out.value(&head)?;
        // The object stays open for what comes by page.
        out.text.pop();
        out.raw(",\"conversations\":[");
        self.write_stays(caller, &mut out).await?;
        out.raw("],\"trail\":[");
        let mut after = 0;
        let trail_head = loop {
            let (items, head) = self.trail(caller, after, AT_ONCE).await?;
            let Some(last) = items.last() else {
                break head;
            };
            out.items(&items, after == 0).await?;
            after = last.seq;
        };
        out.raw("],\"trail_head\":");
        out.value(&trail_head)?;
        out.raw(",\"logins\":[");
        let mut before = None;
        loop {
            let found = self.logins(caller, before, AT_ONCE, now).await?;
            let Some((id, last)) = found.last() else {
                break;
            };
            let (is_first, next) = (before.is_none(), (last.at, *id));
            let logins: Vec<_> = found.into_iter().map(|(_, login)| login).collect();
            out.items(&logins, is_first).await?;
            before = Some(next);
        }
        out.raw("]}");
        out.flush().await
    }

    async fn write_stays(&self, caller: &Caller, out: &mut Writer) -> Result<(), Broken> {
        let limit = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
        let mut after: (ConversationId, Seq) = (ConversationId(Uuid::nil()), 0);
        let mut is_first = true;
        loop {
            let rows = self.store.exported_stays(caller.user_id, after, limit).await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = (last.conversation_id, last.from_seq);
            let stays: Vec<ExportedConversation> = rows.into_iter().map(stay).collect();
            out.items(&stays, is_first).await?;
            is_first = false;
        }
    }
}

fn stay(row: ExportedStayRow) -> ExportedConversation {
    ExportedConversation {
        conversation_id: row.conversation_id,
        kind: row.kind,
        name: row.name,
        role: row.role,
        joined_at: row.joined_at,
        from_seq: row.from_seq,
        to_seq: row.to_seq,
        read_up_to: row.read_up_to,
    }
}
