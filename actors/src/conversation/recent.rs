//! The newest messages of a conversation, so that a repeat is answered without a look at the database.

use sotto_protocol::{MessageId, Seq, Timestamp, UserId};
use std::collections::VecDeque;

/// How many. A client repeats what it had under way when its connection broke, which is less; what is older, the
/// database knows.
const MOST: usize = 64;

/// A message that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) message: MessageId,
    /// Whose it is.
    pub(super) user: UserId,
    pub(super) seq: Seq,
    pub(super) at: Timestamp,
}

/// The newest, at most 64.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Stored>);

impl Recent {
    /// Looks from the newest back. So few need no table, which would be twice as large and know no order.
    pub(super) fn find(&self, message: MessageId) -> Option<&Stored> {
        self.0.iter().rev().find(|stored| stored.message == message)
    }

    pub(super) fn keep(&mut self, stored: Stored) {
        if self.find(stored.message).is_some() {
            return;
        }
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn stored(number: u128) -> Stored {
        let seq = Seq::try_from(number).unwrap();
        Stored { message: MessageId(Uuid::from_u128(number)), user: UserId(Uuid::nil()), seq, at: Timestamp::default() }
    }

    #[test]
    fn the_newest_are_found_and_the_oldest_make_room() {
        let mut recent = Recent::default();
        (1..=100).for_each(|number| recent.keep(stored(number)));
        let find = |number| recent.find(stored(number).message).copied();
        assert_eq!((find(100), find(37), find(36), find(101)), (Some(stored(100)), Some(stored(37)), None, None));
    }

    #[test]
    fn what_is_kept_takes_no_second_place_and_does_not_change() {
        let mut recent = Recent::default();
        for number in (1..=64).chain(1..=64) {
            recent.keep(Stored { seq: 7, ..stored(number) });
        }
        recent.keep(stored(64));
        assert_eq!((recent.0.len(), recent.find(stored(64).message).map(|found| found.seq)), (64, Some(7)));
        assert_eq!(recent.find(stored(1).message).map(|found| found.seq), Some(7));
    }
}
