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
use sotto_protocol::{DeviceId, Timestamp, UserId, VerificationId};
use sotto_schema::rows::registration_lock::{GuardRow, Takeover};
use sotto_schema::rows::sign_in::{
    Allowance, Attempt, NewSession, Refresh, Refreshed, Refusal, SignedIn, SigningDevice,
};
use sotto_schema::second_factor::{Asks, Shown};
use uuid::Uuid;

use super::access_token::{self, Claims};
use super::code;
use super::guard::{Compared, Counts, Showing};
use super::refresh_token::{self, RefreshToken};
use super::session::{Caller, unauthenticated};
use super::{Identity, device_proof, key_check, network, second_factor};
use crate::error::ApiError;

/// Wrong codes that a verification takes.
pub const MOST_TRIES: i64 = 5;
/// How long after its first use a refresh token gives the same successor.
pub const GRACE: Duration = Duration::from_secs(60);
/// How long a signed prekey should serve.
pub const SIGNED_PREKEY_LIFE: Duration = Duration::from_secs(30 * 86_400);

const DAY: Duration = Duration::from_secs(86_400);

/// The first tokens of a family, and what the store keeps of them.
pub(super) struct Begun {
    family: Uuid,
    refresh: RefreshToken,
    pub(super) session: NewSession,
}

