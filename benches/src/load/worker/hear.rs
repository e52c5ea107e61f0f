//! What a generator thread does with what it hears: the ledger, the counts, the times.

use std::time::{Duration, Instant};

use super::Worker;
use crate::load::device::Stage;
use crate::load::name::Name;
use crate::load::slice::Timed;
use crate::load::wire::Event;

impl Worker {
    pub(super) fn hear(&mut self, index: usize, event: Event, now: Instant, by_rest: bool) {
        match event {
            Event::Ready => {
                let Some(device) = self.devices.get_mut(index) else { return };
                device.stage = Stage::Reading;
                let time = now.saturating_duration_since(device.since);
                self.slice.record(Timed::Connect, time);
            }
            Event::Drained => {
                let Some(device) = self.devices.get_mut(index) else { return };
                if device.stage == Stage::Reading {
                    device.stage = Stage::Here;
                    let time = now.saturating_duration_since(device.since);
                    self.slice.record(Timed::Drain, time);
                    self.slice.arrived += 1;
                    self.connections += 1;
                    self.arrived.push(index);
                    self.shared.gate.arrive();
                }
            }
            Event::Answered { count, seq, is_duplicate } => {
                self.has_answer(index, count);
                self.faults.duplicated += u64::from(is_duplicate);
                let at = self.books.get_mut(index).and_then(|book| book.answer(count, seq, &mut self.faults));
                self.slice.answered += 1;
                if let Some(at) = at.filter(|at| self.is_measured(*at)) {
                    let timed = if by_rest { Timed::Rest } else { Timed::Answer };
                    self.slice.record(timed, now.saturating_duration_since(at));
                }
            }
            Event::Refused { count, code, retry_after_ms, is_unknown } => {
                self.refused(index, count, &code, retry_after_ms, is_unknown, now);
                self.slice.error(code);
            }
            Event::Delivered { n, name, seq, after } => {
                self.count_on(index, n);
                self.delivered(index, name, seq, after, now);
            }
            Event::Noted { n } => self.count_on(index, n),
            Event::Acked { n } => {
                if let Some(device) = self.devices.get_mut(index) {
                    device.confirmed = device.confirmed.max(n);
                }
            }
            Event::Closed { code } => {
                // The server ends TCP after our goodbye; if we did, our port would be blocked for a minute.
                let is_goodbye = self.devices.get(index).is_some_and(|device| device.stage == Stage::Leaving);
                if !is_goodbye {
                    self.lose(index, format!("closed_{code}"), &format!("closed by the server: {code}"));
                }
            }
        }
    }

    fn has_answer(&mut self, index: usize, count: u32) {
        if let Some(device) = self.devices.get_mut(index) {
            device.asked.pop_front_if(|asked| *asked == count);
            device.in_flight = device.in_flight.saturating_sub(1);
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    fn refused(
        &mut self,
        index: usize,
        count: Option<u32>,
        code: &str,
        retry: Option<u64>,
        is_unknown: bool,
        now: Instant,
    ) {
        if retry.is_none() && matches!(code, "unavailable" | "rate_limited") {
            self.slice.silent_refusals += 1;
        }
        let Some(count) = count else { return };
        self.has_answer(index, count);
        self.slice.refused += 1;
        if let Some(book) = self.books.get_mut(index) {
            book.refuse(count, is_unknown, &mut self.faults);
        }
        if let Some(device) = self.devices.get_mut(index).filter(|device| device.window > 0 && device.hold.is_none()) {
            let until = now + Duration::from_millis(retry.unwrap_or(1000).clamp(1, 60_000));
            device.hold = Some(until);
            self.held.push((until, index));
        }
    }

    /// An event has come; its number continues those before it.
    fn count_on(&mut self, index: usize, n: u64) {
        if let Some(device) = self.devices.get_mut(index)
            && n > 0
        {
            self.faults.gaps += u64::from(n != device.last + 1);
            device.last = n.max(device.last);
        }
    }

    fn delivered(&mut self, index: usize, name: Option<Name>, seq: Option<u64>, after: Option<u64>, now: Instant) {
        let members = self.shared.members.max(1);
        let Some(device) = self.devices.get_mut(index) else { return };
        let last_seq = device.last_seq;
        device.last_seq = seq.unwrap_or(last_seq);
        if let (Some(after), true) = (after, last_seq > 0) {
            self.faults.gaps += u64::from(after != last_seq);
        }
        let Some(name) = name.filter(|name| name.run == self.shared.run) else {
            // What waited since another run is not ours; what is sent now by others is.
            self.faults.strange += u64::from(device.stage == Stage::Here);
            return;
        };
        let sender = name.sender.checked_sub(self.base).and_then(|place| usize::try_from(place).ok());
        let is_same = |sender: &usize| sender / members == index / members && *sender != index;
        let Some(sender) = sender.filter(is_same) else {
            self.faults.strange += 1;
            return;
        };
        let (Some(book), Some(incoming)) = (self.books.get_mut(sender), device.incoming(sender % members)) else {
            self.faults.strange += 1;
            return;
        };
        let reordered = self.faults.reordered;
        if !incoming.take(name.count, book, &mut self.faults) {
            return;
        }
        let is_late = seq.is_some_and(|seq| seq <= last_seq) && self.faults.reordered == reordered;
        self.faults.reordered += u64::from(is_late);
        self.slice.delivered += 1;
        let at = book.arrive(name.count, seq, &mut self.faults);
        if let Some(at) = at.filter(|at| self.is_measured(*at)) {
            self.slice.record(Timed::Delivery, now.saturating_duration_since(at));
        }
        if self.notes_arrivals {
            self.came.push((index, seq.unwrap_or_default()));
        }
        if self.waits_for_arrival {
            self.refill(sender, now);
            self.flush(sender);
        }
    }
}
