//! What a run came to: the file `summary.json`, and what the table, the live view and the report are made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of this format. A reader refuses another one.
pub const VERSION: u32 = 1;

/// A run, from its settings to its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`VERSION`].
    pub version: u32,
    /// The scenario's name: `pairs`, `rate`, `connect`, …
    pub scenario: String,
    /// A name that the user gave to the run, else the scenario's.
    pub title: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// Every setting of the scenario, defaults included, as in its TOML form.
    pub settings: serde_json::Value,
    /// Where it ran.
    pub machine: Machine,
    /// What was driven.
    pub target: Target,
    /// Seconds before the measured span.
    pub warmup_seconds: f64,
    /// The measured span in seconds.
    pub seconds: f64,
    /// Whether the figures may be believed.
    pub verdict: Verdict,
    /// What was promised and did not hold.
    pub ledger: LedgerCounts,
    /// Refusals and failures by their code, over the whole run.
    pub errors: BTreeMap<String, u64>,
    /// The results, the most telling first. Empty when the ledger is broken, unless its faults are tolerated.
    pub figures: Vec<Figure>,
    /// Latencies over the measured span.
    pub latencies: Vec<LatencyFigures>,
    /// What server, database and generator used.
    pub processes: Vec<ProcessFigures>,
    /// The generator's own state.
    pub generator: Generator,
    /// One entry per second, from the beginning of the warm-up to the last answer.
    pub series: Vec<Moment>,
    /// The runs of a search for the capacity, in order; empty for every other scenario.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// A run of a search for the capacity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Messages per second that were asked for.
    pub rate: u64,
    /// Messages per second that were delivered.
    pub delivered_per_second: f64,
    /// 99th percentile from send to delivery in milliseconds; none: nothing was delivered.
    pub p99_ms: Option<f64>,
    /// Whether the bound held.
    pub holds: bool,
    /// Why not, for people; empty where it held.
    pub why: String,
}

/// The machine of the generator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that the generator may use.
    pub cores: usize,
    /// The processor's name, as the kernel tells it.
    pub processor: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's version.
    pub kernel: String,
}

/// What was driven.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Target {
    /// Addresses.
    pub urls: Vec<String>,
    /// What kind of server it is: `sotto` or `xmpp`.
    pub protocol: String,
    /// Whether it runs on this machine and was watched by its process ids.
    pub local: bool,
}

/// Whether a run's figures may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The ledger balances and the generator kept up.
    Good,
    /// The ledger balances, but the generator was at its end: what is shown is its limit or later than it was.
    Saturated,
    /// The ledger does not balance: there are no figures, or they are those of a server whose faults are tolerated.
    Broken,
}

/// What must not happen. All zero: the ledger balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerCounts {
    /// Answered `ok`, and never came.
    pub lost: u64,
    /// Stored twice, or came twice on one connection.
    pub duplicated: u64,
    /// Came before an earlier one of its conversation.
    pub reordered: u64,
    /// A hole in the chain of `n`, `seq` or `after_seq`.
    pub gaps: u64,
    /// Came, and nobody had sent it.
    pub strange: u64,
    /// Acknowledged, and not confirmed.
    pub unconfirmed: u64,
    /// Sent, and neither answered nor refused.
    pub unanswered: u64,
}

/// Which direction is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// As throughput.
    Higher,
    /// As latency and memory.
    Lower,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Stable name in snake case with its unit: `delivered_per_second`, `kib_per_connection`.
    pub name: String,
    /// For people: "messages delivered".
    pub title: String,
    /// For people: `/s`, `ms`, `KiB`.
    pub unit: String,
    /// The value over the whole measured span.
    pub value: f64,
    /// Which direction is the better one.
    pub better: Better,
    /// The value in each part of the measured span (or of each repeated run), from which the noise is judged.
    pub samples: Vec<f64>,
}

/// One latency over the measured span, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyFigures {
    /// Stable name: `send_to_ok`, `send_to_delivered`, `connect`, …
    pub name: String,
    /// For people: "send to delivered".
    pub title: String,
    /// How many were measured.
    pub count: u64,
    /// The smallest.
    pub min_ms: f64,
    /// The mean.
    pub mean_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// The 90th percentile.
    pub p90_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The 99.9th percentile.
    pub p999_ms: f64,
    /// The largest.
    pub max_ms: f64,
    /// The histogram of microseconds: `HistLog` V2, deflated, base64, as every HDR tool reads it.
    pub hdr: String,
}

/// What a process used in the measured span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// `server`, `database`, `generator`, …
    pub name: String,
    /// Processor seconds, children included.
    pub cpu_seconds: f64,
    /// Processors used on average.
    pub cores: f64,
    /// Processor seconds per 1,000 operations of the scenario; none where it has no operations.
    pub cpu_seconds_per_1000: Option<f64>,
    /// Resident memory at the beginning, in bytes.
    pub rss_start_bytes: u64,
    /// Resident memory at the end, in bytes.
    pub rss_end_bytes: u64,
    /// The most resident memory of the run, in bytes.
    pub rss_peak_bytes: u64,
}

/// The generator's own state, so that its limits are not taken for the server's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Generator {
    /// Threads that generate.
    pub threads: usize,
    /// Share of its time that the busiest thread was at work, 0 to 1.
    pub busiest_thread: f64,
    /// How late an open loop sent, 99th percentile, in milliseconds; none in a closed loop.
    pub lag_p99_ms: Option<f64>,
    /// Why its figures are not the server's alone; none while it kept up.
    pub saturated: Option<String>,
}

/// One second of the run. Absent: nothing was measured in it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the beginning of the warm-up.
    pub at: f64,
    /// Whether it lies in the measured span.
    pub measured: bool,
    /// Operations begun per second.
    pub sent_per_second: f64,
    /// Operations answered per second.
    pub answered_per_second: f64,
    /// Messages delivered per second.
    pub delivered_per_second: f64,
    /// Refusals and failures per second.
    pub errors_per_second: f64,
    /// Operations not answered yet.
    pub in_flight: u64,
    /// Open connections.
    pub connections: u64,
    /// Answers of this second: median, 99th percentile, largest, in milliseconds.
    pub answer_ms: Option<[f64; 3]>,
    /// Deliveries of this second: median, 99th percentile, largest, in milliseconds.
    pub delivery_ms: Option<[f64; 3]>,
    /// Processors used, by process name.
    pub cores: BTreeMap<String, f64>,
    /// Resident memory in bytes, by process name.
    pub rss_bytes: BTreeMap<String, u64>,
}
