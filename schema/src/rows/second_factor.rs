//! The second factor of an account and its backup codes, as the store gives and takes them.

use super::reauthentication::Proved;
use super::sealed::SealedCell;
use crate::second_factor::Factor;
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable};
use sotto_protocol::{Timestamp, UserId};

/// A second factor with its secret and its backup codes.
#[derive(Clone, Debug)]
pub struct FactorRow {
    /// Whose it is.
    pub user_id: UserId,
    /// The secret.
    pub secret: SealedCell,
    /// Where it stands.
    pub factor: Factor,
    /// The backup codes that were not used.
    pub backup_codes: Vec<BackupCodeRow>,
}

/// A second factor without its backup codes.
#[derive(Clone, Debug, QueryableByName)]
pub(crate) struct FactorOnly {
    #[diesel(sql_type = Uuid)]
    pub id: uuid::Uuid,
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    #[diesel(embed)]
    pub secret: SealedCell,
    #[diesel(sql_type = BigInt)]
    pub tries: i64,
    #[diesel(sql_type = BigInt)]
    pub last_step: i64,
    #[diesel(sql_type = Nullable<Moment>)]
    pub enabled_at: Option<Timestamp>,
    #[diesel(sql_type = Moment)]
    pub expires_at: Timestamp,
}

/// A backup code.
#[derive(Clone, Debug, QueryableByName)]
pub struct BackupCodeRow {
    /// The code.
    #[diesel(sql_type = Uuid)]
    pub id: uuid::Uuid,
    /// What its hash is salted with.
    #[diesel(sql_type = Binary)]
    pub salt: Vec<u8>,
    /// The hash.
    #[diesel(embed)]
    pub hash: SealedCell,
}

/// A set-up that begins.
#[derive(Clone, Debug)]
pub struct NewFactor {
    /// The set-up.
    pub id: uuid::Uuid,
    /// Its secret.
    pub secret: SealedCell,
    /// Until when it can be finished.
    pub expires_at: Timestamp,
}

/// What a signed-in user changes about an enabled second factor.
#[derive(Clone, Debug)]
pub enum FactorChange {
    /// It is turned off, and its backup codes with it.
    Disable,
    /// These backup codes take the place of all others.
    NewBackupCodes(Vec<BackupCodeRow>),
}

/// What became of an attempt to finish a set-up.
#[derive(Clone, Debug)]
pub enum Enabling {
    /// There is nothing to finish.
    Nothing,
    /// The code of the new secret is not right.
    Rejected {
        /// With none left the set-up must be begun anew.
        attempts_left: i64,
    },
    /// The proof was refused.
    Refused(Proved),
    /// The second factor is enabled.
    Enabled,
}
