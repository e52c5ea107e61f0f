//! Proofs that a request gives: a code from a text message, and the second factor or PIN that stands behind it.
//!
//! A code is compared in the database, under the lock of its verification and of the counters of wrong codes. A second factor or PIN
//! is compared here, where the keys are, after a try was taken for it in the database. The transaction that makes
//! the change decides what follows (`sotto_schema::second_factor`, `sotto_schema::account_change`).
//!
//! Wrong codes count against their own verification and against who guesses: the network of a stranger, or a device that is signed
//! in. So nobody can use up the tries of somebody else, and a stolen session does not use up those of the owner's devices.

use std::net::IpAddr;
use std::time::Duration;

use sotto_protocol::auth::Purpose;
use sotto_protocol::{DeviceId, Timestamp, UserId, VerificationId};
use sotto_schema::rows::proofs::{
    CodeCompared, CodeGuess, Evidence, FactorAdmitted, FactorGuess, FactorTry, RightCode,
};
use sotto_schema::rows::registration_lock::{GuardRow, LockRow};
use sotto_schema::rows::sealed::SealedColumn;
use sotto_schema::rows::sign_in::Allowance;
use sotto_schema::second_factor::{Asks, Guard, Shown};

use super::pin::Pin;
use super::sealed::{self, Place};
use super::second_factor::field_of;
use super::sign_in::rejected;
use super::{Identity, code, network};
use crate::error::ApiError;

/// Tries that a verification takes.
pub const MOST_TRIES: i64 = 5;

const DAY: Duration = Duration::from_secs(86_400);

/// Who gives a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prover {
    /// Somebody who is not signed in.
    Stranger(IpAddr),
    /// A device of this account that is signed in.
    Device(UserId, DeviceId, IpAddr),
}

impl Prover {
    const fn address(self) -> IpAddr {
        match self {
            Self::Stranger(address) | Self::Device(_, _, address) => address,
        }
    }
}

/// What a request shows beside a code from a text message.
#[derive(Clone, Copy, Default)]
pub(super) struct Showing<'a> {
    /// A code of the authenticator app.
    pub totp: Option<&'a str>,
    /// A backup code.
    pub backup_code: Option<&'a str>,
    /// A PIN.
    pub pin: Option<&'a str>,
}

/// What it turned out to be.
pub(super) struct Compared {
    /// For the database to judge.
    pub evidence: Evidence,
    /// Where in the request it stands.
    pub field: &'static str,
}

impl Compared {
    pub(super) const fn nothing(field: &'static str) -> Self {
        Self { evidence: Evidence::NOTHING, field }
    }
}

impl Identity {
    /// Compares a code. `Ok`: it is right, and not used up yet.
    ///
    /// # Errors
    /// 401 `code_rejected`; 429 without a comparison.
    pub(super) async fn compare_code(
        &self,
        verification_id: VerificationId,
        purpose: Purpose,
        text: &str,
        prover: Prover,
        now: Timestamp,
    ) -> Result<RightCode, ApiError> {
        let guess = CodeGuess {
            verification_id,
            purpose,
            hashes: code::hashes(&self.keys, verification_id, text),
            counted: self.wrong_code_allowances(prover),
            most_tries: MOST_TRIES,
            address: self.kept_address(prover.address()),
            networks: self.networks(prover.address()),
            // A code of another number proves nothing about this account, so it is not worth a try.
            of: match prover {
                Prover::Device(user_id, ..) if purpose != Purpose::PhoneChange => Some(user_id),
                _ => None,
            },
            now,
        };
        match self.store.compare_code(guess).await? {
            CodeCompared::Right(code) => Ok(code),
            CodeCompared::Wrong { attempts_left } => Err(rejected(attempts_left)),
            CodeCompared::Limited(reached) => Err(ApiError::limited(&reached)),
        }
    }

    fn wrong_code_allowances(&self, prover: Prover) -> Vec<Allowance> {
        if !self.limits.enabled {
            return Vec::new();
        }
        let (most, window) = (self.limits.failed_sign_ins, self.limits.failed_sign_in_window.duration());
        vec![match prover {
            Prover::Stranger(address) => Allowance::new("failed_address", self.place(address), most, window),
            Prover::Device(_, device_id, _) => {
                Allowance::new("failed_device", device_id.as_bytes().as_slice(), most, window)
            }
        }]
    }

    fn place(&self, address: IpAddr) -> Vec<u8> {
        self.keys.pseudonym(&network::place(address).to_string())
    }

