//! What is asked and noted when devices come and go. Many come at once, so these calls are gathered: see `gather.rs`.

use crate::gather::Gather;
use crate::rows::Arrival;
use crate::rows::sign_in::SessionRow;
use crate::{Store, StoreError};
use sotto_protocol::{DeviceId, Timestamp, UserId};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// Runs of one kind at the same time: two would be half as large, and a statement costs more than what is in it.
const LANES: usize = 1;
/// Devices, users or families of one run.
const MOST: usize = 64;
/// Who is to hear that somebody has come or gone can be asked for a little later, and for more of them.
const PEERS_PAUSE: Duration = Duration::from_millis(20);
/// Users of one such run: what comes in that time when ten thousand connect in a second.
const MOST_PEERS: usize = 256;

/// A device was heard of: at this address if that is told, unless that is known since a moment, at that moment.
type Contact = (Option<String>, Timestamp, Timestamp);

/// What waits for its run.
#[derive(Clone, Debug)]
pub(crate) struct Gathered {
    sessions: Gather<Uuid, (), SessionRow>,
    confirmed: Gather<Uuid, (i64, Timestamp), ()>,
    touched: Gather<DeviceId, Contact, ()>,
    claims: Gather<DeviceId, (Option<i64>, Timestamp), i64>,
    arrivals: Gather<DeviceId, (UserId, Timestamp), Arrival>,
    peers: Gather<UserId, (), Vec<UserId>>,
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            sessions: Gather::new(LANES, MOST),
            confirmed: Gather::new(LANES, MOST),
            touched: Gather::new(LANES, MOST),
            claims: Gather::new(LANES, MOST),
            arrivals: Gather::new(LANES, MOST),
            peers: Gather::unhurried(LANES, MOST_PEERS, PEERS_PAUSE),
        }
    }
}

super::facade! {
    /// Token families with their devices; those that have ended are left out.
    read fn read_sessions(families: Vec<Uuid>) -> HashMap<Uuid, SessionRow> = arrivals::sessions;
    /// Notes that tokens of these numbers of their families have been used; tells for which that was news.
    write fn write_confirmed(used: Vec<(Uuid, i64)>, now: Timestamp) -> HashMap<Uuid, ()> = arrivals::confirm;
    /// The same for one family, even if somebody else holds it.
    write fn write_confirmed_one(family: Uuid, generation: i64, now: Timestamp) -> () = arrivals::confirm_one;
    /// Notes that devices were heard of, unless that is known since `unless_since`.
    write fn write_touched(devices: Vec<(DeviceId, Option<String>)>, unless_since: Timestamp, now: Timestamp) -> () = arrivals::touch;
    /// Claims the numbers of connections; who knows a higher one, is gone or held is left out.
    write fn write_claims(claims: Vec<(DeviceId, Option<i64>)>, now: Timestamp) -> HashMap<DeviceId, i64> = arrivals::claim;
    /// The same for one device, even if somebody else holds it.
    write fn write_claim_one(device: DeviceId, attempt: Option<i64>, now: Timestamp) -> Option<i64> = arrivals::claim_one;
    /// What waits for these devices; those that are gone are left out.
    read fn read_arrivals(coming: Vec<(DeviceId, UserId)>, now: Timestamp) -> HashMap<DeviceId, Arrival> = arrivals::arrivals;
    /// The other side of users' direct conversations in which both have written; who has none is not there.
    read fn read_presence_peers(users: Vec<UserId>) -> HashMap<UserId, Vec<UserId>> = arrivals::presence_peers;
}

/// The latest of some moments: a run has one.
fn latest(moments: impl Iterator<Item = Timestamp>) -> Timestamp {
    moments.max().unwrap_or_default()
}

impl Store {
    /// A token family with its device; `None`: it has ended.
    ///
    /// # Errors
    /// The database failed.
    pub async fn session(&self, family: Uuid) -> Result<Option<SessionRow>, StoreError> {
        let store = self.clone();
        let run = move |asked: Vec<(Uuid, ())>| {
            let store = store.clone();
            async move { store.read_sessions(asked.into_iter().map(|(family, ())| family).collect()).await }
        };
        self.gathered.sessions.ask(family, (), run).await
    }

