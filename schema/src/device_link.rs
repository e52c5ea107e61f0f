//! The link of a new device to an account as a state machine without I/O: who may scan, confirm, refuse and collect it.
//!
//! Nothing here knows a secret. Whoever compares says whether what was shown is right, and the machine says what follows.
//! The queries ask it under the link's lock and write what it has decided, so that what holds for every sequence here holds for
//! every sequence there.

use sotto_protocol::{Timestamp, UserId};
use std::time::Duration;

/// How long the same tokens are given again to whoever has lost the answer, unless they were used.
pub const REPEAT: Duration = Duration::from_secs(60);

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The new device shows its QR code.
    Begun,
    /// An account has scanned it: it is bound to that account.
    Scanned,
    /// The account has confirmed it.
    Confirmed,
    /// The account has refused it.
    Refused,
    /// The new device has its tokens.
    Used,
}

impl Stage {
    /// The stage as it stands in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Scanned => "scanned",
            Self::Confirmed => "confirmed",
            Self::Refused => "refused",
            Self::Used => "used",
        }
    }

    /// Reads what [`Stage::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Begun, Self::Scanned, Self::Confirmed, Self::Refused, Self::Used];
        all.into_iter().find(|stage| stage.as_str() == text)
    }
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// How far it has come.
    pub stage: Stage,
    /// The account that it is bound to; none while it is begun.
    pub user_id: Option<UserId>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When the tokens were given.
    pub used_at: Option<Timestamp>,
}

/// What a confirmation or refusal comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deciding {
    /// There is no such link for this account.
    Unknown,
    /// It was decided in this way before: the same answer again.
    Already,
    /// It can be decided now.
    Open,
}

/// What asking for the tokens comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collecting {
    /// There is no such link for this device.
    Unknown,
    /// Nobody has confirmed it yet.
    Waiting {
        /// Whether somebody has scanned it.
        scanned: bool,
    },
    /// The device joins this account now.
    Join(UserId),
    /// It has joined: the same tokens again, if none of them was used.
    Again,
}

impl Link {
    /// A link that begins.
    #[must_use]
    pub const fn begun(expires_at: Timestamp) -> Self {
        Self { stage: Stage::Begun, user_id: None, expires_at, used_at: None }
    }

    fn is_of(&self, account: UserId) -> bool {
        self.user_id == Some(account)
    }

    /// An account shows the QR code. `false`: there is no such link for it. The first one binds it.
    pub fn scan(&mut self, account: UserId, is_right: bool, now: Timestamp) -> bool {
        if !is_right || self.expires_at <= now {
            return false;
        }
        match self.stage {
            Stage::Begun => {
                self.stage = Stage::Scanned;
                self.user_id = Some(account);
                true
            }
            Stage::Scanned | Stage::Confirmed => self.is_of(account),
            Stage::Refused | Stage::Used => false,
        }
    }

    /// What a confirmation by an account would come to. Changes nothing.
    #[must_use]
    pub fn confirming(&self, account: UserId, is_right: bool, now: Timestamp) -> Deciding {
        if !is_right || self.expires_at <= now || !self.is_of(account) {
            return Deciding::Unknown;
        }
        match self.stage {
            Stage::Scanned => Deciding::Open,
            Stage::Confirmed | Stage::Used => Deciding::Already,
            Stage::Begun | Stage::Refused => Deciding::Unknown,
        }
    }

    /// Confirms what [`Link::confirming`] has found open, by an account that has proved itself.
    pub fn confirm(&mut self, account: UserId, is_right: bool, now: Timestamp) {
        if self.confirming(account, is_right, now) == Deciding::Open {
            self.stage = Stage::Confirmed;
        }
    }

    /// An account refuses a link that it has scanned, confirmed or not.
    pub fn refuse(&mut self, account: UserId, is_right: bool, now: Timestamp) -> Deciding {
        if !is_right || self.expires_at <= now || !self.is_of(account) {
            return Deciding::Unknown;
        }
        match self.stage {
            Stage::Scanned | Stage::Confirmed => {
                self.stage = Stage::Refused;
                Deciding::Open
            }
            Stage::Refused => Deciding::Already,
            Stage::Begun | Stage::Used => Deciding::Unknown,
        }
    }

    /// What asking for the tokens comes to for a device that has shown secret, challenge and proof. Changes nothing.
    #[must_use]
    pub fn collecting(&self, is_right: bool, now: Timestamp) -> Collecting {
        if !is_right {
            return Collecting::Unknown;
        }
        let is_alive = self.expires_at > now;
        match (self.stage, self.user_id) {
            (Stage::Begun | Stage::Scanned, _) if is_alive => {
                Collecting::Waiting { scanned: self.stage == Stage::Scanned }
            }
            (Stage::Confirmed, Some(account)) if is_alive => Collecting::Join(account),
            // An answer that is lost in the last second must not strand the device either.
            (Stage::Used, _) if self.used_at.is_some_and(|at| now.since(at) <= REPEAT) => Collecting::Again,
            _ => Collecting::Unknown,
        }
    }

    /// The device has joined.
    pub fn use_up(&mut self, now: Timestamp) {
        if self.stage == Stage::Confirmed {
            self.stage = Stage::Used;
            self.used_at = Some(now);
        }
    }
}
