//! What the harness says is what is: times, faults, and its own limits.
//!
//! A program of its own, whose tests of times go one after the other: what is late because other tests run beside is measured rightly,
//! and says nothing about the harness.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    missing_docs,
    reason = "a test may fail, and says so"
)]

#[path = "../load/target.rs"]
mod target;
mod wire_delay;

use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use sotto_harness::load::{LedgerCounts, Plan, Stop, Summary, Verdict};
use tokio::sync::{Mutex, MutexGuard};

use self::target::{Behaviour, LoadTarget};
use self::wire_delay::delayed;

/// One test at a time.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// A plan with so many pairs of users of a [`LoadTarget`], measured for so long, without a warm-up.
fn plan(url: &str, folder: &Path, pairs: usize, seconds: u64, scenario: &str) -> Plan {
    let users = LoadTarget::users(folder, pairs);
    let target = format!("[target]\nurl = [\"{url}\"]\nusers = \"{}\"\n", users.display());
    Plan::from_toml(&format!("{target}[span]\nwarmup = 0\nseconds = {seconds}\n{scenario}")).unwrap()
}

/// Runs it.
async fn run(url: &str, pairs: usize, seconds: u64, scenario: &str) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(url, folder.path(), pairs, seconds, scenario);
    tokio::task::spawn_blocking(move || plan.repeat(&Stop::default(), &mut |_| {}).unwrap()).await.unwrap()
}

const RATE: &str = "[rate]\nrate = 200\npairs = 4\n";

/// Whether the figures are what they must be. A machine that is busy makes messages later than they should be. The run is made
/// again then, three times at most.
async fn is_measured(run: impl AsyncFn() -> Result<(), String>) {
    let mut found = Vec::new();
    for _ in 0..3 {
        match run().await {
            Ok(()) => return,
            Err(error) => found.push(error),
        }
    }
    panic!("{found:?}");
}

fn within(name: &str, value: f64, bounds: Range<f64>) -> Result<(), String> {
    if bounds.contains(&value) { Ok(()) } else { Err(format!("{name} is {value}, not in {bounds:?}")) }
}

