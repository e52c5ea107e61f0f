//! What a user may know of his account's past: the trail, and who tried to sign in.
//!
//! Tries are noted behind the answers, for numbers with and without an account alike, and written some seconds later: that
//! they are written tells nobody anything. *When full:* what does not fit is dropped and counted. *On death:* what was not
//! written yet is lost; what changed the account stands in its trail.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sotto_protocol::logins::Login;
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::trail::{TrailHead, TrailItem};
use sotto_protocol::{DeviceId, Timestamp};
use sotto_schema::StoreError;
use sotto_schema::rows::logins::{LoginOf, NewLogin};
use uuid::Uuid;

use super::Identity;
use super::session::Caller;
use crate::error::ApiError;

/// Tries that may wait to be written.
const MOST: usize = 1000;
/// Tries that are written in one transaction.
const AT_ONCE: usize = 100;
/// Characters of a program's name that are kept.
const AGENT: usize = 200;
/// Longer than any history.
const DAY: Duration = Duration::from_secs(86_400);

/// Tries that are not written yet.
#[derive(Default)]
pub(super) struct History(Mutex<Vec<NewLogin>>);

/// A try to sign in, as the request came.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// Whose try it is.
    pub of: LoginOf,
    /// How.
    pub method: &'static str,
    /// From where.
    pub address: IpAddr,
    /// What the program says that it is.
    pub agent: Option<&'a str>,
}

/// What came of a try, in the contract's words; `None`: the request was not right in form, or the server failed.
fn outcome(problem: &Problem) -> Option<&'static str> {
    match problem.code {
        ErrorCode::CodeRejected if problem.errors.is_empty() => Some("wrong_code"),
        ErrorCode::CodeRejected => Some("wrong_second_factor"),
        ErrorCode::SecondFactorRequired => Some("second_factor_required"),
        ErrorCode::RateLimited => Some("limited"),
        ErrorCode::Conflict | ErrorCode::LimitReached => Some("refused"),
        _ => None,
    }
}

/// A program's name as it is kept: without control characters, and not too long.
fn printable(agent: &str) -> Option<String> {
    let kept: String = agent.chars().filter(|letter| !letter.is_control()).take(AGENT).collect();
    (!kept.is_empty()).then_some(kept)
}

impl Identity {
    /// Notes a try to sign in with what came of it.
    pub fn note_login(&self, tried: Tried<'_>, result: Result<DeviceId, &Problem>, now: Timestamp) {
        let (device_id, outcome) = match result {
            Ok(device_id) => (Some(device_id), Some("signed_in")),
            Err(problem) => (None, outcome(problem)),
        };
        let Some(outcome) = outcome.filter(|_| self.auth.login_history_days > 0) else {
            return;
        };
        let login = NewLogin {
            id: Uuid::new_v4(),
            of: tried.of,
            device_id,
            method: tried.method,
            outcome,
            address: self.kept_address(tried.address),
            agent: tried.agent.and_then(printable),
            at: now,
        };
        let mut waiting = self.history.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST {
            metrics::counter!("sotto_logins_dropped_total").increment(1);
            return;
        }
        waiting.push(login);
    }

    /// Writes what was noted; called by [`Identity::keep_house`], and once more when the server stops.
    ///
    /// # Errors
    /// The database failed: what was noted is lost.
    pub async fn write_history(&self) -> Result<(), StoreError> {
        let mut noted = std::mem::take(&mut *self.history.0.lock().unwrap_or_else(PoisonError::into_inner));
        while !noted.is_empty() {
            let rest = noted.split_off(noted.len().min(AT_ONCE));
            self.store.note_logins(noted).await?;
            noted = rest;
        }
        Ok(())
    }

    /// From when on tries are kept.
    pub(super) fn history_since(&self, now: Timestamp) -> Timestamp {
        now.minus(DAY.saturating_mul(self.auth.login_history_days))
    }

    /// The caller's tries before one of them (the newest without it), newest first, each with its id.
    ///
    /// # Errors
    /// The database failed.
    pub async fn logins(
        &self,
        caller: &Caller,
        before: Option<(Timestamp, Uuid)>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<(Uuid, Login)>, ApiError> {
        let before = before.unwrap_or((now.plus(DAY), Uuid::max()));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.store.logins_before(caller.user_id, self.history_since(now), before, limit).await?;
        let logins = rows.into_iter().map(|row| {
            let login = Login {
                at: row.created_at,
                method: row.method,
                outcome: row.outcome,
                device_id: row.device_id,
                address: row.address,
                agent: row.agent,
            };
            (row.id, login)
        });
        Ok(logins.collect())
    }

    /// The caller's trail above an entry, oldest first, and where it ends.
    ///
    /// # Errors
    /// The database failed.
    pub async fn trail(
        &self,
        caller: &Caller,
        after: i64,
        limit: usize,
    ) -> Result<(Vec<TrailItem>, TrailHead), ApiError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // The end first: entries that come between the two lie behind it, and are on a later page.
        let head = self.store.trail_head(caller.user_id).await?;
        let mut items = self.store.trail_after(caller.user_id, after, limit).await?;
        items.retain(|item| item.seq <= head.seq);
        Ok((items, head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_named_by_what_can_be_printed() {
        assert_eq!(printable("App/1.0\u{7}\r\n (x)").as_deref(), Some("App/1.0 (x)"));
        assert_eq!(printable("\u{0}\u{1b}"), None);
        assert_eq!(printable(&"é".repeat(500)).unwrap().chars().count(), AGENT);
    }
}
