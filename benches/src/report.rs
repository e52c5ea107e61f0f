//! What remains of a run: the counts that must be zero, and figures.

use serde::Serialize;

use crate::counters::View;
use crate::findings::{Findings, Promise};

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed that repeats the choices.
    pub seed: u64,
    /// How often each promise was broken.
    pub findings: Findings,
    /// What could not be looked at, so that the zeros above do not vouch for it.
    pub incomplete: Vec<String>,
    /// How much was done.
    pub figures: Figures,
    /// The counters at the end.
    pub view: View,
}

/// How much was done, and how long it took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Devices that were driven.
    pub devices: usize,
    /// Conversations that they share.
    pub conversations: usize,
    /// Messages that were made.
    pub sent: u64,
    /// Messages that were answered with ok.
    pub acknowledged: u64,
    /// Messages of which every attempt was refused, and that were taken back.
    pub withdrawn: u64,
    /// Messages that were sent again, or to two nodes at once.
    pub repeated: u64,
    /// Answers that say that the message was stored before.
    pub duplicates: u64,
    /// Durable events that came, repeats included.
    pub events: u64,
    /// Messages among them.
    pub received: u64,
    /// Acknowledgements that were confirmed.
    pub confirmed: u64,
    /// One-time keys that were handed out.
    pub keys_given: u64,
    /// Sessions that were ended.
    pub revoked: usize,
    /// Those of them whose socket or whose refusal was not seen everywhere, because a node or the way to it failed.
    pub unwitnessed: u64,
    /// Logs that were read anew at the end, each by one device at one node.
    pub histories: u64,
    /// Half of all attempts were answered within this, in milliseconds.
    pub ok_p50_ms: Option<f64>,
    /// 99 of 100 attempts were answered within this, in milliseconds.
    pub ok_p99_ms: Option<f64>,
    /// From the attempt to the event at a device that was there, half of them.
    pub delivery_p50_ms: Option<f64>,
    /// The same, 99 of 100.
    pub delivery_p99_ms: Option<f64>,
    /// Seconds under load.
    pub load_seconds: f64,
    /// Seconds of settling and reading anew.
    pub settle_seconds: f64,
}

impl Report {
    /// Whether all promises were kept, everything was looked at, and there was something to look at.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_clean() && self.incomplete.is_empty() && !self.is_empty()
    }

    /// Whether a promise was broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.findings.is_clean()
    }

    /// Whether nothing was acknowledged, nothing came, or no log was read: such a run shows nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.figures.acknowledged == 0 || self.figures.received == 0 || self.figures.histories == 0
    }

    /// How often a promise was broken.
    #[must_use]
    pub fn count(&self, promise: Promise) -> u64 {
        self.findings.count(promise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(acknowledged: u64, received: u64, incomplete: &[&str]) -> Report {
        Report {
            seed: 1,
            findings: Findings::default(),
            incomplete: incomplete.iter().map(|text| (*text).to_owned()).collect(),
            figures: Figures { acknowledged, received, histories: 1, ..Figures::default() },
            view: View::default(),
        }
    }

    #[test]
    fn a_run_without_load_or_without_an_end_is_not_clean() {
        assert!(report(1, 1, &[]).is_clean());
        assert!(!report(0, 0, &[]).is_clean() && !report(1, 0, &[]).is_clean());
        assert!(!report(1, 1, &["a log could not be read"]).is_clean());
        let mut broken = report(1, 1, &[]);
        broken.findings.add(Promise::Lost, String::new);
        assert!(!broken.is_clean() && broken.is_broken() && broken.count(Promise::Lost) == 1);
    }
}