    /// Compares what a request shows with the guard that counts for it, after a try was taken for it.
    ///
    /// # Errors
    /// 429 without a comparison; 401 when the code was used up meanwhile; 503; what is stored does not open.
    pub(super) async fn compare(
        &self,
        row: &GuardRow,
        asks: Asks,
        showing: Showing<'_>,
        code: Option<&RightCode>,
        prover: Prover,
        now: Timestamp,
    ) -> Result<Compared, ApiError> {
        let Showing { totp, backup_code, pin } = showing;
        let guard =
            Guard::of(asks, row.factor.as_ref().map(|row| &row.factor), row.lock.as_ref().map(LockRow::standing));
        let takes_factor = matches!(guard, Guard::Factor(_) | Guard::FactorOrLock(..));
        let takes_pin = matches!(guard, Guard::Lock(_) | Guard::FactorOrLock(..));
        if let Some(factor) = row.factor.as_ref().filter(|_| takes_factor && (totp.is_some() || backup_code.is_some()))
        {
            let taken = self.take_try(self.second_factor_allowances(row.user_id, prover), code, now).await?;
            let shown = self.shown(factor, totp, backup_code, now)?;
            return Ok(Compared { evidence: Evidence::new(shown, taken), field: field_of(totp) });
        }
        if let (true, Some(lock), Some(pin)) = (takes_pin, &row.lock, pin) {
            let taken = self.take_try(self.pin_allowances(row.user_id, prover), code, now).await?;
            let shown = match self.shown_pin(row.user_id, lock, pin, prover).await {
                Ok(shown) => shown,
                // Nothing was compared: the node is busy, or what is stored does not open.
                Err(error) => {
                    self.store.give_try_back(code.cloned(), taken).await?;
                    return Err(error);
                }
            };
            return Ok(Compared { evidence: Evidence::new(shown, taken), field: "/pin" });
        }
        Ok(Compared::nothing(if takes_pin { "/pin" } else { field_of(totp) }))
    }

    /// The same for the account of a right code's number; of a number without one nothing is compared.
    ///
    /// # Errors
    /// As [`Identity::compare`].
    pub(super) async fn compare_at_sign_in(
        &self,
        asks: Asks,
        showing: Showing<'_>,
        code: &RightCode,
        address: IpAddr,
    ) -> Result<Compared, ApiError> {
        match self.store.guards_of_phone(code.phone().to_owned()).await? {
            Some(row) => self.compare(&row, asks, showing, Some(code), Prover::Stranger(address), code.now()).await,
            None => Ok(Compared::nothing("/code")),
        }
    }

    async fn take_try(
        &self,
        counted: Vec<Allowance>,
        code: Option<&RightCode>,
        now: Timestamp,
    ) -> Result<FactorTry, ApiError> {
        match self.store.admit_factor(FactorGuess { code: code.cloned(), counted, now }).await? {
            FactorAdmitted::Try(taken) => Ok(taken),
            FactorAdmitted::Rejected => Err(rejected(0)),
            FactorAdmitted::Limited(reached) => Err(ApiError::limited(&reached)),
        }
    }

    async fn shown_pin(&self, user_id: UserId, lock: &LockRow, text: &str, prover: Prover) -> Result<Shown, ApiError> {
        let Some(pin) = Pin::parse(text) else {
            return Ok(Shown::Wrong);
        };
        let place = Place { column: SealedColumn::PinHash, user_id, row: lock.id };
        let opened = sealed::open(&self.keys, &place, &lock.hash);
        let hash = opened.map_err(|error| place.does_not_open(&lock.hash, &error))?;
        let asker = network::place(prover.address());
        let is_right = self.hashing.run(user_id, asker, move || pin.matches(&hash)).await?;
        Ok(if is_right { Shown::Pin { lock: lock.id } } else { Shown::Wrong })
    }

    /// What wrong second factors count against. Sign-in has counts of its own, so that nobody who tries to sign in keeps the owner
    /// from changing what protects the account.
    fn second_factor_allowances(&self, user_id: UserId, prover: Prover) -> Vec<Allowance> {
        let limits = &self.limits;
        if !limits.enabled {
            return Vec::new();
        }
        let (most, window) = (limits.wrong_second_factors, limits.failed_sign_in_window.duration());
        let of = |kind, subject: &[u8]| {
            Allowance::new(kind, subject, most, window).and(limits.wrong_second_factors_per_day, DAY)
        };
        match prover {
            Prover::Device(_, device_id, _) => vec![of("reauthentication", device_id.as_bytes())],
            Prover::Stranger(_) => {
                [vec![of("second_factor", user_id.as_bytes())], self.wrong_code_allowances(prover)].concat()
            }
        }
    }

    fn pin_allowances(&self, user_id: UserId, prover: Prover) -> Vec<Allowance> {
        if !self.limits.enabled {
            return Vec::new();
        }
        let most = self.limits.wrong_pins_per_day;
        let of = |kind, subject: &[u8]| Allowance::new(kind, subject, most, DAY);
        match prover {
            Prover::Device(_, device_id, _) => vec![of("pin_again", device_id.as_bytes())],
            Prover::Stranger(_) => [vec![of("pin", user_id.as_bytes())], self.wrong_code_allowances(prover)].concat(),
        }
    }
}
