//! The account's trail: fetched, verified against what was verified before, and the end of it kept in the store.
//!
//! The chain shows that nothing in it was changed, left out or put in since its end was last seen by this device. It cannot
//! show that the server told the truth when it wrote an entry, nor that it keeps one trail for all: a server that tells two devices
//! two stories from the start is found only by comparing the ends between them ([`Trail::head`]).

use crate::client::Client;
use crate::error::Result;
use sotto_protocol::logins::Login;
use sotto_protocol::trail::{BEGINNING, TrailEntry, TrailHead, TrailItem, link};
use sotto_protocol::{Binary, UserId};

/// Where the store keeps the end that was verified last.
const HEAD: &str = "trail_head";

/// Why a trail is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrailFault {
    /// The entry's text does not belong to its hash and the one before: it, or what lies before it, was changed.
    #[error("entry {seq} of the trail was changed")]
    Altered {
        /// Its number.
        seq: i64,
    },
    /// An entry is missing, or they come in another order.
    #[error("entry {expected} of the trail is missing; {found} came in its place")]
    Missing {
        /// The number that had to come.
        expected: i64,
        /// The number that came.
        found: i64,
    },
    /// The trail ends before an entry that was verified earlier.
    #[error("the trail had {verified} entries, and has {found}")]
    Shortened {
        /// Entries that were verified.
        verified: i64,
        /// Entries that there are.
        found: i64,
    },
    /// It does not go on from what was verified earlier: there are two trails.
    #[error("the trail does not go on from entry {verified} as it was verified")]
    Forked {
        /// The entry that was verified last.
        verified: i64,
    },
    /// The entry says that it is of another account or place.
    #[error("entry {seq} of the trail belongs elsewhere")]
    Foreign {
        /// Its number.
        seq: i64,
    },
}

/// A verified part of a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trail {
    /// What is new since the last time, or everything.
    pub entries: Vec<TrailEntry>,
    /// Where it ends. Devices of an account that have verified as many entries show the same one, or the server keeps two trails.
    pub head: TrailHead,
}

/// Follows a trail entry by entry. It knows of nothing but what it is given.
#[derive(Clone, Debug)]
pub struct TrailVerifier {
    user: UserId,
    seq: i64,
    hash: [u8; 32],
    /// The entry that an earlier run ended with.
    verified: i64,
}

impl TrailVerifier {
    /// Of a user's trail, from its beginning or from an end that was verified earlier.
    #[must_use]
    pub fn new(user: UserId, verified: Option<&TrailHead>) -> Self {
        let hash = verified.and_then(|head| head.hash.0.as_slice().try_into().ok());
        match (verified, hash) {
            (Some(head), Some(hash)) => Self { user, seq: head.seq, hash, verified: head.seq },
            _ => Self { user, seq: 0, hash: BEGINNING, verified: 0 },
        }
    }

    /// The next entry.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn follow(&mut self, item: &TrailItem) -> std::result::Result<TrailEntry, TrailFault> {
        let expected = self.seq.saturating_add(1);
        if item.seq != expected {
            return Err(TrailFault::Missing { expected, found: item.seq });
        }
        let hash = link(&self.hash, &item.entry);
        if item.hash.0 != hash {
            return Err(match self.verified {
                0 => TrailFault::Altered { seq: item.seq },
                verified if verified == self.seq => TrailFault::Forked { verified },
                _ => TrailFault::Altered { seq: item.seq },
            });
        }
        let entry: Option<TrailEntry> = serde_json::from_str(&item.entry).ok();
        let entry = entry.filter(|entry| entry.seq == item.seq && entry.user_id == self.user);
        let entry = entry.ok_or(TrailFault::Foreign { seq: item.seq })?;
        (self.seq, self.hash) = (item.seq, hash);
        Ok(entry)
    }

    /// Holds the end that the server tells against what was followed, and gives it as one to go on from.
    ///
    /// # Errors
    /// When it lies elsewhere.
    pub fn end(&self, told: &TrailHead) -> std::result::Result<TrailHead, TrailFault> {
        if told.seq < self.seq {
            return Err(TrailFault::Shortened { verified: self.seq, found: told.seq });
        }
        if told.seq > self.seq {
            return Err(TrailFault::Missing { expected: self.seq.saturating_add(1), found: told.seq });
        }
        if told.hash.0 != self.hash {
            return Err(TrailFault::Forked { verified: self.seq });
        }
        Ok(TrailHead { seq: self.seq, hash: Binary(self.hash.to_vec()) })
    }
}

impl Client {
    /// Fetches what is new in the account's trail, verifies it against what this device has verified before, and keeps
    /// its end.
    ///
    /// # Errors
    /// [`Error::Trail`](crate::Error::Trail) when it is not to be believed: show that to the user. Else as the REST calls.
    pub async fn trail(&self) -> Result<Trail> {
        let verified = self.store().run(|tx| tx.meta_json::<TrailHead>(HEAD)).await?;
        let trail = self.follow(verified).await?;
        let head = trail.head.clone();
        self.store().run(move |tx| tx.set_meta_json(HEAD, &head)).await?;
        Ok(trail)
    }

    /// The whole trail, verified from its beginning, and against what this device has verified before.
    ///
    /// # Errors
    /// As [`Client::trail`].
    pub async fn whole_trail(&self) -> Result<Trail> {
        // First what is new: it shows a fork or a cut.
        self.trail().await?;
        self.follow(None).await
    }

    async fn follow(&self, verified: Option<TrailHead>) -> Result<Trail> {
        let mut verifier = TrailVerifier::new(self.user_id(), verified.as_ref());
        let mut after = verified.map_or(0, |head| head.seq);
        let mut entries = Vec::new();
        loop {
            let page = self.call(|rest| async move { rest.trail(after, 200).await }).await?;
            for item in &page.items {
                entries.push(verifier.follow(item)?);
                after = item.seq;
            }
            if page.next.is_none() || page.items.is_empty() {
                return Ok(Trail { entries, head: verifier.end(&page.head)? });
            }
        }
    }

    /// Tries to sign in to the account, newest first, at most so many.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn logins(&self, most: usize) -> Result<Vec<Login>> {
        let mut logins = Vec::new();
        let mut after = None;
        while logins.len() < most {
            let (limit, cursor) = ((most - logins.len()).min(200), after.clone());
            let page = self.call(|rest| {
                let cursor = cursor.clone();
                async move { rest.logins(cursor.as_deref(), limit).await }
            });
            let page = page.await?;
            logins.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(logins)
    }
}

#[cfg(test)]
mod tests;
