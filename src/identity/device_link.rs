//! Linking a new device by a QR code: begun by the new device, scanned and confirmed by the account, collected by the new one.
//!
//! Secrets are compared here, where the keys are; what follows from it is decided in the database, under the link's lock
//! (`sotto_schema::device_link`). The QR code alone gives nothing: to confirm takes a device of the account and a proof, to
//! collect takes a secret and a private key that have never left the new device.
//!
//! Limits: `limits.links_per_address_per_hour` and `limits.links_per_node_per_hour`, in the database, closed. Those who wait for a
//! confirmation are held for [`HOLD`], one of each link and at most [`MOST_WAITING`] of them at a node; others are told at once to ask again.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::rand::SecureRandom;
use sotto_protocol::auth::{DeviceInfo, Tokens};
use sotto_protocol::device_link::{
    BeginLink, BegunLink, CollectLink, ConfirmLink, LinkCode, LinkPending, LinkUri, ScannedLink, proof_text,
};
use sotto_protocol::keys::Suite;
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::{Binary, DeviceId, LinkId, Timestamp, UserId};
use sotto_schema::account_change::Change;
use sotto_schema::device_link::{Collecting, Deciding};
use sotto_schema::rows::device_link::{LinkBegun, LinkCollected, LinkConfirmed, LinkRow, NewLink};
use sotto_schema::rows::sign_in::{Allowance, NewSession};
use tokio::sync::{Semaphore, SemaphorePermit, broadcast};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use super::history::Tried;
use super::reauthentication::proved_or_refused;
use super::refresh_token::{self, RefreshToken};
use super::secret_key::SecretKeys;
use super::session::Caller;
use super::sign_in::{SIGNED_PREKEY_LIFE, check_shape, no_random, refused};
use super::{Identity, key_check, network, qr};
use crate::error::ApiError;

/// Length of a challenge and of a link's secret, in bytes.
pub const SECRET_LEN: usize = 32;
/// How long a device that asks for its tokens is held while nobody has confirmed.
pub const HOLD: Duration = Duration::from_secs(4);
/// How often the database is asked meanwhile: a confirmation may have been given at another node.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How many are held at a node at once.
pub const MOST_WAITING: usize = 256;
/// Confirmations that a waiting device may be behind before it asks the database instead.
const BEHIND: usize = 64;
const HOUR: Duration = Duration::from_secs(3600);

/// Those who are held here, and how they hear of a decision at this node.
pub(super) struct Waiting {
    decided: broadcast::Sender<LinkId>,
    places: Semaphore,
    held: Mutex<HashSet<LinkId>>,
}

/// The place of one who is held.
struct Place<'a> {
    waiting: &'a Waiting,
    link_id: LinkId,
    _permit: SemaphorePermit<'a>,
}

impl Waiting {
    /// A place for a link, if there is one. One of each link is held at a time, so that nobody takes all places with one.
    fn place(&self, link_id: LinkId) -> Option<Place<'_>> {
        let permit = self.places.try_acquire().ok()?;
        let is_new = self.with_held(|held| held.insert(link_id));
        is_new.then(|| Place { waiting: self, link_id, _permit: permit })
    }

    fn with_held<T>(&self, work: impl FnOnce(&mut HashSet<LinkId>) -> T) -> T {
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.with_held(|held| held.remove(&self.link_id));
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self { decided: broadcast::Sender::new(BEHIND), places: Semaphore::new(MOST_WAITING), held: Mutex::default() }
    }
}

/// What a device that asks for its tokens gets.
pub enum Collected {
    /// It is a device of the account.
    Tokens(Tokens),
    /// Nobody has confirmed yet.
    Pending(LinkPending),
}

/// Which secret of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The one in the QR code.
    Challenge,
    /// The one that only the new device knows.
    Secret,
}

/// What is stored of a secret: HMAC-SHA256 under the server's key, for this link and this part of it.
#[must_use]
pub fn hash(keys: &SecretKeys, link_id: LinkId, part: Part, secret: &[u8]) -> Vec<u8> {
    keys.hash_code(&message(link_id, part, secret)).as_ref().to_vec()
}

