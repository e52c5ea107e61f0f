//! How the run of a generator thread ends: what is under way comes in, and the ledger is closed.

use std::time::{Duration, Instant};

use super::{Facts, Report, Worker};
use crate::load::LoadError;
use crate::load::device::{Device, Stage};
use crate::load::ledger::Outgoing;
use crate::load::number::count;
use crate::load::slice;
use crate::load::summary::LedgerCounts;

/// How long what was sent may take to come in the end.
const GRACE: Duration = Duration::from_secs(30);

impl Worker {
    /// Waits until everything that was sent has been answered, has come, and is confirmed; not for ever.
    ///
    /// # Errors
    /// As [`Worker::turn`].
    pub fn settle(&mut self) -> Result<(), LoadError> {
        for index in 0..self.devices.len() {
            let unsent = self.devices.get_mut(index).map_or(0, |device| std::mem::take(&mut device.queue).len());
            for _ in 0..unsent {
                self.slice.error("not_sent");
            }
            self.acknowledge(index);
            self.flush(index);
        }
        let until = Instant::now() + GRACE;
        while Instant::now() < until && !self.shared.gate.is_abandoned() {
            let is_here = |device: &&Device| device.stage == Stage::Here;
            let is_confirmed = self.devices.iter().filter(is_here).all(Device::is_confirmed);
            if is_confirmed && self.books.iter().all(Outgoing::is_settled) {
                break;
            }
            self.turn(Instant::now() + Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Ends the run of this thread: what did not hold.
    ///
    /// # Errors
    /// As [`Worker::turn`].
    pub fn finish(mut self, facts: Facts) -> Result<(), LoadError> {
        let members = self.shared.members.max(1);
        let mut faults = LedgerCounts::default();
        for (index, book) in self.books.iter().enumerate().filter(|(_, book)| book.sent() > 0) {
            faults.unanswered += book.unanswered();
            let start = index - index % members;
            let receivers = self.devices.iter_mut().enumerate().skip(start).take(members);
            for (_, device) in receivers.filter(|(receiver, _)| *receiver != index) {
                faults.lost += device.incoming(index % members).map_or(0, |incoming| incoming.lost(book));
            }
        }
        let unconfirmed = |device: &&Device| device.stage == Stage::Here && device.confirmed < device.acknowledged;
        faults.unconfirmed = count(self.devices.iter().filter(unconfirmed).count());
        slice::add(&mut self.faults, faults);
        let all = self.devices.len();
        self.close_these(0..all)?;
        self.end_slice();
        self.tell(Report::Ended(self.index, self.faults, facts));
        Ok(())
    }
}