/// Runs it beside a sleeper, and says whether the generator was at its end. It may call itself late where the machine was: the
/// sleeper was then woken late as well.
async fn run_within_its_means(url: &str, pairs: usize, seconds: u64, scenario: &str) -> Result<Summary, String> {
    const SLEEP: Duration = Duration::from_millis(5);
    let (stop, stopped) = mpsc::channel::<()>();
    let sleeper = tokio::task::spawn_blocking(move || {
        let mut late = Vec::new();
        let mut due = Instant::now() + SLEEP;
        while stopped.recv_timeout(due.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
            late.push(due.elapsed());
            due += SLEEP;
        }
        late.sort_unstable();
        late
    });
    let summary = run(url, pairs, seconds, scenario).await;
    drop(stop);
    let late = sleeper.await.unwrap();
    let is_slow_machine = late[late.len() * 98 / 100] > Duration::from_millis(1);
    match &summary.generator.saturated {
        Some(reason) if !(is_slow_machine && reason.contains("later than they were due")) => Err(reason.clone()),
        _ => Ok(summary),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_delay_is_measured_within_five_percent() {
    let _alone = alone().await;
    let server = LoadTarget::start(Behaviour::default()).await;
    let delay = Duration::from_millis(150);
    let url = delayed(&server.url, delay).await;
    for scenario in [RATE, "[pairs]\npairs = 4\nwindow = 2\n"] {
        is_measured(async || {
            let summary = run(&url, 4, 2, scenario).await;
            assert_ne!(summary.verdict, Verdict::Broken, "{summary:?}");
            for name in ["send_to_ok", "send_to_delivered"] {
                let latency = summary.latencies.iter().find(|latency| latency.name == name).unwrap();
                assert!(latency.min_ms >= 150.0, "{name} min {}", latency.min_ms);
                within(&format!("{name} p50 in {scenario}"), latency.p50_ms, 150.0..150.0 * 1.05)?;
            }
            Ok(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_felt_by_everyone_who_was_due_in_it() {
    let _alone = alone().await;
    is_measured(async || {
        let stall = Some((Duration::from_secs(1), Duration::from_secs(1)));
        let server = LoadTarget::start(Behaviour { stall, ..Behaviour::default() }).await;
        let summary = run(&server.url, 4, 4, RATE).await;
        assert_ne!(summary.verdict, Verdict::Broken, "{:?}", summary.ledger);
        let latency = summary.latencies.iter().find(|latency| latency.name == "send_to_ok").unwrap();
        // One of four seconds is lost: a quarter of all messages waited, evenly from nothing up to all of it, so that a
        // tenth of all waited 600 ms and more. Were only those measured that were really under way when it began, a handful
        // of 800 would have.
        assert!(latency.count >= 780, "{}", latency.count);
        within("p90", latency.p90_ms, 500.0..700.0)?;
        within("max", latency.max_ms, 850.0..1300.0)?;
        within("p50", latency.p50_ms, 0.0..100.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_promise_is_found_and_takes_the_figures_away() {
    // Not alone: it waits for most of its time, and nothing of it is a time.
    let none = LedgerCounts::default();
    let cases = [
        (Behaviour { drops: Some(30), ..Behaviour::default() }, LedgerCounts { lost: 1, ..none }),
        (Behaviour { doubles: Some(30), ..Behaviour::default() }, LedgerCounts { duplicated: 1, ..none }),
        (Behaviour { swaps: Some(30), ..Behaviour::default() }, LedgerCounts { reordered: 1, ..none }),
        (Behaviour { silent: Some(30), ..Behaviour::default() }, LedgerCounts { unanswered: 1, ..none }),
    ];
    for (behaviour, expected) in cases {
        let server = LoadTarget::start(behaviour).await;
        let summary = run(&server.url, 1, 1, "[rate]\nrate = 100\npairs = 1\n").await;
        assert_eq!(summary.ledger, expected);
        assert_eq!(summary.verdict, Verdict::Broken);
        assert!(summary.figures.is_empty() && summary.latencies.is_empty());
    }
    let server = LoadTarget::start(Behaviour::default()).await;
    let summary = run(&server.url, 1, 1, "[rate]\nrate = 100\npairs = 1\n").await;
    assert_eq!(summary.ledger, none);
    assert!(!summary.figures.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_and_are_no_faults() {
    let _alone = alone().await;
    is_measured(async || {
        let server = LoadTarget::start(Behaviour { refuses: Some(4), ..Behaviour::default() }).await;
        let scenario = "[rate]\nrate = 200\npairs = 4\noverload = true\n";
        let summary = run_within_its_means(&server.url, 4, 2, scenario).await?;
        let verdict = summary.generator.saturated.as_ref().map_or(Verdict::Good, |_| Verdict::Saturated);
        assert_eq!((summary.verdict, summary.ledger), (verdict, LedgerCounts::default()), "refusals are no faults");
        let value = |name: &str| summary.figures.iter().find(|figure| figure.name == name).unwrap().value;
        assert!(value("silent_refusals_per_second") < 0.001);
        let refused = summary.errors["unavailable"];
        if refused < 90 {
            return Err(format!("{refused} were refused"));
        }
        within("refused_per_second", value("refused_per_second"), 45.0..55.0)?;
        within("delivered_per_second", value("delivered_per_second"), 140.0..160.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generator_at_its_end_says_so() {
    let _alone = alone().await;
    let server = LoadTarget::start(Behaviour::default()).await;
    let summary = run(&server.url, 4, 1, "[rate]\nrate = 2000000\npairs = 4\noverload = true\n").await;
    assert_eq!(summary.verdict, Verdict::Saturated, "{:?}", summary.generator);
    assert!(summary.generator.saturated.is_some());
    is_measured(async || run_within_its_means(&server.url, 4, 1, RATE).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_known_capacity_of_a_server_is_found() {
    let _alone = alone().await;
    // 2 ms each: 500 messages a second, and not one more.
    let server = LoadTarget::start(Behaviour { service: Duration::from_millis(2), ..Behaviour::default() }).await;
    is_measured(async || {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&server.url, folder.path(), 8, 2, "[rate]\npairs = 8\n");
        let summary = tokio::task::spawn_blocking(move || {
            let capacity =
                sotto_harness::load::capacity::Capacity { p99: 60.0, from: 200, within: 10, ..Default::default() };
            capacity.search(&plan, &Default::default(), &mut |_| {}, &mut |_| {}).unwrap()
        });
        let summary = summary.await.unwrap();
        let found = summary.figures[0].value;
        assert_eq!(summary.figures[0].name, "capacity_per_second");
        assert!(found <= 510.0, "{found}: {:?}", summary.steps);
        assert!(summary.steps.len() >= 4 && summary.steps.iter().any(|step| !step.holds), "{:?}", summary.steps);
        if found >= 400.0 { Ok(()) } else { Err(format!("{found}: {:?}", summary.steps)) }
    })
    .await;
}
