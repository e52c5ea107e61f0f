//! What signing in brings to the store, and what it gets back.

use super::DevicesChange;
use super::logins::LoginWay;
use super::reauthentication::Proved;
use crate::second_factor::Method;
use crate::types::{Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable};
use sotto_protocol::auth::DeviceInfo;
use sotto_protocol::keys::{Keys, Suite};
use sotto_protocol::{DeviceId, Timestamp, UserId};
use std::time::Duration;

/// How much a subject may do of a kind of thing in sliding windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// What is counted, as `code`.
    pub kind: &'static str,
    /// Whose count it is: a keyed hash or an id.
    pub subject: Vec<u8>,
    /// At most this many in this span; all of them hold.
    pub windows: Vec<(u32, Duration)>,
    /// Moments before this one do not count.
    pub not_before: Timestamp,
    /// How much one of them takes, at least 1.
    pub cost: u32,
    /// Whether a challenge is demanded once more than half of it is taken.
    pub is_guarded: bool,
}

impl Allowance {
    /// One window.
    #[must_use]
    pub fn new(kind: &'static str, subject: impl Into<Vec<u8>>, most: u32, span: Duration) -> Self {
        let not_before = Timestamp::from_micros(i64::MIN);
        Self { kind, subject: subject.into(), windows: vec![(most, span)], not_before, cost: 1, is_guarded: false }
    }

    /// One of them takes so much.
    #[must_use]
    pub fn costing(mut self, cost: u32) -> Self {
        self.cost = cost.max(1);
        self
    }

    /// Demands a challenge once more than half of it is taken.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.is_guarded = true;
        self
    }

    /// The part of its fullest window that is taken with one more, in thousandths; 1000 at most.
    #[must_use]
    pub fn share(&self, moments: &[Timestamp], now: Timestamp) -> u32 {
        let shares = self.windows.iter().map(|(most, span)| {
            let from = now.minus(*span);
            let recent = moments.iter().filter(|moment| **moment > from && **moment >= self.not_before).count();
            let taken = u64::try_from(recent).unwrap_or(u64::MAX).saturating_add(u64::from(self.cost));
            let share = taken.saturating_mul(1000) / u64::from(*most).max(1);
            u32::try_from(share.min(1000)).unwrap_or(1000)
        });
        shares.max().unwrap_or(0)
    }

    /// How much so many of them take.
    #[must_use]
    pub fn cost_of(&self, count: usize) -> usize {
        count.saturating_mul(usize::try_from(self.cost).unwrap_or(usize::MAX))
    }

    /// And another window.
    #[must_use]
    pub fn and(mut self, most: u32, span: Duration) -> Self {
        self.windows.push((most, span));
        self
    }

    /// The longest of its spans: so long must moments be kept.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.windows.iter().map(|(_, span)| *span).max().unwrap_or_default()
    }

    /// The window that does not allow `count` more now; of several the one that lasts longest. `moments` are in order, and
    /// what costs more stands there as often.
    #[must_use]
    pub fn reached(&self, moments: &[Timestamp], count: usize, now: Timestamp) -> Option<Reached> {
        let taken = self.cost_of(count);
        let reached = self.windows.iter().filter_map(|(most, span)| {
            let quota = usize::try_from(*most).unwrap_or(usize::MAX);
            let from = now.minus(*span);
            let recent: Vec<_> =
                moments.iter().filter(|moment| **moment > from && **moment >= self.not_before).collect();
            let over = recent.len().saturating_add(taken).checked_sub(quota.saturating_add(1))?;
            // More than the window ever allows: the whole span, since nothing better can be said.
            let until = recent.get(over).map_or(now.plus(*span), |moment| moment.plus(*span));
            let wait = until.since(now).max(Duration::from_millis(1));
            Some(Reached { kind: self.kind, most: *most, span: *span, wait })
        });
        reached.max_by_key(|reached| reached.wait)
    }

    /// How many more the tightest window allows now.
    #[must_use]
    pub fn left(&self, moments: &[Timestamp], now: Timestamp) -> usize {
        let left = self.windows.iter().map(|(most, span)| {
            let from = now.minus(*span);
            let taken = moments.iter().filter(|moment| **moment > from && **moment >= self.not_before).count();
            usize::try_from(*most).unwrap_or(usize::MAX).saturating_sub(taken)
        });
        left.min().unwrap_or(usize::MAX)
    }
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// What is counted.
    pub kind: &'static str,
    /// At most this many …
    pub most: u32,
    /// … in this span.
    pub span: Duration,
    /// How long to wait.
    pub wait: Duration,
}

