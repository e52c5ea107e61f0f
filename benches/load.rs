//! The load program: real WebSockets against a running server, and a ledger that notices every message that is lost,
//! doubled or out of order.
//!
//! ```text
//! sotto user seed --count 200 --pairs --out users.jsonl
//! cargo bench --bench load -- pairs --url http://127.0.0.1:8080 --users users.jsonl --pairs 100 --in-flight 8 --seconds 20
//! cargo bench --bench load -- rate  --url … --users … --pairs 100 --rate 500 --seconds 20
//! cargo bench --bench load -- idle  --url … --users … --connections 5000 --pid PID
//! cargo bench --bench load -- storm --url … --peer-url … --kill PID --users … --connections 5000
//! ```
//!
//! It prints `name=value` lines. With `--pid` it also tells what the server used of the processor, with
//! `--database-pid` what PostgreSQL did (its backends included). The exit code is 1 when the ledger does not balance.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a load tool that cannot go on says why and ends; it has threads of its own to pace"
)]

#[path = "load/connection.rs"]
mod connection;
#[path = "load/idle.rs"]
mod idle;
#[path = "load/ledger.rs"]
mod ledger;
#[path = "load/process.rs"]
mod process;
#[path = "load/storm.rs"]
mod storm;
#[path = "load/traffic.rs"]
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

/// Load on a running Sotto.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Closed loop: each sender keeps so many messages unanswered.
    Pairs(Pairs),
    /// Open loop: so many messages a second, whatever the server does; latency from the intended moment.
    Rate(Rate),
    /// Connections that do nothing: memory of each.
    Idle(Idle),
    /// A node is killed and all its connections come back to another.
    Storm(Storm),
}

/// What every scenario needs.
#[derive(Args, Clone)]
pub struct Target {
    /// The server, as `http://127.0.0.1:8080`.
    #[arg(long)]
    pub url: String,
    /// The file that `sotto user seed` wrote.
    #[arg(long)]
    pub users: PathBuf,
    /// The server's process.
    #[arg(long)]
    pub pid: Option<u32>,
    /// The database's process, if it is one of its own.
    #[arg(long)]
    pub database_pid: Option<u32>,
}

/// What both kinds of traffic need.
#[derive(Args, Clone)]
pub struct Traffic {
    #[command(flatten)]
    pub target: Target,
    /// Pairs of users; the first writes to the second.
    #[arg(long, default_value_t = 100)]
    pub pairs: usize,
    /// Another node of the same cluster, to which the second of each pair connects.
    #[arg(long)]
    pub peer_url: Option<String>,
    /// That node's process.
    #[arg(long)]
    pub peer_pid: Option<u32>,
    /// The second writes to the first as well.
    #[arg(long)]
    pub both: bool,
    /// Measured seconds.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Seconds before them.
    #[arg(long, default_value_t = 3)]
    pub warmup: u64,
    /// Bytes of ciphertext.
    #[arg(long, default_value_t = 256)]
    pub size: usize,
    /// One shared ciphertext instead of an envelope for the other's device.
    #[arg(long)]
    pub shared: bool,
    /// Generator threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

#[derive(Args)]
struct Pairs {
    #[command(flatten)]
    traffic: Traffic,
    /// Messages that a sender has unanswered.
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
}

#[derive(Args)]
struct Rate {
    #[command(flatten)]
    traffic: Traffic,
    /// Messages per second of all pairs together.
    #[arg(long, default_value_t = 500)]
    rate: u64,
}

/// Connections that do nothing.
#[derive(Args)]
pub struct Idle {
    #[command(flatten)]
    pub target: Target,
    /// How many.
    #[arg(long, default_value_t = 5000)]
    pub connections: usize,
    /// Seconds between the last one and the look.
    #[arg(long, default_value_t = 5)]
    pub settle: u64,
}

/// A node is killed and all its connections come back to another.
#[derive(Args)]
pub struct Storm {
    #[command(flatten)]
    pub target: Target,
    /// The node that stays.
    #[arg(long)]
    pub peer_url: String,
    /// The process of the node at `--url`, which is killed.
    #[arg(long)]
    pub kill: u32,
    /// How many.
    #[arg(long, default_value_t = 5000)]
    pub connections: usize,
    /// Seconds between the last one and the kill.
    #[arg(long, default_value_t = 3)]
    pub settle: u64,
}

/// A line of the file.
#[derive(Clone, Deserialize)]
pub struct User {
    pub user_id: String,
    pub device_id: String,
    pub access_token: String,
    pub conversation_id: String,
    pub peer_user_id: Option<String>,
    pub peer_device_id: Option<String>,
}

impl Target {
    /// The first `count` users of the file.
    fn load(&self, count: usize) -> Vec<User> {
        let text = std::fs::read_to_string(&self.users).expect("the file of `sotto user seed`");
        let users: Vec<User> = text.lines().take(count).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(users.len(), count, "the file has too few users: seed more");
        users
    }

    /// `HOST:PORT`; only this machine is put under load.
    fn address(&self) -> String {
        address_of(&self.url)
    }
}

pub fn address_of(url: &str) -> String {
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    assert!(address.starts_with("127."), "load goes to 127.0.0.1 and nowhere else");
    address
}

fn main() -> ExitCode {
    // Cargo adds `--bench` for harnesses.
    let cli = Cli::parse_from(std::env::args().filter(|argument| argument != "--bench"));
    let balanced = match cli.scenario {
        Scenario::Pairs(pairs) => traffic::run(&pairs.traffic, traffic::Pace::InFlight(pairs.in_flight)),
        Scenario::Rate(rate) => traffic::run(&rate.traffic, traffic::Pace::PerSecond(rate.rate)),
        Scenario::Idle(idle) => idle::run(&idle),
        Scenario::Storm(storm) => storm::run(&storm),
    };
    if balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
