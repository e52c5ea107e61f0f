//! One leg: servers start, a load runs, faults come one after the other, the ledger is closed.

use super::people::accounts;
use super::plan::{Fault, Kind, Leg, Scene};
use super::probe::Probe;
use super::world::{HARD_LIMIT, Means, World};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use sotto_client::protocol::Timestamp;
use sotto_harness::{Driver, Felt, Plan, Revocation};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What one fault did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub kind: Kind,
    pub text: String,
    /// When it began, as logs have it.
    pub at: Timestamp,
    /// Why it was not done.
    pub skipped: Option<String>,
    /// What clients of the load felt, by name.
    pub felt: BTreeMap<String, u64>,
    /// From its end until every node answered a send, and the load was answered; none: not within the limit.
    pub again_ms: Option<u64>,
    /// From its end until every node said that it is ready.
    pub ready_ms: Option<u64>,
    /// The longest that a client waited who may ask any node, from its beginning on.
    pub pause_ms: u64,
    /// If it took long until every node answered: why the last send that failed did.
    pub trouble: Option<String>,
    /// What should not have happened.
    pub wrong: Vec<String>,
}

/// What a leg showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Result {
    pub number: usize,
    pub scene: Scene,
    pub seed: u64,
    pub outcomes: Vec<Outcome>,
    /// The ledger at the end: how often each promise was broken.
    pub ledger: BTreeMap<String, u64>,
    pub sent: u64,
    pub received: u64,
    pub seconds: f64,
    /// What should not have happened and belongs to no single fault.
    pub wrong: Vec<String>,
}

impl Result {
    /// Whether everything that was promised was kept.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty()
            && self.ledger.values().all(|count| *count == 0)
            && self.outcomes.iter().all(|outcome| outcome.wrong.is_empty())
    }
}

/// Messages per second of the whole load.
const RATE: f64 = 60.0;
/// Above this it is told why.
const LATE: Duration = Duration::from_secs(1);
/// How long the load runs as fast as it is answered before something is killed.
const FULL_SPEED: Duration = Duration::from_millis(400);
/// How long it may take after the last fault until everything has arrived.
const SETTLING: Duration = Duration::from_secs(60);

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn by_name(felt: &Felt) -> BTreeMap<String, u64> {
    let counts = [
        ("unknown", felt.unknown),
        ("unavailable", felt.unavailable),
        ("lost", felt.lost),
        ("unreachable", felt.unreachable),
        ("silent", felt.silent),
    ];
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Runs a leg to its end. What could tell why something broke is left in `folder`.
pub async fn run(leg: &Leg, means: &Means, folder: &Path) -> Result {
    let begun = Instant::now();
    std::fs::create_dir_all(folder).expect("a folder for evidence");
    let mut world = World::start(leg, means, folder).await;
    let entrances = world.entrances();
    let people = accounts(&world.nodes()[0]).await;
    let mut probes = Vec::new();
    for home in 0..entrances.len() {
        probes.push(Probe::start(&world.nodes()[0], &entrances, home).await);
    }
    let mut plan = Plan::new(world.urls(), people, leg.seed);
    plan.rate = RATE;
    let driver = Driver::start(plan).await.expect("the load begins before the faults do");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut outcomes = Vec::new();
    for fault in &leg.faults {
        let outcome = match means.refuse(fault.kind) {
            Some(reason) => Outcome {
                kind: fault.kind,
                text: fault.text(),
                at: Timestamp::now(),
                skipped: Some(reason),
                felt: BTreeMap::new(),
                again_ms: None,
                ready_ms: None,
                pause_ms: 0,
                trouble: None,
                wrong: Vec::new(),
            },
            None => endure(fault, &mut world, &driver, &probes).await,
        };
        tell(&outcome);
        outcomes.push(outcome);
        tokio::time::sleep(fault.calm).await;
    }
    let mut wrong = world.read_logs();
    if leg.scene != Scene::Solo {
        match driver.revoke_one().await {
            Ok(Revocation::Ended) => {}
            Ok(Revocation::Alive) => wrong.push("a session that was ended is alive".to_owned()),
            Ok(Revocation::Unwitnessed) => wrong.push("no node said whether an ended session is alive".to_owned()),
            Err(error) => wrong.push(format!("nobody could be signed out: {error}")),
        }
    }
    drop(probes);
    let report = driver.settle(SETTLING).await;
    wrong.extend(world.read_logs());
    wrong.extend(report.incomplete.iter().cloned());
    let mut ledger = BTreeMap::new();
    for (promise, count, examples) in report.findings.iter() {
        ledger.insert(promise.name().to_owned(), count);
        wrong.extend(examples.iter().map(|example| format!("{}: {example}", promise.name())));
    }
    let result = Result {
        number: leg.number,
        scene: leg.scene,
        seed: leg.seed,
        outcomes,
        ledger,
        sent: report.view.answered,
        received: report.view.received,
        seconds: begun.elapsed().as_secs_f64(),
        wrong,
    };
    if result.is_clean() {
        std::fs::remove_dir_all(folder).expect("the evidence of nothing");
        return result;
    }
    let keep = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("a file of evidence");
    keep("postgres.log", world.database_log());
    keep("leg.json", serde_json::to_string_pretty(&result).expect("JSON"));
    keep("ledger.json", serde_json::to_string_pretty(&report).expect("JSON"));
    result
}

/// The same sentence once, with how often it was said.
fn told_once(said: Vec<String>) -> Vec<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in said {
        *counts.entry(line).or_default() += 1;
    }
    counts.into_iter().map(|(line, count)| if count > 1 { format!("{line} ({count} times)") } else { line }).collect()
}

