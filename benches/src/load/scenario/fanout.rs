//! Groups in which few write and all read.

use std::time::Instant;

use super::{Drive, begin, everybody};
use crate::load::LoadError;
use crate::load::measured::Measured;
use crate::load::number::size;
use crate::load::settings::{Fanout, Span};
use crate::load::summary::Figure;
use crate::load::worker::{Facts, Worker};

impl Drive for Fanout {
    fn users(&self) -> usize {
        size(u64::from(self.members) * u64::from(self.groups))
    }

    fn members(&self) -> usize {
        size(self.members.into())
    }

    fn drive(&self, worker: &mut Worker, span: &Span) -> Result<Facts, LoadError> {
        everybody(worker)?;
        let (_, _, until) = begin(worker, span)?;
        worker.send_until = until;
        worker.waits_for_arrival = true;
        let senders = size(self.senders.into());
        for sender in (0..worker.devices.len()).filter(|index| index % self.members() < senders) {
            worker.keep(sender, self.window);
        }
        while !worker.is_over(until) {
            worker.turn(until)?;
        }
        worker.send_until = Instant::now().min(until);
        worker.settle()?;
        Ok(Facts::new())
    }

    fn figures(&self, run: &Measured) -> Vec<Figure> {
        run.traffic()
    }
}