/// A device that signs in.
#[derive(Clone, Debug)]
pub struct SigningDevice {
    /// The id: a new one, or that of the known device whose proof holds.
    pub id: DeviceId,
    /// Whether it is known.
    pub is_known: bool,
    /// What it says of itself.
    pub info: DeviceInfo,
    /// The address that it came from, where addresses are kept.
    pub address: Option<String>,
    /// Its keys, complete and checked.
    pub keys: Keys,
    /// When its signed prekey should be replaced.
    pub signed_prekey_expires_at: Timestamp,
}

/// A token family that begins.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The family.
    pub id: uuid::Uuid,
    /// Keyed hash of its first refresh token.
    pub token_hash: Vec<u8>,
    /// Secret of the token's row.
    pub token_secret: Vec<u8>,
    /// When the refresh token ends.
    pub expires_at: Timestamp,
    /// How the device signs in; `None` where no history is kept.
    pub way: Option<LoginWay>,
}

/// What became of a try.
#[derive(Clone, Debug)]
pub enum SignedIn {
    /// Signed in; the code is used up.
    Done {
        /// The account.
        user_id: UserId,
        /// The families that this ended.
        ended: Vec<uuid::Uuid>,
        /// Who was told of the change; empty when there was none.
        told: Vec<UserId>,
    },
    /// The code is not accepted; so many tries are left.
    Rejected {
        /// Tries left of this verification.
        attempts_left: i64,
    },
    /// The code is right, and what stands behind it was not shown; nothing was used up.
    SecondFactorRequired {
        /// What may be shown.
        methods: Vec<Method>,
    },
    /// The code is right and what stands behind it is not; that took a try of the code.
    SecondFactorRejected {
        /// Tries left of this verification.
        attempts_left: i64,
    },
    /// Too many failures; nothing was used up.
    Limited(Reached),
    /// In conflict with what is stored; nothing was used up.
    Refused(Refusal),
}

/// What became of a recovery.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The answer.
    pub answer: SignedIn,
    /// The devices that were removed.
    pub removed: Vec<RemovedDevice>,
}

impl From<SignedIn> for Recovered {
    fn from(answer: SignedIn) -> Self {
        Self { answer, removed: Vec::new() }
    }
}

/// Why a sign-in with the right code is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The number has an account.
    NumberInUse,
    /// The number is kept for its account until then, and longer if one of its devices is heard of.
    NumberKept {
        /// The earliest moment at which it is free.
        until: Timestamp,
        /// What frees it before.
        methods: Vec<Method>,
    },
    /// The account that has the number is being deleted after its time of grace. What was shown is used up.
    DeletionBegun {
        /// From when the number is free, unless a device of the account cancels.
        deletes_at: Timestamp,
    },
    /// A new second factor can still be undone, and this would take the means away.
    Waits {
        /// From when it is allowed.
        until: Timestamp,
    },
    /// The number is the account's own already.
    OwnNumber,
    /// The account has neither a second factor nor a registration lock.
    NothingBehindCode,
    /// The number has no account.
    NoAccount,
    /// A device with this identity exists, and it is not this one.
    IdentityInUse,
    /// A known device must keep its suite and signing key.
    KeysChanged,
    /// Another device of the user has this fingerprint.
    FingerprintInUse,
    /// The user has as many devices as there may be.
    TooManyDevices,
}

/// A known device, found by its identity key.
#[derive(Clone, Debug, QueryableByName)]
pub struct KnownDeviceRow {
    /// The device.
    #[diesel(sql_type = Uuid)]
    pub device_id: DeviceId,
    /// Its family of encryption.
    #[diesel(sql_type = Word)]
    pub suite: Suite,
    /// Ed25519 key, for `olm`.
    #[diesel(sql_type = Nullable<Binary>)]
    pub signing_key: Option<Vec<u8>>,
}

/// A token family.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct SessionRow {
    /// The account.
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    /// The device.
    #[diesel(sql_type = Uuid)]
    pub device_id: DeviceId,
    /// Number of the newest tokens.
    #[diesel(sql_type = BigInt)]
    pub generation: i64,
    /// Number of the newest tokens that have been used.
    #[diesel(sql_type = BigInt)]
    pub confirmed: i64,
    /// When the newest refresh token ends.
    #[diesel(sql_type = Moment)]
    pub expires_at: Timestamp,
    /// When the device was last heard of.
    #[diesel(sql_type = Moment)]
    pub last_active_at: Timestamp,
}

