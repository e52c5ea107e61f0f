//! What stands behind a right code: the second factor of an account, or the PIN of its registration lock. What a request
//! shows of it is compared here, where the keys are; what follows from it is decided in the database, under the account's
//! lock (`sotto_schema::second_factor`).

use std::time::Duration;

use sotto_protocol::UserId;
use sotto_schema::rows::registration_lock::{GuardRow, LockRow};
use sotto_schema::rows::sealed::SealedColumn;
use sotto_schema::rows::sign_in::{Allowance, Attempt};
use sotto_schema::second_factor::{Asks, Shown};

use super::Identity;
use super::pin::Pin;
use super::sealed::{self, Place};
use super::second_factor::field_of;
use crate::error::ApiError;

const DAY: Duration = Duration::from_secs(86_400);

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
    pub shown: Shown,
    /// Where in the request it stands.
    pub field: &'static str,
}

/// Against which counts wrong ones go. Sign-in has its own, so that whoever tries to sign in cannot keep the owner from changing
/// what he protects the account with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    SignIn,
    SignedIn,
}

impl Identity {
    /// Compares what a request shows with what counts for it, and sets what wrong ones count against.
    ///
    /// # Errors
    /// 429 and 503 before a PIN is compared; what is stored does not open.
    pub(super) async fn compare(
        &self,
        row: &GuardRow,
        asks: Asks,
        showing: Showing<'_>,
        counts: Counts,
        attempt: &mut Attempt,
    ) -> Result<Compared, ApiError> {
        let Showing { totp, backup_code, pin } = showing;
        if let Some(factor) = row.enabled() {
            attempt.second_factors = self.second_factor_allowances(counts, row.user_id);
            return Ok(Compared { shown: self.shown(factor, totp, backup_code, attempt.now)?, field: field_of(totp) });
        }
        match &row.lock {
            Some(lock) if asks == Asks::FactorOrPin => self.compare_pin(row.user_id, lock, pin, counts, attempt).await,
            _ => Ok(Compared { shown: Shown::Nothing, field: field_of(totp) }),
        }
    }

    /// The same for the account of an attempt's number, at sign-in; of a number without one nothing is compared.
    ///
    /// # Errors
    /// As [`Identity::compare`].
    pub(super) async fn compare_at_sign_in(
        &self,
        asks: Asks,
        showing: Showing<'_>,
        attempt: &mut Attempt,
    ) -> Result<Compared, ApiError> {
        match self.store.guards_of_phone(attempt.phone.clone()).await? {
            Some(row) => self.compare(&row, asks, showing, Counts::SignIn, attempt).await,
            None => Ok(Compared { shown: Shown::Nothing, field: "/code" }),
        }
    }

    /// Compares a PIN, and sets what wrong ones count against.
    ///
    /// # Errors
    /// 429 and 503 before it is compared; the hash does not open.
    pub(super) async fn compare_pin(
        &self,
        user_id: UserId,
        lock: &LockRow,
        pin: Option<&str>,
        counts: Counts,
        attempt: &mut Attempt,
    ) -> Result<Compared, ApiError> {
        attempt.second_factors = self.pin_allowances(counts, user_id);
        let shown = match pin {
            Some(text) => self.shown_pin(user_id, lock, text, attempt).await?,
            None => Shown::Nothing,
        };
        Ok(Compared { shown, field: "/pin" })
    }

    async fn shown_pin(
        &self,
        user_id: UserId,
        lock: &LockRow,
        text: &str,
        attempt: &Attempt,
    ) -> Result<Shown, ApiError> {
        // Nobody makes this node compute more hashes than he has tries.
        if let Some(reached) = self.store.peek_allowances(attempt.second_factors.clone(), attempt.now).await? {
            return Err(ApiError::limited(&reached));
        }
        let Some(pin) = Pin::parse(text) else {
            return Ok(Shown::Wrong);
        };
        let place = Place { column: SealedColumn::PinHash, user_id, row: lock.id };
        let opened = sealed::open(&self.keys, &place, &lock.hash);
        let hash = opened.map_err(|error| place.does_not_open(&lock.hash, &error))?;
        let is_right = self.hashing.run(move || pin.matches(&hash)).await?;
        Ok(if is_right { Shown::Pin { lock: lock.id } } else { Shown::Wrong })
    }

    /// What wrong second factors of an account count against.
    pub(super) fn second_factor_allowances(&self, counts: Counts, user_id: UserId) -> Vec<Allowance> {
        let limits = &self.limits;
        if !limits.enabled {
            return Vec::new();
        }
        let kind = match counts {
            Counts::SignIn => "second_factor",
            Counts::SignedIn => "reauthentication",
        };
        let window = limits.failed_sign_in_window.duration();
        vec![
            Allowance::new(kind, user_id.as_bytes().as_slice(), limits.wrong_second_factors, window)
                .and(limits.wrong_second_factors_per_day, DAY),
        ]
    }

    fn pin_allowances(&self, counts: Counts, user_id: UserId) -> Vec<Allowance> {
        if !self.limits.enabled {
            return Vec::new();
        }
        let kind = match counts {
            Counts::SignIn => "pin",
            Counts::SignedIn => "pin_again",
        };
        vec![Allowance::new(kind, user_id.as_bytes().as_slice(), self.limits.wrong_pins_per_day, DAY)]
    }
}
