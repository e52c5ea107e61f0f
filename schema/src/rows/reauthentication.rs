//! What somebody who is signed in shows again before something that matters.

use super::proofs::{Evidence, RightCode};
use super::sign_in::SignedIn;
use crate::account_change::Change;
use sotto_protocol::{DeviceId, Timestamp, UserId};
use std::time::Duration;

/// What a device that is signed in shows for a change of its account.
#[derive(Clone, Debug)]
pub struct Proof {
    /// What it is for.
    pub change: Change,
    /// The account.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// A right code that was sent to the account's number.
    pub code: Option<RightCode>,
    /// What is shown of second factor or PIN.
    pub evidence: Evidence,
    /// How long a new second factor can be undone.
    pub wait: Duration,
    /// The address that the trail shows.
    pub address: Option<String>,
    /// The moment.
    pub now: Timestamp,
}

/// What a proof is worth.
#[derive(Clone, Debug)]
pub enum Proved {
    /// It holds, and is used up.
    Done,
    /// It is about a second factor, and the account has none, or none that is new enough to be undone.
    NoSecondFactor,
    /// The device that enabled a second factor does not undo it.
    OwnFactor,
    /// The change waits until this moment, because a second factor is new. Nothing was used up.
    Waits(Timestamp),
    /// It was refused as a sign-in is.
    Refused(SignedIn),
}