impl Identity {
    /// Makes an account with its first device. An account that has the number is deleted if the PIN of its registration lock is
    /// shown, or if that is asked for and its devices were silent for `auth.registration_lock_days`.
    ///
    /// # Errors
    /// 422, 401 `code_rejected`, 429, 503; 409 `conflict` with `available_at` when the number has an account, told only after
    /// the right code.
    pub async fn register(
        &self,
        request: RegisterRequest,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Tokens, ApiError> {
        check_shape(&request.device, &request.keys)?;
        let purpose = Purpose::Registration;
        let mut attempt = self.check_code(request.verification_id, purpose, &request.code, address, now).await?;
        let begun = self.begin(now)?;
        let shown = match self.store.guards_of_phone(attempt.phone.clone()).await? {
            Some(GuardRow { user_id, lock: Some(lock), .. }) => {
                let pin = request.pin.as_deref();
                self.compare_pin(user_id, &lock, pin, Counts::SignIn, &mut attempt).await?.shown
            }
            _ => Shown::Nothing,
        };
        let takeover = Takeover {
            shown,
            replaces: request.replace == Some(true),
            wait: DAY.saturating_mul(self.auth.registration_lock_days),
        };
        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        let device = new_device(device_id, request.device, self.kept_address(address), request.keys, now);
        let outcome = self.store.register(attempt, takeover, user_id, device, begun.session.clone()).await?;
        self.signed_in(outcome, "/pin", device_id, begun, now)
    }

    /// Signs a device in: a known one that proves it, or a new one.
    ///
    /// # Errors
    /// 422, 401 `code_rejected`, 429; 401 `second_factor_required` behind the right code, which uses nothing up; 409
    /// `conflict` for a known identity without proof or with other fixed keys; 409 `limit_reached` for a device too many.
    pub async fn login(&self, request: LoginRequest, address: IpAddr, now: Timestamp) -> Result<Tokens, ApiError> {
        check_shape(&request.device, &request.keys)?;
        let id = request.verification_id;
        let mut attempt = self.check_code(id, Purpose::Login, &request.code, address, now).await?;
        let identity_key = request.keys.identity_key.clone().unwrap_or_default();
        let known = self.store.known_device(attempt.phone.clone(), identity_key.0.clone()).await?;
        let proof = request.device_proof.unwrap_or_default();
        let known = known.filter(|known| {
            device_proof::holds(known.suite, identity_key.as_ref(), known.signing_key.as_deref(), id, proof.as_ref())
        });
        let showing = Showing {
            totp: request.totp.as_deref(),
            backup_code: request.backup_code.as_deref(),
            pin: request.pin.as_deref(),
        };
        let asks = if known.is_some() { Asks::Factor } else { Asks::FactorOrPin };
        let Compared { shown, field } = self.compare_at_sign_in(asks, showing, &mut attempt).await?;
        let device_id = known.as_ref().map_or_else(DeviceId::random, |known| known.device_id);
        let begun = self.begin(now)?;
        let device = new_device(device_id, request.device, self.kept_address(address), request.keys, now);
        let device = SigningDevice { is_known: known.is_some(), ..device };
        let outcome = self.store.login(attempt, shown, device, begun.session.clone()).await?;
        self.signed_in(outcome, field, device_id, begun, now)
    }

    /// Compares the code; a wrong one is counted here. `Ok`: it is right, and not used up yet.
    pub(super) async fn check_code(
        &self,
        id: VerificationId,
        purpose: Purpose,
        text: &str,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Attempt, ApiError> {
        let row = self.store.verification(id).await?;
        let row = row.filter(|row| {
            row.purpose == purpose && row.expires_at > now && row.used_at.is_none() && row.tries < MOST_TRIES
        });
        let row = row.ok_or_else(|| rejected(0))?;
        let attempt = Attempt {
            verification_id: id,
            failures: self.failure_allowances(&row.phone, address),
            second_factors: Vec::new(),
            address: self.kept_address(address),
            networks: self.networks(address),
            phone: row.phone,
            most_tries: MOST_TRIES,
            now,
        };
        if code::matches(&self.keys, id, text, &row.code_hash) {
            return Ok(attempt);
        }
        Err(second_factor::refusal(self.store.wrong_code(attempt).await?, "/code"))
    }

    fn failure_allowances(&self, phone: &str, address: IpAddr) -> Vec<Allowance> {
        let limits = &self.limits;
        if !limits.enabled {
            return Vec::new();
        }
        let place = self.keys.pseudonym(&network::place(address).to_string());
        let window = limits.failed_sign_in_window.duration();
        vec![
            Allowance::new("failed_number", self.keys.pseudonym(phone), limits.failed_sign_ins, window)
                .and(limits.wrong_codes_per_number_per_day, DAY),
            Allowance::new("failed_address", place, limits.failed_sign_ins, window),
        ]
    }

    pub(super) fn begin(&self, now: Timestamp) -> Result<Begun, ApiError> {
        let refresh = RefreshToken::random(&self.random).map_err(|_| no_random())?;
        let family = Uuid::new_v4();
        let session = NewSession {
            id: family,
            token_hash: refresh.hash(&self.keys),
            token_secret: refresh_token::row_secret(&self.random).map_err(|_| no_random())?.to_vec(),
            expires_at: now.plus(self.auth.refresh_ttl.duration()),
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
        self.remove_device(caller, caller.device_id, now).await.map(|_| ())
    }

    /// Removes a device of the caller's account: its keys, marks and sessions go, its socket closes, everybody concerned is told.
    /// `false`: there was none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_device(&self, caller: &Caller, device_id: DeviceId, now: Timestamp) -> Result<bool, ApiError> {
        let user_id = caller.user_id;
        let reason = if device_id == caller.device_id { Removal::SignedOut } else { Removal::Revoked };
        let Some(removed) = self.store.remove_device(user_id, device_id, reason, None, now).await? else {
            return Ok(false);
        };
        self.end_here(user_id, device_id, &removed.families, now);
        self.changes.devices_changed(user_id, &removed.told);
        Ok(true)
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
        Refusal::NumberKept { until, takes_pin } => {
            let detail = "this number has an account; sign in instead, or register with `replace` once it was silent";
            let problem = Problem::new(ErrorCode::Conflict, detail).with("available_at", until.to_string());
            return if takes_pin { problem.with("methods", ["pin"]).into() } else { problem.into() };
        }
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

pub(super) fn no_random() -> ApiError {
    Problem::unavailable("the system gives no random bytes").into()
}
