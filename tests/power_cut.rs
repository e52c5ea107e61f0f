//! Power cuts: a database and a node on a disk whose power goes at random moments, under load.
//!
//! `cargo test --test power_cut -- --copies 10 --seed 3 --database both` cuts ten images from each database's disk while
//! many devices send, acknowledge, read and register. What had been answered before a cut began must be in its image:
//! the image is mounted, the database recovers, a node starts on it, and every promise is looked up. The head of
//! `support/disk/device.rs` says why an image is what a power cut leaves.
//!
//! `--spoil` takes a promise away, and the run must then find a loss, or it proves nothing: `drive` answers flushes and
//! does not do them, `fsync` and `commit` switch PostgreSQL's setting of that name (`synchronous_commit`) off.

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

#[path = "power_cut/arguments.rs"]
mod arguments;
#[path = "power_cut/check.rs"]
mod check;
#[path = "power_cut/load.rs"]
mod load;
#[allow(unused_imports, unused_macros, reason = "the suite uses the rest")]
mod support;

use arguments::{Arguments, Spoil, Wanted};
use check::Findings;
use load::{Facts, World};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::database::{self, Kind};
use support::disk::{Cut, Disk, Image, granted};
use support::node::TestNode;
use support::postgres::PostgresServer;
use tempfile::TempDir;

/// What fits: a cluster of PostgreSQL with its log, and what a run sends.
const MEBIBYTES: u64 = 768;

/// One image and what had been promised before it was cut.
struct Copy {
    cut: Cut,
    at: Duration,
    image: Image,
    promised: Facts,
}

/// A folder for the files that are not on the disk: codes that phones would have got.
fn phones() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("sotto-power").tempdir().expect("a folder"))
}

/// A node whose files are all on the disk, but for the phones' outbox.
async fn node(kind: Kind, disk: &Disk, url: String, phones: &Arc<TempDir>) -> TestNode {
    let data = disk.path().join("node").display().to_string();
    let outbox = phones.path().join("outbox.jsonl").display().to_string();
    let settings = [
        ("SOTTO_LIMITS__ENABLED", "false"),
        ("SOTTO_AUTH__ACCESS_TTL", "86400"),
        ("SOTTO_DATA__DIR", &data),
        ("SOTTO_SMS__OUTBOX", &outbox),
    ];
    TestNode::on(kind, Arc::clone(phones), url, &settings, 0).await
}

fn sqlite_url(disk: &Disk) -> String {
    format!("sqlite:{}", disk.path().join("sotto.db").display())
}

/// Checkpoints come often, so that cuts fall into them too.
async fn settle(server: &PostgresServer, spoil: Option<Spoil>) {
    let client = database::connect(&server.database("sotto").await).await;
    let mut settings = vec!["checkpoint_timeout = '30s'", "max_wal_size = '48MB'", "min_wal_size = '32MB'"];
    match spoil {
        Some(Spoil::Fsync) => settings.push("fsync = off"),
        Some(Spoil::Commit) => settings.push("synchronous_commit = off"),
        Some(Spoil::Drive) | None => {}
    }
    for setting in settings {
        client.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.expect("a superuser");
    }
    client.batch_execute("SELECT pg_reload_conf()").await.expect("a superuser");
}

/// How the cache of the drive ends at the cut of this number.
fn kind_of_cut(number: usize, dice: &mut load::Dice) -> Cut {
    match number % 4 {
        0 => Cut::Torn { seed: dice.roll(), one_in: 2 },
        1 => Cut::Flushed,
        2 => Cut::Torn { seed: dice.roll(), one_in: 8 },
        _ => Cut::Written,
    }
}

