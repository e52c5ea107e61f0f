//! Who is told of what has happened in a conversation, as far as they are here.

use super::{Conversation, Wake};
use crate::directory::Directory;
use crate::mailbox::tell;
use crate::session::{Deliver, Delivery, ReceiptsMoved, Session};
use sotto_protocol::{Seq, UserId};
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

impl Conversation {
    /// Tells every member with a session here. What a full mailbox refuses, the sweep repairs.
    pub(super) fn spread(&self, delivery: &Arc<Delivery>) {
        let Some(state) = &self.state else {
            return;
        };
        for user in state.members.keys() {
            if let Some(session) = self.node.sessions().get(user)
                && tell(&session, Deliver(Arc::clone(delivery))).is_err()
            {
                self.node.repair_conversation(self.id);
            }
        }
    }

    /// Keeps news until the members are known.
    pub(super) fn keep(&mut self, wake: Wake) {
        let kept = self.wake.get_or_insert(wake);
        kept.seq = kept.seq.max(wake.seq);
        kept.receipts = kept.receipts.max(wake.receipts);
        // Members are not known yet, so nothing of this has been told.
        kept.again = true;
    }

    /// Holds back a number that may be of what is in flight here. Its answer is on the way and tells sessions the message
    /// itself; told by its number alone, each of them would read the database for it, and then again for all that comes
    /// meanwhile.
    pub(super) fn hold_early(&mut self, wake: Wake) -> Wake {
        match self.in_flight.last_key_value() {
            Some((last, _)) if wake.seq > self.told_seq && !wake.again => {
                self.early.push_back((wake.seq, *last));
                Wake { seq: 0, ..wake }
            }
            _ => wake,
        }
    }

    /// Tells what was held back and did not come from here, once everything is answered that was in flight then.
    pub(super) fn tell_early(&mut self) {
        let first = self.in_flight.keys().next().copied().unwrap_or(u64::MAX);
        while let Some((seq, _)) = self.early.pop_front_if(|(_, up_to)| *up_to < first) {
            let wake = Wake { seq, receipts: 0, again: false };
            if self.state.is_some() {
                self.spread_wake(wake);
            } else if seq > self.told_seq {
                self.keep(wake);
            }
        }
    }

    pub(super) fn spread_wake(&mut self, wake: Wake) {
        if wake.seq > self.told_seq || (wake.again && wake.seq > 0) {
            self.spread_to_former(if wake.again { 0 } else { self.told_seq });
            self.told_seq = self.told_seq.max(wake.seq);
            if let Some(state) = &mut self.state {
                state.last_seq = state.last_seq.max(wake.seq);
            }
            self.spread(&Arc::new(Delivery {
                conversation_id: self.id,
                seq: self.told_seq,
                row: None,
                shared_text: OnceLock::new(),
            }));
        }
        if wake.receipts > self.told_receipts || (wake.again && wake.receipts > 0) {
            self.spread_receipts(wake.receipts, None);
        }
    }

    /// Tells that receipts wait: to everybody, or to some.
    pub(super) fn spread_receipts(&mut self, version: i64, only: Option<&HashSet<UserId>>) {
        if only.is_none() {
            self.told_receipts = self.told_receipts.max(version);
            if self.receipts_ahead.0 <= self.told_receipts + 1 {
                self.told_receipts = self.told_receipts.max(self.receipts_ahead.1);
            }
        }
        let Some(state) = &self.state else {
            return;
        };
        let sessions: &Directory<UserId, Session> = self.node.sessions();
        let concerned = state.members.keys().filter(|user| only.is_none_or(|some| some.contains(user)));
        for user in concerned {
            let moved = ReceiptsMoved { conversation_id: self.id, version };
            if let Some(session) = sessions.get(user)
                && tell(&session, moved).is_err()
            {
                self.node.repair_conversation(self.id);
            }
        }
    }

    /// Tells members who left where their interval ends, if that was not told: the last messages of it may have been
    /// committed at another node just before (rule D9).
    pub(super) fn spread_to_former(&self, told: Seq) {
        let former = self.state.iter().flat_map(|state| &state.former);
        for (user, end) in former.filter(|(_, end)| **end > told) {
            let delivery = Delivery { conversation_id: self.id, seq: *end, row: None, shared_text: OnceLock::new() };
            if let Some(session) = self.node.sessions().get(user)
                && tell(&session, Deliver(Arc::new(delivery))).is_err()
            {
                self.node.repair_conversation(self.id);
            }
        }
    }
}
