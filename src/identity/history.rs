//! What a user may know of his account's past: the trail, and who tried to sign in.
//!
//! A sign-in is written in its own transaction. Refused tries are kept in memory, for numbers with and without an account
//! alike, and written some seconds later, so that an answer takes the same time in both cases. *When full:* refused tries
//! beyond a bound are counted in a summary, and what does not even fit there is dropped and counted. *On death:* refused
//! tries that were not written yet are lost; a sign-in never is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sotto_protocol::Timestamp;
use sotto_protocol::logins::Login;
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::trail::{TrailHead, TrailItem};
use sotto_schema::StoreError;
use sotto_schema::rows::logins::{LoginOf, LoginWay, OF_VERIFICATION, RefusedLogin};
use uuid::Uuid;

use super::session::Caller;
use super::{Identity, network};
use crate::error::ApiError;

/// Entries that may wait to be written.
const MOST: usize = 1000;
/// Entries of one address (IPv6: /64) that may wait to be written.
const MOST_OF_PLACE: usize = 50;
/// Entries that are written in one transaction.
const AT_ONCE: usize = 100;
/// Characters of a program's name that are kept.
const AGENT: usize = 200;
/// Longer than any history.
const DAY: Duration = Duration::from_secs(86_400);

/// Refused tries that are not written yet.
#[derive(Default)]
pub(super) struct History(Mutex<Waiting>);

/// Entries that wait, by whose they are.
#[derive(Default)]
struct Waiting {
    entries: HashMap<LoginOf, Vec<RefusedLogin>>,
    count: usize,
    places: HashMap<IpAddr, usize>,
}

impl Waiting {
    /// Adds a refused try as an entry of its own, or counts it in a summary. `false`: there was no room.
    fn add(&mut self, refused: RefusedLogin, place: IpAddr) -> bool {
        let waiting = self.entries.get_mut(&refused.of).map(Vec::as_mut_slice).unwrap_or_default();
        let is_own = waiting.iter().filter(|entry| entry.way.is_some()).count() < OF_VERIFICATION;
        if !is_own
            && let Some(summary) =
                waiting.iter_mut().find(|entry| entry.way.is_none() && entry.outcome == refused.outcome)
        {
            summary.tries = summary.tries.saturating_add(refused.tries);
            summary.last_at = summary.last_at.max(refused.last_at);
            return true;
        }
        let of_place = self.places.get(&place).copied().unwrap_or_default();
        if self.count >= MOST || of_place >= MOST_OF_PLACE {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.places.insert(place, of_place.saturating_add(1));
        let way = refused.way.filter(|_| is_own);
        self.entries.entry(refused.of).or_default().push(RefusedLogin { way, ..refused });
        true
    }

    /// Takes all entries, the oldest first.
    fn take(&mut self) -> Vec<RefusedLogin> {
        let mut entries: Vec<_> = std::mem::take(self).entries.into_values().flatten().collect();
        entries.sort_by_key(|entry| entry.first_at);
        entries
    }
}

/// How somebody tries to sign in, as the request came.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// The method, as the contract has it.
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
    /// How a device signs in, as the history keeps it; `None` where there is none.
    pub(super) fn way(&self, tried: &Tried<'_>) -> Option<LoginWay> {
        (self.auth.login_history_days > 0).then(|| LoginWay {
            method: tried.method,
            address: self.kept_address(tried.address),
            agent: tried.agent.and_then(printable),
        })
    }

    /// Notes a try to sign in that was refused.
    pub fn note_refused(&self, of: LoginOf, tried: &Tried<'_>, problem: &Problem, now: Timestamp) {
        let (Some(outcome), Some(way)) = (outcome(problem), self.way(tried)) else {
            return;
        };
        let refused = RefusedLogin { of, outcome, way: Some(way), tries: 1, first_at: now, last_at: now };
        let mut waiting = self.history.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.add(refused, network::place(tried.address)) {
            metrics::counter!("sotto_logins_dropped_total").increment(1);
        }
    }

    /// Writes what was noted; called by [`Identity::keep_house`], and once more when the server stops.
    ///
    /// # Errors
    /// The database failed: the batch that it failed for is lost, and counted.
    pub async fn write_history(&self) -> Result<(), StoreError> {
        let mut noted = self.history.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut outcome = Ok(());
        while !noted.is_empty() {
            let rest = noted.split_off(noted.len().min(AT_ONCE));
            let count = u64::try_from(noted.len()).unwrap_or(u64::MAX);
            // What is wrong with one batch takes no other with it.
            if let Err(error) = self.store.note_refused_logins(noted).await {
                metrics::counter!("sotto_logins_dropped_total").increment(count);
                outcome = Err(error);
            }
            noted = rest;
        }
        outcome
    }

    /// Makes room for the coming months; called before the listeners open, and by [`Identity::sweep`].
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep_history(&self, now: Timestamp) -> Result<(), StoreError> {
        self.store.keep_logins(self.history_since(now), now).await
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
                tries: row.tries,
                last_at: row.tries.map(|_| row.updated_at),
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
    use sotto_protocol::VerificationId;

    #[test]
    fn programs_are_named_by_what_can_be_printed() {
        assert_eq!(printable("App/1.0\u{7}\r\n (x)").as_deref(), Some("App/1.0 (x)"));
        assert_eq!(printable("\u{0}\u{1b}"), None);
        assert_eq!(printable(&"é".repeat(500)).unwrap().chars().count(), AGENT);
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn refused(of: LoginOf, outcome: &'static str, second: i64) -> RefusedLogin {
        let way = Some(LoginWay { method: "code", address: None, agent: None });
        let at = Timestamp::from_millis(second * 1000);
        RefusedLogin { of, outcome, way, tries: 1, first_at: at, last_at: at }
    }

    #[test]
    fn tries_of_one_verification_are_few_entries_and_are_all_counted() {
        let mut waiting = Waiting::default();
        let of = LoginOf::Code(VerificationId::random());
        for second in 0..500 {
            let outcome = if second % 2 == 0 { "wrong_code" } else { "limited" };
            assert!(waiting.add(refused(of, outcome, second), address(1)));
        }
        let taken = waiting.take();
        assert_eq!(taken.len(), OF_VERIFICATION + 2);
        assert_eq!(taken.iter().map(|entry| entry.tries).sum::<i64>(), 500);
        let last = taken.iter().map(|entry| entry.last_at).max().unwrap();
        assert_eq!(last, Timestamp::from_millis(499_000));
        assert_eq!((waiting.count, waiting.take().len()), (0, 0));
    }

    #[test]
    fn an_address_takes_its_share_and_no_more() {
        let mut waiting = Waiting::default();
        let of = || LoginOf::Code(VerificationId::random());
        let fits = (0..2000).filter(|second| waiting.add(refused(of(), "wrong_code", *second), address(1))).count();
        assert_eq!(fits, MOST_OF_PLACE);
        assert!(waiting.add(refused(of(), "wrong_code", 0), address(2)));
        for last in 3..=255 {
            for _ in 0..MOST_OF_PLACE {
                waiting.add(refused(of(), "wrong_code", 0), address(last));
            }
        }
        assert_eq!((waiting.count, waiting.take().len()), (MOST, MOST));
    }
}
