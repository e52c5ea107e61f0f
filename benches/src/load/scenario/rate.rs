//! Pairs in an open loop: what a message takes while the server has a given load, or more than it can bear.

use std::time::{Duration, Instant};

use super::{Drive, begin, everybody};
use crate::load::LoadError;
use crate::load::device::Planned;
use crate::load::measured::Measured;
use crate::load::number::{count, size};
use crate::load::settings::{Rate, Span, Via};
use crate::load::summary::{Better, Figure};
use crate::load::worker::{Facts, Worker};

/// Messages that are sent before the thread looks for answers again.
const BURST: usize = 32;
/// Where messages are closer together than this, a thread would do little but wake up for each …
const CLOSE: Duration = Duration::from_micros(20);
/// … so it wakes for those of so long together, by which their latencies, counted from their own moments, seem longer.
const TOGETHER: Duration = Duration::from_micros(100);
/// The same two for messages that are so close together that there is hardly time for them: waking up takes processor time
/// from the server, and what waits for seconds may as well leave a millisecond late.
const OVERLOAD_BURST: usize = 512;
const OVERLOAD_TOGETHER: Duration = Duration::from_millis(1);

impl Drive for Rate {
    fn users(&self) -> usize {
        size(u64::from(self.pairs) * 2 + u64::from(self.idle))
    }

    fn members(&self) -> usize {
        2
    }

    fn expects_refusals(&self) -> bool {
        self.overload
    }

    fn drive(&self, worker: &mut Worker, span: &Span) -> Result<Facts, LoadError> {
        everybody(worker)?;
        let (start, _, until) = begin(worker, span)?;
        let all = if self.both { self.pairs * 2 } else { self.pairs };
        let active = size(u64::from(self.pairs) * 2);
        let is_sender = |index: &usize| worker.number(*index) < active && (self.both || index.is_multiple_of(2));
        let senders: Vec<usize> = (0..worker.devices.len()).filter(is_sender).collect();
        let by_rest = self.via == Via::Rest;
        let mut pacer = Pacer::new(start, self.rate, count(senders.len()), all.into());
        let mut burst = BURST;
        if self.overload && pacer.are_close() {
            burst = OVERLOAD_BURST;
            pacer.together = OVERLOAD_TOGETHER;
        }
        while !worker.is_over(until) {
            let now = Instant::now();
            for _ in 0..burst {
                let Some((tick, at)) = pacer.due(now.min(until)) else { break };
                let sender = size(tick % count(senders.len()).max(1));
                if let Some(sender) = senders.get(sender) {
                    worker.send(*sender, Planned { at, size: worker.shared.size, by_rest })?;
                }
            }
            worker.turn(pacer.wake().min(until))?;
        }
        worker.settle()?;
        Ok(Facts::new())
    }

    fn figures(&self, run: &Measured) -> Vec<Figure> {
        let mut figures = run.traffic();
        if self.overload {
            let refused = run.per_second("refused_per_second", "sends refused", Better::Lower, |slice| slice.refused);
            figures.insert(1, refused);
            let silent = run.per_second(
                "silent_refusals_per_second",
                "refused without retry_after_ms",
                Better::Lower,
                |slice| slice.silent_refusals,
            );
            figures.insert(2, silent);
        }
        figures
    }
}

/// The intended moments of a thread's messages, evenly spaced.
pub struct Pacer {
    start: Instant,
    /// Messages of this thread per `per` nanoseconds.
    messages: u128,
    per: u128,
    tick: u64,
    /// How long a thread may sleep over messages that are close together.
    together: Duration,
}

impl Pacer {
    /// For a thread that has `senders` of `all`, which send `rate` messages a second together.
    pub fn new(start: Instant, rate: u64, senders: u64, all: u64) -> Self {
        let messages = u128::from(rate) * u128::from(senders);
        Self { start, messages, per: u128::from(all) * 1_000_000_000, tick: 0, together: TOGETHER }
    }

    /// When the next one is due; far away for a thread without senders.
    pub fn next(&self) -> Instant {
        let nanos = (u128::from(self.tick) * self.per).checked_div(self.messages);
        let nanos = nanos.and_then(|nanos| u64::try_from(nanos).ok());
        self.start + nanos.map_or(Duration::from_secs(86_400), Duration::from_nanos)
    }

    /// Whether a thread would do little but wake up, if it did for each.
    fn are_close(&self) -> bool {
        self.per < self.messages * CLOSE.as_nanos()
    }

    /// When a thread is to be awake for the next one.
    pub fn wake(&self) -> Instant {
        self.next() + if self.are_close() { self.together } else { Duration::ZERO }
    }

    /// The next one, if it is due before this moment: its count from 0 and its moment.
    pub fn due(&mut self, before: Instant) -> Option<(u64, Instant)> {
        let at = self.next();
        (at < before).then(|| {
            self.tick += 1;
            (self.tick - 1, at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_evenly_spaced_and_none_is_left_out_after_a_stall() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 1000, 2, 4);
        assert_eq!(pacer.due(start), None);
        let moments: Vec<_> = std::iter::from_fn(|| pacer.due(start + Duration::from_millis(100))).collect();
        assert_eq!(moments.len(), 50, "half of the senders have half of the rate");
        assert_eq!(moments[49], (49, start + Duration::from_millis(98)));
        assert!(Pacer::new(start, 1000, 0, 4).next() > start + Duration::from_secs(3600));
    }

    #[test]
    fn a_thread_wakes_for_each_unless_they_are_too_close_together() {
        let start = Instant::now();
        for (rate, late) in [(1000, 0), (50_000, 0), (50_001, 100), (200_000, 100)] {
            let pacer = Pacer::new(start, rate, 4, 4);
            assert_eq!(pacer.wake() - pacer.next(), Duration::from_micros(late), "{rate}");
        }
        for (rate, late) in [(50_000, 0), (200_000, 1000)] {
            let mut pacer = Pacer::new(start, rate, 4, 4);
            pacer.together = OVERLOAD_TOGETHER;
            assert_eq!(pacer.wake() - pacer.next(), Duration::from_micros(late), "{rate}");
        }
    }
}
