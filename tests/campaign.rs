//! The crash campaign: the server is killed in the middle of a load again and again, and nothing that it acknowledged
//! is lost, stored twice, left out or reordered.
//!
//! `SOTTO_TEST_KILLS` says how many kills (20), `SOTTO_TEST_SEED` repeats the choices of an earlier run: who sends what
//! to whom by which way, who is away. When exactly a kill hits is the machine's.

use std::time::Duration;

use sotto_harness::{Driver, Plan, read_accounts};

use crate::support::node::TestNode;
use crate::support::on_both;
use crate::verify::seeded;

#[allow(clippy::disallowed_methods, reason = "how long a campaign is to be")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

on_both! {
    async fn kills_in_the_middle_of_a_load_lose_nothing(database) {
        let wanted = setting("SOTTO_TEST_KILLS").unwrap_or(20);
        let seed = setting("SOTTO_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 17);
        println!("campaign on {database:?}: {wanted} kills, SOTTO_TEST_SEED={seed}");
        let mut node = TestNode::start(database).await;
        let users = seeded(&node, &["--count", "12", "--group", "4"]).await;
        let accounts = read_accounts(&std::fs::read_to_string(users).unwrap()).unwrap();
        let mut plan = Plan::new(vec![node.url.clone()], accounts, seed);
        plan.rate = 400.0;
        plan.mix.longest = Duration::from_secs(2);
        let driver = Driver::start(plan).await.expect("a node");
        let (mut kills, mut rounds) = (0, 0);
        while kills < wanted {
            rounds += 1;
            assert!(rounds <= wanted * 2 + 10, "sends are hardly ever under way: {kills} kills counted, seed {seed}");
            let before = driver.mark();
            driver.answered_after(&before, Duration::from_secs(20)).await.expect("sends are answered again");
            tokio::time::sleep(Duration::from_millis(100 + seed % 97 + rounds * 37 % 200)).await;
            let mark = driver.mark();
            node.kill();
            let log = node.log();
            assert!(!log.contains("panicked") && !log.contains(" ERROR "), "killed in round {rounds}:\n{log}");
            node.restart().await;
            driver.answered_after(&mark, Duration::from_secs(20)).await.expect("sends are answered again");
            // One counts that left sends without an answer.
            kills += u64::from(driver.felt_since(&mark).unknown > 0);
        }
        let report = driver.settle(Duration::from_secs(90)).await;
        println!("{database:?}: {kills} kills of {rounds}, {:?}, {:?}", report.figures, report.findings);
        assert!(report.is_clean(), "seed {seed} on {database:?}: {:?} {:?}", report.findings, report.incomplete);
        assert!(report.figures.acknowledged >= wanted * 20, "there was a load: {:?}", report.figures);
    }
}