/// Whether `secret` is the one behind `hash`, in constant time.
#[must_use]
pub fn matches(keys: &SecretKeys, link_id: LinkId, part: Part, secret: &[u8], hash: &[u8]) -> bool {
    keys.verify_code(&message(link_id, part, secret), hash)
}

/// Never the message of a code from a text message, which is an id and six digits.
fn message(link_id: LinkId, part: Part, secret: &[u8]) -> Vec<u8> {
    let name: &[u8] = match part {
        Part::Challenge => b"link challenge:",
        Part::Secret => b"link secret:",
    };
    [link_id.as_bytes().as_slice(), name, secret].concat()
}

/// Whether `proof` is the new device's signature for this link: by `identity_key` for `signal`, by `signing_key` for `olm`.
#[must_use]
pub fn proof_holds(
    suite: Suite,
    identity_key: &[u8],
    signing_key: Option<&[u8]>,
    link_id: LinkId,
    challenge: &[u8],
    proof: &[u8],
) -> bool {
    let signer = match suite {
        Suite::Signal => Some(identity_key),
        Suite::Olm => signing_key,
    };
    let text = proof_text(link_id, challenge);
    signer.is_some_and(|key| key_check::is_signature(suite, key, text.as_bytes(), proof))
}

impl Identity {
    /// A new device asks to be linked to whichever account scans its QR code.
    ///
    /// # Errors
    /// 422 for keys and texts that are wrong, as at sign-in; 429.
    pub async fn begin_link(&self, request: BeginLink, address: IpAddr, now: Timestamp) -> Result<BegunLink, ApiError> {
        check_shape(&request.device, &request.keys)?;
        let link_id = LinkId::random();
        let (challenge, secret) = (self.link_secret()?, self.link_secret()?);
        let identity_key = request.keys.identity_key.clone().unwrap_or_default();
        let qr = LinkUri { link_id, code: LinkCode { challenge: challenge.clone(), identity_key } }.to_string();
        let pictures =
            qr::draw(&qr).ok_or_else(|| Problem::new(ErrorCode::Internal, "the link is too long for a QR code"))?;
        let expires_at = now.plus(self.auth.link_ttl.duration());
        let new = NewLink {
            id: link_id,
            challenge_hash: hash(&self.keys, link_id, Part::Challenge, challenge.as_ref()),
            secret_hash: hash(&self.keys, link_id, Part::Secret, secret.as_ref()),
            info: request.device,
            keys: request.keys,
            address: self.kept_address(address),
            expires_at,
        };
        match self.store.begin_device_link(new, self.link_allowances(address), now).await? {
            LinkBegun::Limited(reached) => Err(ApiError::limited(&reached)),
            LinkBegun::Begun => {
                let (qr_svg, qr_png) = (pictures.svg, pictures.png);
                Ok(BegunLink { link_id, link_secret: secret, challenge, qr, qr_svg, qr_png, expires_at })
            }
        }
    }

    fn link_secret(&self) -> Result<Binary, ApiError> {
        let mut bytes = vec![0; SECRET_LEN];
        self.random.fill(&mut bytes).map_err(|_| no_random())?;
        Ok(Binary(bytes))
    }

    fn link_allowances(&self, address: IpAddr) -> Vec<Allowance> {
        let limits = &self.limits;
        if !limits.enabled {
            return Vec::new();
        }
        let network = self.keys.pseudonym(&network::network(address).to_string());
        vec![
            Allowance::new("link_address", network, limits.links_per_address_per_hour, HOUR),
            Allowance::new("link_node", self.node.as_bytes(), limits.links_per_node_per_hour, HOUR),
        ]
    }

    /// The caller shows a QR code: who wants to join. The first account that shows the right one has the link for itself.
    ///
    /// # Errors
    /// 404 for everything that is not right: unknown, expired, used, refused, of another account, another challenge or key.
    pub async fn scan_link(
        &self,
        caller: &Caller,
        link_id: LinkId,
        code: &LinkCode,
        now: Timestamp,
    ) -> Result<ScannedLink, ApiError> {
        let row = self.store.device_link(link_id).await?.ok_or_else(Problem::not_found)?;
        let is_right = self.is_code(link_id, &row, code);
        if !self.store.scan_device_link(link_id, caller.user_id, is_right, now).await? {
            return Err(Problem::not_found().into());
        }
        let info: DeviceInfo = row.info().ok_or_else(Problem::not_found)?;
        let LinkRow { address, created_at, expires_at, .. } = row;
        Ok(ScannedLink { device: info.into(), address, created_at, expires_at })
    }

