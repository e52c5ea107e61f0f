//! A backlog for devices that are away, and all of them back at once.

use std::time::{Duration, Instant};

use super::{AT_ONCE, Drive, check, share};
use crate::load::LoadError;
use crate::load::measured::Measured;
use crate::load::number::{float, ratio, size};
use crate::load::settings::{Offline, Span, Via};
use crate::load::slice::Timed;
use crate::load::summary::{Better, Figure};
use crate::load::worker::{By, Facts, Worker};

/// Messages that a sender keeps unanswered while it makes the backlog: a thousand senders stay below what a server lets in
/// that has shown no speed yet.
const WINDOW: u32 = 4;

impl Drive for Offline {
    fn users(&self) -> usize {
        size(u64::from(self.devices) * 2)
    }

    fn members(&self) -> usize {
        2
    }

    fn has_span(&self) -> bool {
        false
    }

    fn drive(&self, worker: &mut Worker, _: &Span) -> Result<Facts, LoadError> {
        let all = worker.devices.len();
        worker.open_all((0..all).step_by(2), AT_ONCE)?;
        check(worker)?;
        // What still waits from other runs is not part of this backlog.
        worker.open_all((1..all).step_by(2), AT_ONCE)?;
        check(worker)?;
        worker.settle()?;
        worker.close_these((1..all).step_by(2))?;
        worker.meet()?;
        let begun = Instant::now();
        worker.send_until = begun + Duration::from_secs(7 * 86_400);
        for sender in (0..all).step_by(2) {
            worker.keep_for(sender, WINDOW, self.messages);
        }
        while worker.has_unanswered() && !worker.is_over(worker.send_until) {
            worker.turn(Instant::now() + Duration::from_millis(100))?;
        }
        let filled = begun.elapsed().as_secs_f64();
        worker.close_these((0..all).step_by(2))?;
        let from = worker.meet()?;
        worker.by = match self.via {
            Via::Socket => By::Socket,
            Via::Rest => By::Sync,
        };
        worker.span(from, from + Duration::from_secs(1));
        let at_once = share(worker, self.at_once, self.devices);
        worker.open_all((1..all).step_by(2), at_once)?;
        // Drained says that all was sent; the ledger says whether it came, and is what counts.
        worker.settle()?;
        let until = Instant::now();
        worker.span(from, until);
        let drained = (until - from).as_secs_f64();
        let came = float(worker.books.iter().map(|book| u64::from(book.sent()) - book.unanswered()).sum());
        let facts = [("came", came), ("drain_seconds", drained), ("fill_seconds", filled), ("threads", 1.0)];
        Ok(Facts::from(facts))
    }

    fn figures(&self, run: &Measured) -> Vec<Figure> {
        // Threads end at different moments; the last one's counts.
        let fact = |name: &str| run.facts.get(name).copied().unwrap_or_default();
        let (came, drained) = (fact("came"), run.exact_seconds);
        let mut figures = vec![
            Figure::single("drained_per_second", "messages drained", "/s", ratio(came, drained), Better::Higher),
            Figure::single("drain_seconds", "until all had everything, confirmed", "s", drained, Better::Lower),
        ];
        let filled = ratio(fact("fill_seconds"), fact("threads"));
        figures.push(Figure::single(
            "filled_per_second",
            "messages stored before",
            "/s",
            ratio(came, filled),
            Better::Higher,
        ));
        figures.extend(run.percentiles(Timed::Drain));
        figures
    }
}
