//! What a connection has in flight: durable events sent and not yet acknowledged, in their order.

use sotto_protocol::limits::{WINDOW_BYTES, WINDOW_EVENTS};
use sotto_protocol::{ConversationId, Seq};
use std::collections::{HashMap, VecDeque};

/// What an event stands for: what its acknowledgement raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Message {
        /// Its conversation.
        conversation_id: ConversationId,
        /// Its number.
        seq: Seq,
    },
    /// A receipt.
    Receipt {
        /// Its conversation.
        conversation_id: ConversationId,
        /// Its version.
        version: i64,
    },
    /// An account event.
    Account {
        /// Its number.
        seq: i64,
    },
    /// A state that is computed anew whenever it is asked for.
    State,
}

/// What an acknowledgement covers in one conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckedHere {
    /// The highest message, 0 if there is none.
    pub seq: Seq,
    /// The highest receipt, 0 if there is none.
    pub version: i64,
    /// How many events.
    pub events: usize,
}

/// What an acknowledgement covers: the highest of each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// Per conversation.
    pub conversations: HashMap<ConversationId, AckedHere>,
    /// The highest account event.
    pub account: i64,
    /// How many events.
    pub events: usize,
}

/// An acknowledgement of an event that was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("acknowledged {acked}, but only {sent} was sent")]
pub struct NeverSent {
    /// What was acknowledged.
    pub acked: u64,
    /// The last event sent.
    pub sent: u64,
}

/// The window of one connection: at most 256 events or 1 MiB, but never less than one event.
#[derive(Debug, Default)]
pub struct Window {
    sent: u64,
    in_flight: VecDeque<(Item, usize)>,
    bytes: usize,
}

impl Window {
    /// Whether another event may be sent.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_flight.is_empty() || (self.in_flight.len() < WINDOW_EVENTS && self.bytes < WINDOW_BYTES)
    }

    /// How many more events may be sent, whatever their size.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.has_room() { WINDOW_EVENTS.saturating_sub(self.in_flight.len()).max(1) } else { 0 }
    }

    /// Whether nothing is unacknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The number that the next event will have.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.sent + 1
    }

    /// Notes an event of so many bytes as sent and returns its number.
    pub fn push(&mut self, item: Item, bytes: usize) -> u64 {
        self.sent += 1;
        self.bytes += bytes;
        self.in_flight.push_back((item, bytes));
        self.sent
    }

    /// Takes everything up to `n` out of the window. Below what was acknowledged before, nothing happens.
    ///
    /// # Errors
    /// `n` was never sent.
    pub fn ack(&mut self, n: u64) -> Result<Acked, NeverSent> {
        if n > self.sent {
            return Err(NeverSent { acked: n, sent: self.sent });
        }
        let mut acked = Acked::default();
        let in_flight = u64::try_from(self.in_flight.len()).unwrap_or(u64::MAX);
        let mut covered = n.saturating_sub(self.sent - in_flight);
        while covered > 0
            && let Some((item, bytes)) = self.in_flight.pop_front()
        {
            covered -= 1;
            self.bytes -= bytes;
            acked.events += 1;
            match item {
                Item::Message { conversation_id, seq } => {
                    let here = acked.conversations.entry(conversation_id).or_default();
                    here.seq = here.seq.max(seq);
                    here.events += 1;
                }
                Item::Receipt { conversation_id, version } => {
                    let here = acked.conversations.entry(conversation_id).or_default();
                    here.version = here.version.max(version);
                    here.events += 1;
                }
                Item::Account { seq } => acked.account = acked.account.max(seq),
                Item::State => {}
            }
        }
        Ok(acked)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(seq: Seq) -> Item {
        Item::Message { conversation_id: ConversationId(uuid::Uuid::nil()), seq }
    }

    proptest! {
        /// Whatever is sent and acknowledged in whatever steps: numbers grow by one, the window never
        /// holds more than it may, and each event is covered by exactly one acknowledgement.
        #[test]
        fn every_event_is_acknowledged_once(steps in prop::collection::vec((0_usize..400, 0_u64..600, 1_usize..40_000), 1..60)) {
            let mut window = Window::default();
            let (mut sent, mut covered, mut highest_ack) = (0_u64, 0_usize, 0_u64);
            for (sends, ack, size) in steps {
                for _ in 0..sends {
                    if !window.has_room() {
                        break;
                    }
                    sent += 1;
                    prop_assert_eq!(window.push(message(i64::try_from(sent).unwrap()), size), sent);
                }
                prop_assert!(window.in_flight.len() <= WINDOW_EVENTS);
                prop_assert!(window.bytes < WINDOW_BYTES + 40_000);
                match window.ack(ack) {
                    Err(error) => prop_assert!(ack > sent && error.sent == sent),
                    Ok(acked) => {
                        prop_assert!(ack <= sent);
                        covered += acked.events;
                        let news = usize::try_from(ack.saturating_sub(highest_ack)).unwrap();
                        prop_assert_eq!(acked.events, news);
                        highest_ack = highest_ack.max(ack);
                        if acked.events > 0 {
                            let seq = acked.conversations.values().next().unwrap().seq;
                            prop_assert_eq!(u64::try_from(seq).unwrap(), ack);
                        }
                    }
                }
                prop_assert_eq!(window.in_flight.len() + covered, usize::try_from(sent).unwrap());
            }
        }
    }
}