    fn is_code(&self, link_id: LinkId, row: &LinkRow, code: &LinkCode) -> bool {
        let is_challenge = matches(&self.keys, link_id, Part::Challenge, code.challenge.as_ref(), &row.challenge_hash);
        // A public key: everybody may know how much of it is right.
        is_challenge & (code.identity_key.as_ref() == row.identity_key.as_slice())
    }

    /// Takes the device that shows the QR code into the caller's account, who has scanned it and proves himself anew.
    ///
    /// # Errors
    /// 404 as [`Identity::scan_link`], and when the account has not scanned it; 409 `limit_reached` when it has as many
    /// devices as it may; 401 `code_rejected` and `second_factor_required` as at sign-in; 429.
    pub async fn confirm_link(
        &self,
        caller: &Caller,
        link_id: LinkId,
        request: ConfirmLink,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let (code, again) = request.parts();
        let row = self.store.device_link(link_id).await?.ok_or_else(Problem::not_found)?;
        let is_right = self.is_code(link_id, &row, &code);
        // Before the proof: what is not his costs nothing and tells nothing.
        match row.link().confirming(caller.user_id, is_right, now) {
            Deciding::Unknown => return Err(Problem::not_found().into()),
            Deciding::Already => return Ok(()),
            Deciding::Open => {}
        }
        let (proof, field) = self.proof(caller, &again, Change::LinkDevice, address, now).await?;
        match self.store.confirm_device_link(link_id, is_right, proof).await? {
            LinkConfirmed::Unknown => Err(Problem::not_found().into()),
            LinkConfirmed::Full(refusal) => Err(refused(refusal)),
            LinkConfirmed::Refused(proved) => {
                proved_or_refused(proved, field).and_then(|()| Err(Problem::not_found().into()))
            }
            LinkConfirmed::Done => {
                tracing::info!(user_id = %caller.user_id, device_id = %caller.device_id, "a device link was confirmed");
                self.decided(link_id);
                Ok(())
            }
        }
    }

    /// Refuses a link that the caller's account has scanned, also after its confirmation, until it is used.
    ///
    /// # Errors
    /// 404 as [`Identity::scan_link`], and when the account has not scanned it.
    pub async fn refuse_link(
        &self,
        caller: &Caller,
        link_id: LinkId,
        code: &LinkCode,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let row = self.store.device_link(link_id).await?.ok_or_else(Problem::not_found)?;
        let is_right = self.is_code(link_id, &row, code);
        match self.store.refuse_device_link(link_id, caller.user_id, is_right, now).await? {
            Deciding::Unknown => Err(Problem::not_found().into()),
            Deciding::Already => Ok(()),
            Deciding::Open => {
                tracing::info!(user_id = %caller.user_id, device_id = %caller.device_id, "a device link was refused");
                self.decided(link_id);
                Ok(())
            }
        }
    }

    /// Ends the confirmed links of an account that no device has used, after its guards or devices have changed: who confirmed one
    /// before does not come in by it afterwards. Those of `keeper`, the device that made the change, stay.
    pub(super) async fn end_links(&self, user_id: UserId, keeper: DeviceId, now: Timestamp) {
        if let Err(error) = self.store.refuse_device_links(user_id, keeper, now).await {
            tracing::warn!(%error, %user_id, "confirmed links of an account were not ended; they end by themselves");
        }
    }

    fn decided(&self, link_id: LinkId) {
        // Nobody may be waiting here.
        let _ = self.links.decided.send(link_id);
    }

