//! Signing in with a code; tokens, refreshing them; signing out.
//!
//! The order of checks is part of the contract: shape (422) before the code, the code before everything that tells
//! about an account (409), and only success and a wrong code use up a code or a try.

use std::net::IpAddr;
use std::time::Duration;

use sotto_protocol::auth::{DeviceInfo, LoginRequest, Me, MeDevice, MeUser, Purpose, RegisterRequest, Tokens};
use sotto_protocol::keys::Keys;
use sotto_protocol::problem::{ErrorCode, FieldError, Problem};
use sotto_protocol::trail::Removal;
use sotto_protocol::{DeviceId, Timestamp, UserId};
use sotto_schema::rows::registration_lock::Takeover;
use sotto_schema::rows::sign_in::{NewSession, Refresh, Refreshed, Refusal, RemovedDevice, SignedIn, SigningDevice};
use sotto_schema::second_factor::{Asks, Method};
use uuid::Uuid;

use super::access_token::{self, Claims};
use super::history::Tried;
use super::proofs::{Compared, Prover, Showing};
use super::refresh_token::{self, RefreshToken};
use super::session::{Caller, unauthenticated};
use super::{Identity, device_proof, key_check, second_factor};
use crate::error::ApiError;

/// How long after its first use a refresh token gives the same successor.
pub const GRACE: Duration = Duration::from_secs(60);
/// How long a signed prekey should serve.
pub const SIGNED_PREKEY_LIFE: Duration = Duration::from_secs(30 * 86_400);

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The first tokens of a family, and what the store keeps of them.
pub(super) struct Begun {
    family: Uuid,
    refresh: RefreshToken,
    pub(super) session: NewSession,
}

impl Identity {
    /// Makes an account with its first device. An account that has the number is deleted when its strongest guard is shown,
    /// or when the request asks for that and its devices were silent for `auth.registration_lock_days`. An account that was
    /// heard of since has a grace period, and keeps the number until its end.
    ///
    /// # Errors
    /// 422, 401 `code_rejected`, 429, 503; 409 `conflict` with `available_at` when the number has an account, told only after
    /// the right code.
    pub async fn register(
        &self,
        request: RegisterRequest,
        tried: Tried<'_>,
        now: Timestamp,
    ) -> Result<Tokens, ApiError> {
        check_shape(&request.device, &request.keys)?;
        let address = tried.address;
        let (id, prover) = (request.verification_id, Prover::Stranger(address));
        let code = self.compare_code(id, Purpose::Registration, &request.code, prover, now).await?;
        let begun = self.begin(&tried, now)?;
        let showing = Showing {
            totp: request.totp.as_deref(),
            backup_code: request.backup_code.as_deref(),
            pin: request.pin.as_deref(),
        };
        let Compared { evidence, field } = self.compare_at_sign_in(Asks::Strongest, showing, &code, address).await?;
        let takeover = Takeover {
            evidence,
            replaces: request.replace == Some(true),
            wait: DAY.saturating_mul(self.auth.registration_lock_days),
            grace: DAY.saturating_mul(self.auth.deletion_grace_days),
            undo: self.undo_span(),
        };
        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        let device = new_device(device_id, request.device, self.kept_address(address), request.keys, now);
        let outcome = self.store.register(code, takeover, user_id, device, begun.session.clone()).await?;
        self.signed_in(outcome, field, device_id, begun, now)
    }

    /// How long a new second factor can be undone.
    pub(super) fn undo_span(&self) -> Duration {
        HOUR.saturating_mul(self.auth.second_factor_undo_hours)
    }

    /// Signs a device in: a known one that proves it, or a new one.
    ///
    /// # Errors
    /// 422, 401 `code_rejected`, 429; 401 `second_factor_required` behind the right code, which uses nothing up; 409
    /// `conflict` for a known identity without proof or with other fixed keys; 409 `limit_reached` for a device too many.
    pub async fn login(&self, request: LoginRequest, tried: Tried<'_>, now: Timestamp) -> Result<Tokens, ApiError> {
        check_shape(&request.device, &request.keys)?;
        let address = tried.address;
        let (id, prover) = (request.verification_id, Prover::Stranger(address));
        let code = self.compare_code(id, Purpose::Login, &request.code, prover, now).await?;
        let identity_key = request.keys.identity_key.clone().unwrap_or_default();
        let known = self.store.known_device(code.phone().to_owned(), identity_key.0.clone()).await?;
        let proof = request.device_proof.unwrap_or_default();
        let known = known.filter(|known| {
            device_proof::holds(known.suite, identity_key.as_ref(), known.signing_key.as_deref(), id, proof.as_ref())
        });
        let showing = Showing {
            totp: request.totp.as_deref(),
            backup_code: request.backup_code.as_deref(),
            pin: request.pin.as_deref(),
        };
        let asks = if known.is_some() { Asks::Factor } else { Asks::Strongest };
        let Compared { evidence, field } = self.compare_at_sign_in(asks, showing, &code, address).await?;
        let device_id = known.as_ref().map_or_else(DeviceId::random, |known| known.device_id);
        let begun = self.begin(&tried, now)?;
        let device = new_device(device_id, request.device, self.kept_address(address), request.keys, now);
        let device = SigningDevice { is_known: known.is_some(), ..device };
        let outcome = self.store.login(code, evidence, device, begun.session.clone()).await?;
        self.signed_in(outcome, field, device_id, begun, now)
    }

