//! The ledger is tested itself: a server with one bug planted, under the load of `sotto verify` and the fault that the
//! bug needs, must be found out in the count that is named here; the same run without the bug must be clean.
//!
//! `cargo test --test planted -- --times 3 no_dedupe claim_by_select` runs two of them three times each. The program
//! with the bugs is built first, by the feature `planted-bugs`; it has a name of its own and takes nobody's place.

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

mod cases;
mod run;
/// What the suite stands on as well: `tests/support.rs` declares all of it.
#[path = "../support"]
#[allow(dead_code, unused_imports, reason = "several programs stand on it, each on a part")]
mod support {
    pub mod database;
    pub mod node;
    pub mod process;
}

use cases::{CASES, Case};
use clap::Parser;
use futures::{StreamExt as _, stream};
use run::Outcome;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Bugs that are looked for at the same time.
const AT_ONCE: usize = 3;
/// Runs with a bug until it must have been found.
const TRIES: u64 = 3;

/// Planted bugs, and whether the ledger finds them.
#[derive(Parser)]
#[command(name = "planted")]
struct Cli {
    /// How often each bug is looked for; it must be found each time.
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// Repeats the choices of another run; without it they are new each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Shows what was found, and not only how often.
    #[arg(long)]
    examples: bool,
    /// Takes the program with the bugs as it lies there.
    #[arg(long)]
    built: bool,
    /// Only these bugs; the name that `cargo test NAME` is given: this program is for `planted` alone.
    names: Vec<String>,
    // What `cargo test -- …` gives to every test program.
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

impl Cli {
    fn cases(&self) -> Vec<&'static Case> {
        let is_meant = |case: &&Case| {
            let all = self.names.is_empty() || self.names.iter().any(|name| "planted".contains(name.as_str()));
            all || self.names.iter().any(|name| name == case.bug)
        };
        CASES.iter().filter(is_meant).collect()
    }
}

/// The same profile and folder as this program's: only the workspace's own packages are compiled anew.
fn build() {
    let target = Path::new(env!("CARGO_BIN_EXE_sotto")).ancestors().nth(2).expect("target/debug/sotto");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--features", "planted-bugs", "--bin", "sotto-planted", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.expect("cargo").success(), "the program with the bugs cannot be built");
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let cases = cli.cases();
    if cases.is_empty() {
        println!("no planted bug is meant by {:?}", cli.names);
        return ExitCode::SUCCESS;
    }
    if !cli.built {
        build();
    }
    let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| u64::from(time.subsec_nanos()));
    let seed = cli.seed.unwrap_or(now);
    println!("{} bugs, {} times each, seed {seed}", cases.len(), cli.times);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let begun = Instant::now();
    let rows = runtime.block_on(async {
        let runs = (0..cli.times).flat_map(|time| cases.iter().map(move |case| (*case, seed.wrapping_add(time))));
        let runs = stream::iter(runs).map(|(case, seed)| look_for(case, seed)).buffer_unordered(AT_ONCE);
        runs.inspect(Row::tell).collect::<Vec<_>>().await
    });
    table(&cases, &rows, cli.examples, begun.elapsed());
    if rows.iter().all(Row::is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What became of one bug, once.
struct Row {
    case: &'static Case,
    with: Outcome,
    without: Outcome,
}

impl Row {
    fn is_right(&self) -> bool {
        self.is_caught() && self.without.report.is_clean()
    }

    fn is_caught(&self) -> bool {
        self.case.promise.map_or(self.with.report.is_clean(), |promise| self.with.report.count(promise) > 0)
    }

    fn tell(&self) {
        println!("{}: {}", self.case.bug, if self.is_right() { "as it should be" } else { "NOT as it should be" });
    }
}

async fn look_for(case: &'static Case, seed: u64) -> Row {
    let mut with = run::run(case, case.bug, seed).await;
    // Some bugs need an accident beside them, which does not happen each time.
    for again in 1..TRIES {
        let missed = case.promise.is_some_and(|promise| with.report.count(promise) == 0);
        if !missed {
            break;
        }
        println!("{}: not found, try {} of {TRIES}", case.bug, again + 1);
        with = run::run(case, case.bug, seed.wrapping_add(again)).await;
    }
    let without = run::run(case, run::NONE, seed).await;
    Row { case, with, without }
}

fn counts(outcome: &Outcome) -> String {
    let found = outcome.report.findings.iter().filter(|(_, count, _)| *count > 0);
    let mut words: Vec<String> = found.map(|(promise, count, _)| format!("{} {count}", promise.name())).collect();
    words.extend(outcome.report.incomplete.iter().map(|text| format!("incomplete: {text}")));
    if words.is_empty() { "clean".to_owned() } else { words.join(", ") }
}

fn table(cases: &[&'static Case], rows: &[Row], examples: bool, took: Duration) {
    println!("\n{:<26} {:<22} {:>8} {:>8} {:>8}  found", "bug", "caught by", "caught", "s", "without");
    for case in cases {
        let own = || rows.iter().filter(|row| std::ptr::eq(row.case, *case));
        let (caught, all) = (own().filter(|row| row.is_caught()).count(), own().count());
        let clean = own().filter(|row| row.without.report.is_clean()).count();
        let seconds = own().map(|row| row.with.took.as_secs_f64()).sum::<f64>() / all.max(1) as f64;
        let promise = case.promise.map_or("nothing: no bug", sotto_harness::Promise::key);
        let first = own().next().map(|row| counts(&row.with)).unwrap_or_default();
        println!("{:<26} {promise:<22} {caught:>4}/{all:<3} {seconds:>8.1} {clean:>4}/{all:<3}  {first}", case.bug);
    }
    for row in rows.iter().filter(|row| examples || !row.is_right()) {
        for (name, outcome) in [("with", &row.with), ("without", &row.without)] {
            println!("\n{} {name}, seed {}: {}", row.case.bug, outcome.report.seed, counts(outcome));
            for example in outcome.report.findings.iter().flat_map(|(_, _, examples)| examples) {
                println!("  {example}");
            }
        }
    }
    println!("\n{} runs in {:.0} s", rows.len() * 2, took.as_secs_f64());
}
