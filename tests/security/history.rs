//! The history of sign-ins: a flood of refused tries hides no sign-in, and leaves few entries that count all of them.

use crate::second_factor::{login, request};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, register};
use futures::StreamExt as _;
use sotto_client::Rest;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::logins::Login;
use std::collections::BTreeSet;
use std::time::Duration;

const NO_LIMITS: (&str, &str) = ("SOTTO_LIMITS__ENABLED", "false");

async fn history(device: &Device) -> Vec<Login> {
    device.rest.logins(None, 200).await.unwrap().items
}

/// Tries that refused entries stand for.
fn refused(entries: &[Login]) -> i64 {
    entries.iter().filter(|entry| entry.outcome != "signed_in").map(|entry| entry.tries.unwrap_or(1)).sum()
}

/// The history as soon as it counts so many refused tries.
async fn history_of(device: &Device, tries: i64) -> Vec<Login> {
    loop {
        let entries = history(device).await;
        if refused(&entries) >= tries {
            return entries;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

on_both! {
    async fn a_flood_leaves_few_entries_and_hides_no_sign_in(database) {
        let node = TestNode::with(database, &[NO_LIMITS]).await;
        let alice = register(&node, "alice").await;
        let real = request(&node, &alice.phone, Purpose::Login).await;
        let mut wrong = request(&node, &alice.phone, Purpose::Login).await;
        wrong.code = "x00000".to_owned();
        let rest = Rest::new(&node.url).unwrap();
        let flood = futures::stream::iter(0..600).for_each_concurrent(32, |_| async {
            rest.login(&wrong).await.map(|_| ()).unwrap_err();
        });
        let (_, tokens) = tokio::join!(flood, login(&node, &real));
        let tokens = tokens.unwrap();
        // It was written with what it made, and nobody has to wait for it.
        let entries = history(&alice).await;
        assert!(entries.iter().any(|entry| entry.device_id == Some(tokens.device_id)), "{entries:?}");
        let entries = history_of(&alice, 600).await;
        assert_eq!((entries.len(), refused(&entries)), (2 + 5 + 1, 600), "{entries:?}");
        let summary = entries.iter().find(|entry| entry.tries.is_some()).unwrap();
        assert_eq!((summary.method.as_str(), summary.outcome.as_str(), summary.tries), ("several", "wrong_code", Some(595)));
        assert!(summary.last_at >= Some(summary.at) && summary.address.is_none() && summary.agent.is_none());
    }

    async fn many_verifications_of_an_account_leave_few_entries_too(database) {
        let node = TestNode::with(database, &[NO_LIMITS]).await;
        let other = node.sibling().await;
        let alice = register(&node, "alice").await;
        for round in 1..=2 {
            for number in 0..15 {
                let mut wrong = request(&node, &alice.phone, Purpose::Login).await;
                wrong.code = "x00000".to_owned();
                login(if number % 2 == 0 { &node } else { &other }, &wrong).await.err().unwrap();
            }
            let entries = history_of(&alice, round * 15).await;
            let own = entries.iter().filter(|entry| entry.outcome == "wrong_code" && entry.tries.is_none()).count();
            // The bound is one of a day, and midnight may be in between.
            let days: BTreeSet<i64> = entries.iter().map(|entry| entry.at.as_seconds().div_euclid(86_400)).collect();
            assert!(own <= 20 * days.len(), "{entries:?}");
            assert_eq!(refused(&entries), round * 15);
        }
    }

    async fn a_sign_in_is_in_the_history_even_if_the_server_dies(database) {
        let mut node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let tokens = login(&node, &request(&node, &alice.phone, Purpose::Login).await).await.unwrap();
        node.kill();
        node.restart().await;
        let entries = history(&alice).await;
        let told: Vec<_> = entries.iter().map(|entry| (entry.outcome.as_str(), entry.device_id)).collect();
        assert_eq!(told, [("signed_in", Some(tokens.device_id)), ("signed_in", Some(alice.device_id))]);
    }
}