async fn endure(fault: &Fault, world: &mut World, driver: &Driver, probes: &[Probe]) -> Outcome {
    let is_kill = matches!(fault.kind, Kind::NodeKill | Kind::PostgresKill | Kind::SoloKill);
    let is_series = matches!(fault.kind, Kind::NodeKills | Kind::SoloKills);
    if is_kill || is_series {
        // As much as possible is to be under way when it hits.
        driver.set_rate(0.0);
        tokio::time::sleep(FULL_SPEED).await;
    }
    let (at, begun, before) = (Timestamp::now(), Instant::now(), driver.mark());
    let strike = world.strike(fault, &probes[0]);
    let calm = async {
        if is_kill {
            tokio::time::sleep(Duration::from_millis(100)).await;
            driver.set_rate(RATE);
        }
    };
    let (mut wrong, ()) = tokio::join!(strike, calm);
    driver.set_rate(RATE);
    let (ended, after) = (Instant::now(), driver.mark());
    let entrances = world.entrances();
    let nodes = join_all(probes.iter().zip(&entrances).map(|(probe, url)| probe.answered_by(url, HARD_LIMIT)));
    let (nodes, load, ready) =
        tokio::join!(nodes, driver.answered_after(&after, HARD_LIMIT), readiness(&entrances, ended));
    for (index, time) in nodes.iter().enumerate() {
        if time.is_none() {
            let trouble = probes[index].trouble();
            wrong.push(format!("node {index} answers no send {HARD_LIMIT:?} after the end: {trouble}"));
        }
    }
    if load.is_none() {
        wrong.push(format!("no send of the load is answered {HARD_LIMIT:?} after the end"));
    }
    if ready.is_none() {
        wrong.push(format!("not every node is ready {HARD_LIMIT:?} after the end"));
    }
    // A client that waits for an answer which does not come notices only after its patience.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let again =
        nodes.iter().copied().chain([load]).try_fold(Duration::ZERO, |all, time| time.map(|time| all.max(time)));
    let is_late = again.is_none_or(|time| time > LATE);
    let slowest = nodes.iter().enumerate().max_by_key(|(_, time)| time.unwrap_or(HARD_LIMIT));
    let trouble = slowest.filter(|_| is_late).map(|(index, _)| probes[index].trouble());
    let is_full = matches!(fault.kind, Kind::PostgresFull | Kind::SoloFull);
    // That a disk is full somebody must read.
    wrong.extend(world.read_logs().into_iter().filter(|line| !is_full || line.contains("panicked")));
    Outcome {
        kind: fault.kind,
        text: fault.text(),
        at,
        skipped: None,
        felt: by_name(&driver.felt_since(&before)),
        again_ms: again.map(milliseconds),
        ready_ms: ready.map(milliseconds),
        pause_ms: milliseconds(probes.iter().map(|probe| probe.pause_since(begun)).max().unwrap_or_default()),
        trouble,
        wrong: told_once(wrong),
    }
}

/// When all nodes say that they are ready.
async fn readiness(urls: &[String], since: Instant) -> Option<Duration> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build().expect("a client");
    while since.elapsed() < HARD_LIMIT {
        let answers = join_all(urls.iter().map(|url| client.get(format!("{url}/readyz")).send())).await;
        if answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status().is_success())) {
            return Some(since.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

fn tell(outcome: &Outcome) {
    let felt: Vec<String> = outcome.felt.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let felt = if felt.is_empty() { "felt by nobody".to_owned() } else { felt.join(", ") };
    match &outcome.skipped {
        Some(reason) => println!("    {}: SKIPPED: {reason}", outcome.text),
        None => println!(
            "    {} {}: again after {} ms, ready after {} ms, pause {} ms; {felt}",
            outcome.at,
            outcome.text,
            outcome.again_ms.map_or("?".to_owned(), |time| time.to_string()),
            outcome.ready_ms.map_or("?".to_owned(), |time| time.to_string()),
            outcome.pause_ms
        ),
    }
    if let Some(trouble) = &outcome.trouble {
        println!("      late: {trouble}");
    }
    for line in &outcome.wrong {
        println!("      WRONG: {line}");
    }
}
