//! One run: nodes with a bug or without, users, the load, the fault, and the ledger at the end.

use super::cases::{Case, Fault, World};
use super::support::database::{self, Kind};
use super::support::node::TestNode;
use sotto_harness::{Account, Driver, Plan, Report, read_accounts};
use std::process::Command;
use std::time::{Duration, Instant};

/// The name of no bug.
pub const NONE: &str = "none";
/// For everything to be answered and read at the end.
const SETTLED: Duration = Duration::from_secs(40);

pub struct Outcome {
    pub report: Report,
    pub took: Duration,
}

/// Runs a case with this bug.
pub async fn run(case: &Case, bug: &str, seed: u64) -> Outcome {
    let begun = Instant::now();
    let mut nodes = nodes(case, bug).await;
    let accounts = accounts(&nodes[0], case.users);
    let mut plan = Plan::new(nodes.iter().map(|node| node.url.clone()).collect(), accounts, seed);
    (plan.rate, plan.mix) = (case.rate, (case.mix)());
    prepare(case.fault, &nodes[0]).await;
    let driver = Driver::start(plan).await.expect("a load");
    strike(case.fault, &driver, &mut nodes).await;
    let report = driver.settle(SETTLED).await;
    Outcome { report, took: begun.elapsed() }
}

async fn nodes(case: &Case, bug: &str) -> Vec<TestNode> {
    let kind = if case.world == World::Sqlite { Kind::Sqlite } else { Kind::Postgres };
    let mut settings =
        vec![("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__ACCESS_TTL", "86400"), ("PLANTED_BUG", bug)];
    if case.fault == Fault::SlowCommits {
        // While one of a node's commits sleeps, others overtake it, however few cores there are.
        settings.push(("SOTTO_STORE__JOURNAL_CONNECTIONS", "4"));
    }
    let mut nodes = vec![TestNode::with(kind, &settings).await];
    if case.world == World::Two {
        nodes.push(nodes[0].sibling().await);
    }
    for node in &mut nodes {
        // What a server with a bug says of it is nobody's surprise.
        node.expect_log("");
    }
    nodes
}

fn accounts(node: &TestNode, (count, group): (u32, u32)) -> Vec<Account> {
    let file = node.folder.path().join("users.jsonl");
    let group = group.to_string();
    let shape = if group == "2" { vec!["--pairs"] } else { vec!["--group", &group] };
    let made = Command::new(env!("CARGO_BIN_EXE_sotto"))
        .args(["user", "seed", "--count", &count.to_string(), "--out"])
        .arg(&file)
        .args(shape)
        .env_clear()
        .env("SOTTO_DATA__DIR", node.folder.path())
        .env("SOTTO_STORE__URL", &node.store_url)
        .output()
        .expect("sotto user seed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    read_accounts(&std::fs::read_to_string(file).expect("a file of users")).expect("users")
}

async fn prepare(fault: Fault, node: &TestNode) {
    let text = match fault {
        Fault::SlowCommits => {
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF random() < 0.3 THEN PERFORM pg_sleep(1.4); END IF; RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON wakes DEFERRABLE INITIALLY DEFERRED \
               FOR EACH ROW EXECUTE FUNCTION hold()"
        }
        Fault::NoIndex => "ALTER TABLE messages DROP CONSTRAINT messages_message_id_conversation_id_key",
        _ => return,
    };
    database::connect(&node.store_url).await.batch_execute(text).await.expect("the database does as it is told");
}

async fn strike(fault: Fault, driver: &Driver, nodes: &mut [TestNode]) {
    let wait = |milliseconds| tokio::time::sleep(Duration::from_millis(milliseconds));
    match fault {
        Fault::None(seconds) => wait(seconds * 1000).await,
        Fault::Kill(times) => {
            for time in 0..times {
                wait(900 + u64::from(time) * 137).await;
                nodes[0].kill();
                nodes[0].restart().await;
            }
            wait(800).await;
        }
        Fault::SlowCommits => wait(6000).await,
        Fault::NoIndex => wait(4000).await,
        Fault::SignOut => {
            wait(1500).await;
            driver.revoke_one().await.expect("a device is signed out");
            wait(500).await;
        }
        Fault::Removals(times) => {
            wait(1000).await;
            for _ in 0..times {
                driver.remove_one().await.expect("a member is taken out");
                wait(150).await;
            }
            wait(1000).await;
        }
    }
}
