//! Registration locks, as the store gives and takes them.

use super::proofs::Evidence;
use super::sealed::SealedCell;
use super::second_factor::FactorRow;
use crate::second_factor::Lock;
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use sotto_protocol::{Timestamp, UserId};
use std::time::Duration;

/// A registration lock.
#[derive(Clone, Debug, QueryableByName)]
pub struct LockRow {
    /// Another one with each PIN.
    #[diesel(sql_type = Uuid)]
    pub id: uuid::Uuid,
    /// The hash of the PIN.
    #[diesel(embed)]
    pub hash: SealedCell,
    /// When it was set.
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
}

impl LockRow {
    /// The lock as the decisions see it.
    #[must_use]
    pub const fn standing(&self) -> Lock {
        Lock { id: self.id, set_at: self.created_at }
    }
}

/// What an account has behind the right code.
#[derive(Clone, Debug)]
pub struct GuardRow {
    /// The account.
    pub user_id: UserId,
    /// Its second factor, enabled or being set up.
    pub factor: Option<FactorRow>,
    /// Its registration lock.
    pub lock: Option<LockRow>,
}

impl GuardRow {
    /// The second factor, if sign-in asks for it.
    #[must_use]
    pub fn enabled(&self) -> Option<&FactorRow> {
        self.factor.as_ref().filter(|row| row.factor.is_enabled())
    }
}

/// A registration lock that is set.
#[derive(Clone, Debug)]
pub struct NewLock {
    /// Its id.
    pub id: uuid::Uuid,
    /// The hash of its PIN.
    pub hash: SealedCell,
}

/// What a registration brings for a number that has an account.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// What is shown of the account's second factor or PIN.
    pub evidence: Evidence,
    /// Whether the account is to be deleted when it has been silent for long enough.
    pub replaces: bool,
    /// How long an account keeps its number after the last contact of a device.
    pub wait: Duration,
    /// How long the devices of an account that is not silent can cancel its deletion.
    pub grace: Duration,
    /// How long a new second factor can be undone.
    pub undo: Duration,
}
