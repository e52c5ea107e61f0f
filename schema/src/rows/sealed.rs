//! Cells of columns that hold secrets: sealed before they come here, with a key whose name stands beside them.

use crate::types::Uuid;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Text};
use sotto_protocol::UserId;
use std::fmt;

/// A column whose cells are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealedColumn {
    /// The secret of a second factor.
    TotpSecret,
    /// The hash of a backup code.
    BackupCodeHash,
    /// The hash of a registration lock's PIN.
    PinHash,
}

impl SealedColumn {
    /// Every one of them: what a rotation goes through.
    pub const ALL: [Self; 3] = [Self::TotpSecret, Self::BackupCodeHash, Self::PinHash];

    /// Table and column. It is part of what a cell is sealed with: never change it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TotpSecret => "second_factors.secret",
            Self::BackupCodeHash => "backup_codes.hash",
            Self::PinHash => "registration_locks.hash",
        }
    }
}

/// A sealed cell.
#[derive(Clone, PartialEq, Eq, QueryableByName)]
pub struct SealedCell {
    /// The name of the key that sealed it.
    #[diesel(sql_type = Text)]
    pub key_id: String,
    /// What only that key opens.
    #[diesel(sql_type = Binary)]
    pub sealed: Vec<u8>,
}

impl fmt::Debug for SealedCell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SealedCell").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A cell with its row, for whoever seals it anew.
#[derive(Clone, Debug, QueryableByName)]
pub struct SealedRow {
    /// The row.
    #[diesel(sql_type = Uuid)]
    pub id: uuid::Uuid,
    /// Whose row it is.
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    /// The cell.
    #[diesel(embed)]
    pub cell: SealedCell,
}

/// A cell that takes the place of another, unless that one has changed.
#[derive(Clone, Debug)]
pub struct Reseal {
    /// The row.
    pub id: uuid::Uuid,
    /// What it was made from.
    pub before: SealedCell,
    /// The same, sealed anew.
    pub after: SealedCell,
}

/// How many cells of a column are sealed with a key.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct SealedCount {
    /// The key.
    #[diesel(sql_type = Text)]
    pub key_id: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub cells: i64,
}
