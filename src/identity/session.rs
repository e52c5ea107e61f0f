//! Sessions: whose token this is, and whether its family still stands.
//!
//! A cache stands in front of the database. What this node ends is ended here at once; what another node ends is
//! heard of within two seconds ([`super::sweep`]), and after four the database is asked anyhow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::{DeviceId, Timestamp, UserId};
use uuid::Uuid;

use super::{Identity, access_token};
use crate::error::ApiError;

/// How long the database's word holds.
const FRESH: Duration = Duration::from_secs(4);
/// How long an ended family is remembered: longer than a read of the database that began before can take.
const ENDED: Duration = Duration::from_secs(120);
/// How often a device's last contact is written at most.
const CONTACT: Duration = Duration::from_secs(60);
/// Families that are remembered; above that the old ones go.
const MOST: usize = 100_000;

/// Who calls: a device with a valid access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The token family.
    pub session_id: Uuid,
    /// From when the token is not valid any more.
    pub token_expires_at: Timestamp,
}

/// What this node knows of token families.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Uuid, Known>>);

#[derive(Clone, Copy)]
struct Known {
    at: Timestamp,
    /// None: it has ended.
    live: Option<Live>,
}

#[derive(Clone, Copy)]
struct Live {
    user_id: UserId,
    device_id: DeviceId,
    confirmed: i64,
    last_contact: Timestamp,
}

impl Sessions {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Uuid, Known>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known and fresh. `Some(None)`: it has ended.
    fn get(&self, family: Uuid, now: Timestamp) -> Option<Option<Live>> {
        let known = self.with(|all| all.get(&family).copied())?;
        let holds = if known.live.is_some() { FRESH } else { ENDED };
        (now.since(known.at) < holds && known.at <= now.plus(FRESH)).then_some(known.live)
    }

    /// Keeps what the database said, unless the end of the family was heard meanwhile.
    fn learn(&self, family: Uuid, live: Option<Live>, now: Timestamp) -> Option<Live> {
        self.with(|all| {
            if all.len() >= MOST {
                all.retain(|_, known| now.since(known.at) < FRESH);
            }
            match all.get(&family) {
                Some(Known { live: None, at }) if now.since(*at) < ENDED => None,
                _ => {
                    all.insert(family, Known { at: now, live });
                    live
                }
            }
        })
    }

    fn note(&self, family: Uuid, change: impl FnOnce(&mut Live)) {
        self.with(|all| {
            if let Some(Known { live: Some(live), .. }) = all.get_mut(&family) {
                change(live);
            }
        });
    }

    pub(super) fn end(&self, family: Uuid, now: Timestamp) {
        self.with(|all| all.insert(family, Known { at: now, live: None }));
    }

    pub(super) fn forget_old(&self, now: Timestamp) {
        self.with(|all| all.retain(|_, known| now.since(known.at) < ENDED));
    }
}

/// 401: the one answer to every token that is not taken.
#[must_use]
pub fn unauthenticated() -> ApiError {
    Problem::new(ErrorCode::Unauthenticated, "the access token is missing, expired or not valid any more").into()
}

impl Identity {
    /// Whose access token this is. Notes the contact of the device, at most once a minute, and the use of the token.
    ///
    /// # Errors
    /// `unauthenticated` when the token is not ours, forged, expired, or its family has ended; `unavailable` when the
    /// database does not answer.
    pub async fn authenticate(&self, bearer: &str, now: Timestamp) -> Result<Caller, ApiError> {
        self.authenticate_from(bearer, None, now).await
    }

    /// The same, noting the address with the contact where addresses are kept.
    ///
    /// # Errors
    /// As [`Identity::authenticate`].
    pub async fn authenticate_from(
        &self,
        bearer: &str,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Caller, ApiError> {
        let claims = access_token::verify(&self.keys, bearer, now).map_err(|_| unauthenticated())?;
        let known = match self.sessions.get(claims.sid, now) {
            Some(known) => known,
            None => self.ask(claims.sid, now).await?,
        };
        let live = known.ok_or_else(unauthenticated)?;
        if live.user_id != claims.sub || live.device_id != claims.did {
            return Err(unauthenticated());
        }
        if claims.generation > live.confirmed {
            // Before anything is answered: from now on the refresh token before is re-use.
            self.store.confirm_session(claims.sid, claims.generation, now).await?;
            self.sessions.note(claims.sid, |live| live.confirmed = live.confirmed.max(claims.generation));
        }
        if now.since(live.last_contact) >= CONTACT {
            self.sessions.note(claims.sid, |live| live.last_contact = now);
            let address = address.and_then(|address| self.kept_address(address));
            if let Err(error) = self.store.touch_device(live.device_id, address, now.minus(CONTACT), now).await {
                // The next contact will write it.
                tracing::debug!(%error, "a contact was not noted");
            }
        }
        Ok(Caller {
            user_id: live.user_id,
            device_id: live.device_id,
            session_id: claims.sid,
            token_expires_at: claims.expires_at(),
        })
    }

    /// An address as it is kept in clear, if it is.
    pub(super) fn kept_address(&self, address: IpAddr) -> Option<String> {
        self.auth.keep_addresses.then(|| address.to_canonical().to_string())
    }

    /// Whether a family still stands, from the cache or the database; for sockets that live longer than a request.
    ///
    /// # Errors
    /// `unavailable` when the database does not answer.
    pub async fn is_live(&self, family: Uuid, now: Timestamp) -> Result<bool, ApiError> {
        match self.sessions.get(family, now) {
            Some(known) => Ok(known.is_some()),
            None => Ok(self.ask(family, now).await?.is_some()),
        }
    }

    async fn ask(&self, family: Uuid, now: Timestamp) -> Result<Option<Live>, ApiError> {
        let row = self.store.session(family).await?;
        let live = row.map(|row| Live {
            user_id: row.user_id,
            device_id: row.device_id,
            confirmed: row.confirmed,
            last_contact: row.last_active_at,
        });
        Ok(self.sessions.learn(family, live, now))
    }

    /// Forgets families that have ended, here at once, and tells it.
    pub(super) fn end_here(&self, user_id: UserId, device_id: DeviceId, families: &[Uuid], now: Timestamp) {
        for family in families {
            self.sessions.end(*family, now);
            self.changes.session_ended(user_id, device_id, *family);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        Live { user_id, device_id, confirmed: 0, last_contact: Timestamp::default() }
    }

    #[test]
    fn what_ended_here_is_not_brought_back_by_a_slow_read() {
        let (sessions, family, now) = (Sessions::default(), Uuid::new_v4(), Timestamp::now());
        assert!(sessions.learn(family, Some(live()), now).is_some());
        assert!(sessions.get(family, now).flatten().is_some());
        sessions.end(family, now);
        assert!(matches!(sessions.get(family, now), Some(None)));
        assert!(sessions.learn(family, Some(live()), now).is_none());
        assert!(matches!(sessions.get(family, now), Some(None)));
    }

    #[test]
    fn the_word_of_the_database_holds_for_four_seconds() {
        let (sessions, family, now) = (Sessions::default(), Uuid::new_v4(), Timestamp::now());
        sessions.learn(family, Some(live()), now);
        assert!(sessions.get(family, now.plus(Duration::from_millis(3_999))).is_some());
        assert!(sessions.get(family, now.plus(FRESH)).is_none());
    }
}