    pub(super) fn begin(&self, tried: &Tried<'_>, now: Timestamp) -> Result<Begun, ApiError> {
        let refresh = RefreshToken::random(&self.random).map_err(|_| no_random())?;
        let family = Uuid::new_v4();
        let session = NewSession {
            id: family,
            token_hash: refresh.hash(&self.keys),
            token_secret: refresh_token::row_secret(&self.random).map_err(|_| no_random())?.to_vec(),
            expires_at: now.plus(self.auth.refresh_ttl.duration()),
            way: self.way(tried),
        };
        Ok(Begun { family, refresh, session })
    }

    pub(super) fn signed_in(
        &self,
        outcome: SignedIn,
        field: &'static str,
        device_id: DeviceId,
        begun: Begun,
        now: Timestamp,
    ) -> Result<Tokens, ApiError> {
        match outcome {
            SignedIn::Done { user_id, ended, told } => {
                self.end_here(user_id, device_id, &ended, now);
                if !told.is_empty() {
                    self.changes.devices_changed(user_id, &told);
                }
                let expires_at = begun.session.expires_at;
                self.tokens(user_id, device_id, begun.family, 1, &begun.refresh, expires_at, now)
            }
            refused => Err(second_factor::refusal(refused, field)),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what tokens say")]
    pub(super) fn tokens(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        family: Uuid,
        generation: i64,
        refresh: &RefreshToken,
        refresh_expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Tokens, ApiError> {
        let life = self.auth.access_ttl.duration();
        let claims = Claims::new(user_id, device_id, family, generation, now, now.plus(life));
        let access_token = access_token::sign(&self.keys, &claims)
            .map_err(|_| Problem::new(ErrorCode::Internal, "no token could be made"))?;
        Ok(Tokens {
            user_id,
            device_id,
            access_token,
            refresh_token: refresh.expose(),
            token_type: "Bearer".to_owned(),
            expires_in: life.as_secs(),
            refresh_expires_in: refresh_expires_at.since(now).as_secs(),
        })
    }

    /// An access token for a device that has no session in the database, for tools that make users by the thousand:
    /// the store must have been given `family` with generation 1.
    ///
    /// # Errors
    /// Never in practice; see [`access_token::sign`].
    pub fn access_token(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        family: Uuid,
        now: Timestamp,
        life: Duration,
    ) -> Result<String, access_token::TokenError> {
        access_token::sign(&self.keys, &Claims::new(user_id, device_id, family, 1, now, now.plus(life)))
    }

    /// New tokens for a refresh token, which works once; the same again for 60 s while the new ones are unused.
    ///
    /// # Errors
    /// 401 for a token that is unknown, expired or used before: then its family has ended.
    pub async fn refresh(&self, text: &str, now: Timestamp) -> Result<Tokens, ApiError> {
        self.refresh_from(text, None, now).await
    }

    /// The same, noting the address with the contact where addresses are kept.
    ///
    /// # Errors
    /// As [`Identity::refresh`].
    pub async fn refresh_from(&self, text: &str, address: Option<IpAddr>, now: Timestamp) -> Result<Tokens, ApiError> {
        let token = RefreshToken::parse(text).ok_or_else(unauthenticated)?;
        let hash = token.hash(&self.keys);
        let row = self.store.refresh_token(hash.clone()).await?.ok_or_else(unauthenticated)?;
        let next = token.successor(&self.keys, &row.secret);
        let refresh = Refresh {
            hash,
            session_id: row.session_id,
            next_hash: next.hash(&self.keys),
            next_secret: refresh_token::row_secret(&self.random).map_err(|_| no_random())?.to_vec(),
            next_expires_at: now.plus(self.auth.refresh_ttl.duration()),
            grace: GRACE,
            now,
        };
        match self.store.refresh(refresh).await? {
            Refreshed::Done { generation, expires_at } => {
                let address = address.and_then(|address| self.kept_address(address));
                if let Err(error) = self.store.touch_device(row.device_id, address, now, now).await {
                    tracing::debug!(%error, "a contact was not noted");
                }
                self.tokens(row.user_id, row.device_id, row.session_id, generation, &next, expires_at, now)
            }
            Refreshed::Unknown => Err(unauthenticated()),
            Refreshed::Reused => {
                tracing::warn!(user_id = %row.user_id, device_id = %row.device_id, "a refresh token was used twice");
                self.end_here(row.user_id, row.device_id, &[row.session_id], now);
                Err(unauthenticated())
            }
        }
    }

    /// Removes the calling device.
    ///
    /// # Errors
    /// The database failed.
    pub async fn logout(&self, caller: &Caller, now: Timestamp) -> Result<(), ApiError> {
        let (user_id, device_id) = (caller.user_id, caller.device_id);
        if let Some(removed) = self.store.remove_device(user_id, device_id, Removal::SignedOut, None, now).await? {
            self.device_removed(&removed, now);
        }
        Ok(())
    }

    /// Ends what a removed device had here, and tells everybody concerned.
    pub(super) fn device_removed(&self, removed: &RemovedDevice, now: Timestamp) {
        let user_id = removed.change.user_id;
        for device_id in &removed.change.removed {
            self.end_here(user_id, *device_id, &removed.families, now);
        }
        self.changes.devices_changed(user_id, &removed.told);
    }

    /// The caller's account and device.
    ///
    /// # Errors
    /// 401 when the device is gone.
    pub async fn me(&self, caller: &Caller) -> Result<Me, ApiError> {
        let row = self.store.account(caller.user_id, caller.device_id).await?.ok_or_else(unauthenticated)?;
        Ok(Me {
            user: MeUser { user_id: caller.user_id, phone: row.phone, created_at: row.user_created_at },
            device: MeDevice {
                device_id: caller.device_id,
                info: row.info,
                created_at: row.created_at,
                last_active_at: row.last_active_at,
            },
        })
    }
}

/// A device that was not there before.
pub(super) fn new_device(
    id: DeviceId,
    info: DeviceInfo,
    address: Option<String>,
    keys: Keys,
    now: Timestamp,
) -> SigningDevice {
    let signed_prekey_expires_at = now.plus(SIGNED_PREKEY_LIFE);
    SigningDevice { id, is_known: false, info, address, keys, signed_prekey_expires_at }
}

pub(super) fn check_shape(device: &DeviceInfo, keys: &Keys) -> Result<(), ApiError> {
    let mut errors = device.check("/device");
    if let Err(more) = key_check::complete("/keys", keys) {
        errors.extend(more);
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors).into()) }
}

pub(super) fn rejected(attempts_left: i64) -> ApiError {
    let detail = "the code is wrong, expired, used up, or for something else";
    Problem::new(ErrorCode::CodeRejected, detail).with("attempts_left", attempts_left).into()
}

pub(super) fn refused(refusal: Refusal) -> ApiError {
    let (code, detail) = match refusal {
        Refusal::NumberInUse => (ErrorCode::Conflict, "this number has an account"),
        Refusal::NumberKept { until, methods } => {
            let detail = "this number has an account; sign in instead, or register with `replace` once it was silent";
            let problem = Problem::new(ErrorCode::Conflict, detail).with("available_at", until.to_string());
            let methods: Vec<_> = methods.into_iter().map(Method::as_str).collect();
            return if methods.is_empty() { problem.into() } else { problem.with("methods", methods).into() };
        }
        Refusal::DeletionBegun { deletes_at } => {
            let detail = "the account of this number will be deleted, unless one of its devices cancels; register then";
            return Problem::new(ErrorCode::Conflict, detail).with("available_at", deletes_at.to_string()).into();
        }
        Refusal::Waits { until } => return waits(until),
        Refusal::OwnNumber => (ErrorCode::Conflict, "this is the account's number already"),
        Refusal::NothingBehindCode => {
            (ErrorCode::Conflict, "the account has neither a second factor nor a registration lock; sign in instead")
        }
        // The account was deleted while its code was on the way.
        Refusal::NoAccount => return rejected(0),
        Refusal::IdentityInUse => {
            (ErrorCode::Conflict, "a device with this identity key exists; a valid device_proof is needed to be it")
        }
        Refusal::KeysChanged => (ErrorCode::Conflict, "suite and signing_key of a device cannot be changed"),
        Refusal::FingerprintInUse => {
            let detail = "another device of the account has this fingerprint; remove it, or leave the fingerprint out";
            let mut problem = Problem::new(ErrorCode::Conflict, detail);
            problem.errors = vec![FieldError::at("/device/fingerprint", "in_use")];
            return problem.into();
        }
        Refusal::TooManyDevices => (ErrorCode::LimitReached, "the account has as many devices as it may; remove one"),
    };
    Problem::new(code, detail).into()
}

/// 409: a second factor is new, and can be undone until then.
pub(super) fn waits(until: Timestamp) -> ApiError {
    let detail = "a second factor was enabled lately; until it cannot be undone any more, this change waits";
    Problem::new(ErrorCode::Conflict, detail).with("available_at", until.to_string()).into()
}

pub(super) fn no_random() -> ApiError {
    Problem::unavailable("the system gives no random bytes").into()
}
