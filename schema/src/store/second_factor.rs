//! The second factor of accounts.

use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::second_factor::{BackupCodeRow, Enabling, FactorChange, FactorRow, NewFactor};
use crate::second_factor::Shown;
use sotto_protocol::{Timestamp, UserId};

super::facade! {
    /// The second factor of an account, enabled or being set up.
    read fn second_factor(user: UserId) -> Option<FactorRow> = second_factor::of_user;
    /// Begins a set-up in the place of an unfinished one; `false`: a second factor is enabled, and nothing was done.
    write fn begin_second_factor(user: UserId, new: NewFactor, now: Timestamp) -> bool = second_factor::begin;
    /// Finishes a set-up by what was shown, with these backup codes, if the proof holds.
    write fn enable_second_factor(proof: Proof, shown: Shown, codes: Vec<BackupCodeRow>) -> Enabling = second_factor::enable;
    /// Takes a proof and uses it up, where nothing is written with it.
    write fn prove(proof: Proof) -> Proved = reauthentication::prove_alone;
    /// Turns a new second factor off by what guarded the account before, from another device than the one that enabled it.
    write fn undo_second_factor(proof: Proof) -> Proved = second_factor::undo;
    /// Changes an enabled second factor, if the proof holds.
    write fn change_second_factor(proof: Proof, change: FactorChange) -> Proved = second_factor::change;
}
