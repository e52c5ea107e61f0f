//! Registration locks, and what accounts have behind the right code.

use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::registration_lock::{GuardRow, LockRow, NewLock};
use sotto_protocol::UserId;

super::facade! {
    /// The registration lock of an account.
    read fn registration_lock(user: UserId) -> Option<LockRow> = registration_lock::of_user;
    /// What an account has behind the right code.
    read fn guards(user: UserId) -> GuardRow = registration_lock::guards;
    /// What the account of a number has behind the right code.
    read fn guards_of_phone(phone: String) -> Option<GuardRow> = registration_lock::guards_of_phone;
    /// Sets a lock in the place of any other, if the proof holds; `None` removes it.
    write fn change_registration_lock(proof: Proof, new: Option<NewLock>) -> Proved = registration_lock::change;
}
