//! Pairs in a closed loop: what the server does when there is always something to do.

use std::time::Instant;

use super::{Drive, begin, everybody, senders};
use crate::load::LoadError;
use crate::load::measured::Measured;
use crate::load::number::size;
use crate::load::settings::{Pairs, Span};
use crate::load::summary::Figure;
use crate::load::worker::{Facts, Worker};

impl Drive for Pairs {
    fn users(&self) -> usize {
        size(u64::from(self.pairs) * 2)
    }

    fn members(&self) -> usize {
        2
    }

    fn drive(&self, worker: &mut Worker, span: &Span) -> Result<Facts, LoadError> {
        everybody(worker)?;
        let (_, _, until) = begin(worker, span)?;
        worker.send_until = until;
        for sender in senders(worker, self.both) {
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