    /// Notes that a family's tokens of a number have been used.
    ///
    /// # Errors
    /// The database failed.
    pub async fn confirm_session(&self, family: Uuid, generation: i64, now: Timestamp) -> Result<(), StoreError> {
        let store = self.clone();
        let run = move |asked: Vec<(Uuid, (i64, Timestamp))>| {
            let store = store.clone();
            async move {
                let now = latest(asked.iter().map(|(_, (_, now))| *now));
                let used = asked.into_iter().map(|(family, (generation, _))| (family, generation)).collect();
                store.write_confirmed(used, now).await
            }
        };
        match self.gathered.confirmed.ask(family, (generation, now), run).await? {
            Some(()) => Ok(()),
            // It was known already, or is held by somebody for whom the others did not wait.
            None => self.write_confirmed_one(family, generation, now).await,
        }
    }

    /// Notes that a device was heard of at `now`, and at which address if that is told, unless that is known since `unless_since`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn touch_device(
        &self,
        device: DeviceId,
        address: Option<String>,
        unless_since: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let store = self.clone();
        let run = move |asked: Vec<(DeviceId, Contact)>| {
            let store = store.clone();
            async move {
                let unless_since = latest(asked.iter().map(|(_, (_, unless_since, _))| *unless_since));
                let now = latest(asked.iter().map(|(_, (_, _, now))| *now));
                let devices = asked.into_iter().map(|(device, (address, ..))| (device, address)).collect();
                store.write_touched(devices, unless_since, now).await?;
                Ok(HashMap::new())
            }
        };
        self.gathered.touched.ask(device, (address, unless_since, now), run).await?;
        Ok(())
    }

    /// Claims a connection's number (rule D7), or the next one; `None`: a higher one is known, or the device is gone.
    ///
    /// # Errors
    /// The database failed.
    pub async fn claim_attempt(
        &self,
        device: DeviceId,
        attempt: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<i64>, StoreError> {
        let store = self.clone();
        let run = move |asked: Vec<(DeviceId, (Option<i64>, Timestamp))>| {
            let store = store.clone();
            async move {
                let now = latest(asked.iter().map(|(_, (_, now))| *now));
                let claims = asked.into_iter().map(|(device, (attempt, _))| (device, attempt)).collect();
                store.write_claims(claims, now).await
            }
        };
        match self.gathered.claims.ask(device, (attempt, now), run).await? {
            Some(number) => Ok(Some(number)),
            // It is refused, or held by somebody for whom the others did not wait.
            None => self.write_claim_one(device, attempt, now).await,
        }
    }

    /// What waits for a device that has come: every conversation in which something does, its place in the account's log,
    /// and its stocks of keys. `None`: the device is gone.
    ///
    /// # Errors
    /// The database failed.
    pub async fn arrival(&self, user: UserId, device: DeviceId, now: Timestamp) -> Result<Option<Arrival>, StoreError> {
        let store = self.clone();
        let run = move |asked: Vec<(DeviceId, (UserId, Timestamp))>| {
            let store = store.clone();
            async move {
                let now = latest(asked.iter().map(|(_, (_, now))| *now));
                let coming = asked.into_iter().map(|(device, (user, _))| (device, user)).collect();
                store.read_arrivals(coming, now).await
            }
        };
        self.gathered.arrivals.ask(device, (user, now), run).await
    }

    /// The other side of a user's direct conversations in which both have written.
    ///
    /// # Errors
    /// The database failed.
    pub async fn presence_peers(&self, user: UserId) -> Result<Vec<UserId>, StoreError> {
        let store = self.clone();
        let run = move |asked: Vec<(UserId, ())>| {
            let store = store.clone();
            async move { store.read_presence_peers(asked.into_iter().map(|(user, ())| user).collect()).await }
        };
        Ok(self.gathered.peers.ask(user, (), run).await?.unwrap_or_default())
    }
}