/// The load on one disk, and the images that were cut from it.
async fn cut_under_load(kind: Kind, arguments: &Arguments, phones: &Arc<TempDir>) -> (World, Vec<Copy>) {
    let mut dice = load::Dice(arguments.seed);
    let disk = Disk::with_power(MEBIBYTES);
    let mut server = None;
    let url = match kind {
        Kind::Sqlite => sqlite_url(&disk),
        Kind::Postgres => {
            let running = PostgresServer::on("127.0.0.1", Some(disk.path())).await;
            settle(&running, arguments.spoil).await;
            let url = format!("postgres://postgres@127.0.0.1:{}/sotto", running.port);
            server = Some(running);
            // What initdb would have synced.
            support::process::run("sync", &["--file-system", &disk.path().display().to_string()]).expect("a sync");
            url
        }
    };
    let mut node = node(kind, &disk, url, phones).await;
    let world = World::make(&node, arguments.pairs).await;
    if arguments.spoil == Some(Spoil::Drive) {
        disk.device().lie();
    }
    let load = world.start(&node, dice.roll());
    let begun = Instant::now();
    let mut copies = Vec::new();
    for number in 0..arguments.copies {
        tokio::time::sleep(Duration::from_millis(dice.within(150, 900))).await;
        let promised = load.facts();
        let cut = kind_of_cut(number, &mut dice);
        copies.push(Copy { cut, at: begun.elapsed(), image: disk.device().cut(cut), promised });
    }
    load.end().await;
    println!(
        "{kind:?}: {} sends answered in {:.1} s, {} flushes, {} images cut",
        load.facts().sent.len(),
        begun.elapsed().as_secs_f64(),
        disk.device().flushes(),
        copies.len()
    );
    node.kill();
    drop(server);
    (world, copies)
}

/// Switches one image on and looks for everything that was promised.
async fn look_at(kind: Kind, image: Image, promised: Facts, world: Arc<World>, phones: Arc<TempDir>) -> Findings {
    let begun = Instant::now();
    let disk = match Disk::from_image(image) {
        Ok(disk) => disk,
        Err(error) => return Findings::broken(format!("the file system is gone: {error}")),
    };
    let (server, url) = match kind {
        Kind::Sqlite => (None, sqlite_url(&disk)),
        Kind::Postgres => {
            let server = PostgresServer::resume(disk.path()).await;
            let url = format!("postgres://postgres@127.0.0.1:{}/sotto", server.port);
            (Some(server), url)
        }
    };
    let node = node(kind, &disk, url, &phones).await;
    let mut findings = check::check(&node, &world, &promised).await;
    findings.recovery = begun.elapsed();
    drop(node);
    drop(server);
    findings
}

async fn run(kind: Kind, arguments: &Arguments) -> usize {
    let phones = phones();
    let (world, copies) = cut_under_load(kind, arguments, &phones).await;
    let world = Arc::new(world);
    let mut faults = 0;
    println!("\n{}", check::HEADER);
    for (number, copy) in copies.into_iter().enumerate() {
        let (sent, counts) = (copy.promised.sent.len(), copy.promised.counts());
        let looked =
            tokio::spawn(look_at(kind, copy.image, copy.promised, Arc::clone(&world), Arc::clone(&phones))).await;
        let findings =
            looked.unwrap_or_else(|_| Findings::broken("what was left does not start; see above".to_owned()));
        println!("{}", findings.row(kind, number + 1, copy.cut, copy.at, &counts));
        for text in findings.texts().take(5) {
            println!("    {text}");
        }
        faults += findings.count();
        if sent == 0 {
            println!("    nothing had been sent before this cut: it proves nothing");
            faults += 1;
        }
    }
    println!();
    faults
}

/// Two cuts with a promise taken away: a run that does not find the loss would find none at all.
async fn can_fail(kind: Kind, seed: u64) -> bool {
    let spoil = match kind {
        Kind::Sqlite => Spoil::Drive,
        Kind::Postgres => Spoil::Commit,
    };
    let arguments = Arguments { copies: 2, seed, databases: vec![kind], pairs: 4, spoil: Some(spoil) };
    println!("first with {spoil:?} spoilt: what is promised must be found broken");
    let found = run(kind, &arguments).await;
    println!("{found} broken promises found with {spoil:?} spoilt on {kind:?}\n");
    found > 0
}

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Wanted::Run(arguments) => arguments,
        Wanted::List => {
            println!("power_cut: test");
            return ExitCode::SUCCESS;
        }
        Wanted::Nothing => return ExitCode::SUCCESS,
        Wanted::Mistake(text) => {
            eprintln!("power_cut: {text}");
            return ExitCode::from(2);
        }
    };
    if !granted("power_cut") {
        return ExitCode::SUCCESS;
    }
    let seed = arguments.seed;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let faults = runtime.expect("a runtime").block_on(async {
        let mut faults = 0;
        for kind in arguments.databases.clone() {
            if arguments.spoil.is_none() {
                faults += usize::from(!can_fail(kind, seed).await);
            }
            faults += run(kind, &arguments).await;
        }
        faults
    });
    println!("power_cut: --seed {seed}: {faults} promises broken");
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
