//! The fault campaign: real nodes with their databases, Redis, disks, clocks and networks fail one after the other under
//! a steady load, and nothing that was acknowledged is lost, stored twice, left out or reordered.
//!
//! ```text
//! just campaign --faults 200 --seed 7       until 200 faults were endured
//! just campaign --resume                    goes on with the one that was interrupted
//! just campaign --only node-kill --faults 5
//! ```
//!
//! `cargo test` runs a short one. Each fault is followed by the question when sends are answered again; each leg of up to
//! ten faults ends with a closed ledger. The seed decides which faults come and with which choices; when exactly they
//! hit is the machine's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may fail, and says so"
)]

mod leg;
mod people;
mod plan;
mod probe;
mod report;
/// What the suite stands on as well: `tests/support.rs` declares all of it.
#[path = "../support"]
#[allow(dead_code, unused_imports, reason = "two programs stand on it, each on a part")]
mod support {
    pub mod cluster;
    pub mod database;
    pub mod disk;
    pub mod fault;
    pub mod node;
    pub mod people;
    pub mod postgres;
    pub mod process;
    pub mod proxy;
    pub mod redis;
}
mod world;

use clap::Parser;
use futures::FutureExt as _;
use plan::{Kind, Leg};
use report::Campaign;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use world::Means;

/// Faults under load, and a ledger that must be all zeros.
#[derive(Parser)]
#[command(name = "faults")]
struct Cli {
    /// How many faults.
    #[arg(long, default_value_t = 26)]
    faults: usize,
    /// Repeats the choices of another run; without it they are new each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Goes on with the campaign that the state file tells of.
    #[arg(long)]
    resume: bool,
    /// Fails if a fault had to be skipped.
    #[arg(long, env = "SOTTO_TEST_REQUIRE_ALL", value_parser = clap::builder::FalseyValueParser::new())]
    require_all: bool,
    /// Only these kinds, as the table names them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The nodes know of no Redis, and no fault befalls it.
    #[arg(long)]
    without_redis: bool,
    /// Where state, result and evidence go.
    #[arg(long, default_value = "target/faults")]
    out: PathBuf,
    /// The name that `cargo test NAME` is given: this program is for `faults` alone.
    filter: Vec<String>,
    // What `cargo test -- …` gives to every test program.
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

impl Cli {
    fn kinds(&self) -> Result<Vec<Kind>, String> {
        let named = |name: &String| {
            let found = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
            found.ok_or_else(|| {
                let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                format!("{name} is no fault; there are {}", names.join(", "))
            })
        };
        if self.only.is_empty() { Ok(Kind::ALL.to_vec()) } else { self.only.iter().map(named).collect() }
    }

    fn campaign(&self, state: &Path) -> Result<Campaign, String> {
        if self.resume {
            return Campaign::load(state);
        }
        let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| u64::from(time.subsec_nanos()));
        let seed = self.seed.unwrap_or(now);
        let kinds = self.kinds()?;
        Ok(Campaign { seed, faults: self.faults, kinds, redis: !self.without_redis, legs: Vec::new() })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_skipped = cli.skip.iter().any(|skip| "faults".contains(skip.as_str()));
    if is_skipped || !cli.filter.is_empty() && !cli.filter.iter().any(|filter| "faults".contains(filter.as_str())) {
        println!("the fault campaign is not asked for");
        return ExitCode::SUCCESS;
    }
    std::fs::create_dir_all(&cli.out).expect("a folder for the results");
    let state = cli.out.join("state.json");
    let campaign = match cli.campaign(&state) {
        Ok(campaign) => campaign,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::select! {
            code = run(&cli, campaign, &state) => code,
            // What runs is dropped, and with it every process, mount and namespace.
            () = interrupted() => {
                eprintln!("interrupted: `--resume` goes on after the last closed ledger");
                ExitCode::from(130)
            }
        }
    })
}

async fn interrupted() {
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = end.recv() => {}
    }
}

async fn run(cli: &Cli, mut campaign: Campaign, state: &Path) -> ExitCode {
    let means = Means::look(campaign.redis);
    let legs = plan::plan(campaign.faults, campaign.seed, &campaign.kinds);
    println!("fault campaign: {} faults in {} legs, seed {}", campaign.faults, legs.len(), campaign.seed);
    for leg in legs.iter().skip(campaign.legs.len()) {
        println!(
            "leg {} of {}: {} faults on {:?}, seed {}",
            leg.number + 1,
            legs.len(),
            leg.faults.len(),
            leg.scene,
            leg.seed
        );
        let folder = cli.out.join(format!("leg-{}", leg.number));
        let _ = std::fs::remove_dir_all(&folder);
        let result = guarded(leg, &means, &folder).await;
        println!(
            "  ledger: {} sent, {} received, {} in {:.0} s",
            result.sent,
            result.received,
            if result.is_clean() { "nothing broken" } else { "BROKEN" },
            result.seconds
        );
        for line in result.wrong.iter().take(20) {
            println!("    WRONG: {line}");
        }
        campaign.legs.push(result);
        campaign.save(state);
    }
    println!("\n{}\n", campaign.table());
    campaign.save(&cli.out.join("result.json"));
    let reasons = campaign.verdict(cli.require_all);
    for reason in &reasons {
        println!("FAILED (seed {}): {reason}", campaign.seed);
    }
    if reasons.is_empty() {
        println!("the campaign is green: nothing acknowledged was lost (seed {})", campaign.seed);
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A leg that panics is a broken one, and the next one still runs.
async fn guarded(leg: &Leg, means: &Means, folder: &Path) -> leg::Result {
    match AssertUnwindSafe(leg::run(leg, means, folder)).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            leg::Result {
                number: leg.number,
                scene: leg.scene,
                seed: leg.seed,
                outcomes: Vec::new(),
                ledger: std::collections::BTreeMap::new(),
                sent: 0,
                received: 0,
                seconds: 0.0,
                wrong: vec![format!("the leg did not come to its end: {}", text.unwrap_or_default())],
            }
        }
    }
}
