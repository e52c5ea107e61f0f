//! A run as it goes on: what the live view and the plain lines are made from.

use std::collections::BTreeMap;
use std::time::Duration;

use super::summary::{Generator, LedgerCounts, Moment};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stage {
    /// Connections are being opened.
    Opening {
        /// Those that are there.
        open: u64,
        /// All.
        of: u64,
    },
    /// Under load, not measured yet.
    Warmup(Duration),
    /// Measured for so long; of how long, where that is known.
    Measuring(Duration, Option<Duration>),
    /// The load is over; what is under way comes in.
    Settling(Duration),
}

/// A run as it goes on. Everything is cumulative; `series` grows by a moment each second.
#[derive(Debug, Clone)]
pub struct View {
    /// The scenario's name.
    pub scenario: String,
    /// The run's title.
    pub title: String,
    /// Addresses.
    pub urls: Vec<String>,
    /// Every setting.
    pub settings: serde_json::Value,
    /// Which one of repeated runs or of a search's steps this is, from 1, and of how many, if that is known.
    pub run: (u32, Option<u32>),
    /// Where it stands.
    pub stage: Stage,
    /// The seconds so far.
    pub series: Vec<Moment>,
    /// Operations begun.
    pub sent: u64,
    /// Operations answered.
    pub answered: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Refusals and failures by code.
    pub errors: BTreeMap<String, u64>,
    /// What did not hold so far; what is lost shows at the end.
    pub ledger: LedgerCounts,
    /// Answers of the measured span so far: p50, p99, p99.9 in milliseconds.
    pub answer_ms: Option<[f64; 3]>,
    /// Deliveries of the measured span so far: p50, p99, p99.9 in milliseconds.
    pub delivery_ms: Option<[f64; 3]>,
    /// The generator in the last second.
    pub generator: Generator,
}