/// A token family that was ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub struct EndedSessionRow {
    /// The family.
    #[diesel(sql_type = Uuid)]
    pub id: uuid::Uuid,
    /// The account.
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    /// The device.
    #[diesel(sql_type = Uuid)]
    pub device_id: DeviceId,
}

/// A refresh token with its family.
#[derive(Clone, Debug, QueryableByName)]
pub struct RefreshTokenRow {
    /// The family.
    #[diesel(sql_type = Uuid)]
    pub session_id: uuid::Uuid,
    /// The account.
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    /// The device.
    #[diesel(sql_type = Uuid)]
    pub device_id: DeviceId,
    /// The token's number in its family.
    #[diesel(sql_type = BigInt)]
    pub generation: i64,
    /// Secret of the row.
    #[diesel(sql_type = Binary)]
    pub secret: Vec<u8>,
    /// When it was used first.
    #[diesel(sql_type = Nullable<Moment>)]
    pub used_at: Option<Timestamp>,
    /// When it ends.
    #[diesel(sql_type = Moment)]
    pub expires_at: Timestamp,
    /// Number of the family's newest tokens that have been used.
    #[diesel(sql_type = BigInt)]
    pub confirmed: i64,
}

/// A refresh token that is presented, with the successor that belongs to it.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// Keyed hash of the presented token.
    pub hash: Vec<u8>,
    /// The family, as it was read with the token.
    pub session_id: uuid::Uuid,
    /// Keyed hash of the successor.
    pub next_hash: Vec<u8>,
    /// Secret of the successor's row, if it is made now.
    pub next_secret: Vec<u8>,
    /// When the successor ends, if it is made now.
    pub next_expires_at: Timestamp,
    /// How long after its first use the same token gives the same successor.
    pub grace: Duration,
    /// The moment.
    pub now: Timestamp,
}

/// What became of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The successor stands, made now or before.
    Done {
        /// Its number in the family.
        generation: i64,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// There is no such token any more.
    Unknown,
    /// The token had served: the family has ended.
    Reused,
}

/// A device that was removed.
#[derive(Clone, Debug)]
pub struct RemovedDevice {
    /// What was told.
    pub change: DevicesChange,
    /// Its token families.
    pub families: Vec<uuid::Uuid>,
    /// Who was told.
    pub told: Vec<UserId>,
}

/// What became of the removal of devices with a proof.
#[derive(Clone, Debug)]
pub enum DevicesRemoved {
    /// These are gone; none: there was none, and the proof was not used up.
    Done(Vec<RemovedDevice>),
    /// The proof was refused.
    Refused(Proved),
}

/// An account with one of its devices, for `me`.
#[derive(Clone, Debug)]
pub struct AccountRow {
    /// E.164.
    pub phone: String,
    /// When the account was made.
    pub user_created_at: Timestamp,
    /// What the device says of itself.
    pub info: DeviceInfo,
    /// When the device signed in first.
    pub created_at: Timestamp,
    /// When it was last heard of.
    pub last_active_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides() {
        let now = Timestamp::from_millis(1_000_000_000);
        let ago = |seconds| now.minus(Duration::from_secs(seconds));
        let hour = Allowance::new("code", [], 3, Duration::from_secs(3600));
        let wait = |allowance: &Allowance, moments: &[Timestamp], count| {
            allowance.reached(moments, count, now).map(|reached| reached.wait.as_secs())
        };
        assert_eq!(wait(&hour, &[], 1), None);
        assert_eq!(wait(&hour, &[ago(4000), ago(30), ago(20)], 1), None);
        assert_eq!(wait(&hour, &[ago(3000), ago(30), ago(20)], 1), Some(600));
        assert_eq!(wait(&hour, &[ago(3000), ago(30), ago(20)], 2), Some(3570));
        assert_eq!(wait(&hour, &[], 4), Some(3600));
        let both = hour.clone().and(4, Duration::from_secs(86_400));
        let day = [ago(80_000), ago(70_000), ago(60_000), ago(50_000)];
        assert_eq!(wait(&both, &day, 1), Some(6400));
        assert_eq!(wait(&Allowance { not_before: ago(100), ..both }, &day, 1), None);
    }
}