    /// The new device asks for its tokens, and is held for a while if nobody has confirmed yet. `clock` tells the moment.
    ///
    /// # Errors
    /// 404 for everything that is not right: unknown, expired, refused, used, another secret, challenge or key; 409 when the
    /// account cannot take the device.
    pub async fn collect_link(
        &self,
        link_id: LinkId,
        request: &CollectLink,
        tried: Tried<'_>,
        clock: impl Fn() -> Timestamp,
    ) -> Result<Collected, ApiError> {
        // From here on: what was decided after the database was asked is heard.
        let mut decided = self.links.decided.subscribe();
        let row = self.store.device_link(link_id).await?.ok_or_else(Problem::not_found)?;
        if !self.is_collector(link_id, &row, request) {
            return Err(Problem::not_found().into());
        }
        let place = self.links.place(link_id);
        let until = Instant::now() + if place.is_some() { HOLD } else { Duration::ZERO };
        let mut row = Some(row);
        loop {
            let found = row.take().ok_or_else(Problem::not_found)?;
            match found.link().collecting(true, clock()) {
                Collecting::Unknown => return Err(Problem::not_found().into()),
                Collecting::Join(_) | Collecting::Again => {
                    return self.join_by_link(link_id, request, tried, clock()).await;
                }
                Collecting::Waiting { scanned } if Instant::now() >= until => {
                    return Ok(Collected::Pending(LinkPending { scanned, expires_at: found.expires_at }));
                }
                Collecting::Waiting { .. } => {}
            }
            let next = (Instant::now() + ASK_EVERY).min(until);
            wait_for(&mut decided, link_id, next).await;
            row = self.store.device_link(link_id).await?;
        }
    }

    fn is_collector(&self, link_id: LinkId, row: &LinkRow, request: &CollectLink) -> bool {
        let (secret, challenge) = (request.link_secret.as_ref(), request.challenge.as_ref());
        let is_secret = matches(&self.keys, link_id, Part::Secret, secret, &row.secret_hash);
        let is_challenge = matches(&self.keys, link_id, Part::Challenge, challenge, &row.challenge_hash);
        let signing_key = row.signing_key.as_deref();
        is_secret
            & is_challenge
            & proof_holds(row.suite, &row.identity_key, signing_key, link_id, challenge, request.proof.as_ref())
    }

    async fn join_by_link(
        &self,
        link_id: LinkId,
        request: &CollectLink,
        tried: Tried<'_>,
        now: Timestamp,
    ) -> Result<Collected, ApiError> {
        let refresh = RefreshToken::of_link(&self.keys, request.link_secret.as_ref());
        let session = NewSession {
            id: Uuid::new_v4(),
            token_hash: refresh.hash(&self.keys),
            token_secret: refresh_token::row_secret(&self.random).map_err(|_| no_random())?.to_vec(),
            expires_at: now.plus(self.auth.refresh_ttl.duration()),
            way: self.way(&tried),
        };
        let (family, expires_at) = (session.id, session.expires_at);
        let signed_prekey_expires_at = now.plus(SIGNED_PREKEY_LIFE);
        let device = DeviceId::random();
        let collected = self.store.collect_device_link(link_id, device, session, signed_prekey_expires_at, now).await?;
        let tokens = match collected {
            LinkCollected::Unknown => return Err(Problem::not_found().into()),
            LinkCollected::Full(refusal) => return Err(refused(refusal)),
            LinkCollected::Waiting { .. } => return Err(Problem::unavailable("the link has changed; ask again").into()),
            LinkCollected::Joined { user_id, device_id, ended, told } => {
                tracing::info!(%user_id, %device_id, "a device was linked");
                self.end_here(user_id, device_id, &ended, now);
                if !told.is_empty() {
                    self.changes.devices_changed(user_id, &told);
                }
                self.tokens(user_id, device_id, family, 1, &refresh, expires_at, now)?
            }
            LinkCollected::Again { user_id, device_id, session_id, expires_at } => {
                self.tokens(user_id, device_id, session_id, 1, &refresh, expires_at, now)?
            }
        };
        Ok(Collected::Tokens(tokens))
    }
}

/// Until this link is decided here, or a moment.
async fn wait_for(decided: &mut broadcast::Receiver<LinkId>, link_id: LinkId, until: Instant) {
    loop {
        match timeout_at(until, decided.recv()).await {
            Ok(Ok(other)) if other != link_id => {}
            // Some were missed, and this link may be among them.
            Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) | Err(_) => return,
            Ok(Err(broadcast::error::RecvError::Closed)) => return sleep_until(until).await,
        }
    }
}

#[cfg(test)]
mod tests;
