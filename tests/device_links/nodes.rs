//! Two nodes of one database: a confirmation at the other one is found, and two collectors get one device.

use super::{Newcomer, confirmation};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::register;
use sotto_client::Rest;
use sotto_client::device_link::Collected;
use std::time::{Duration, Instant};

on_both! {
    async fn a_confirmation_at_another_node_is_found_within_a_second(database) {
        let node = TestNode::start(database).await;
        let other = node.sibling().await;
        let alice = register(&node, "alice").await;
        let laptop = Newcomer::at(&other, "laptop").await;
        alice.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap();
        let confirmation = confirmation(&node, &alice, &laptop).await;
        let decide = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            alice.rest.confirm_link(laptop.id(), &confirmation).await.unwrap();
            Instant::now()
        };
        let wait = async { (laptop.collect().await.unwrap(), Instant::now()) };
        let (confirmed, (collected, woken)) = tokio::join!(decide, wait);
        assert!(matches!(collected, Collected::Tokens(_)), "it waits still");
        let after = woken.saturating_duration_since(confirmed);
        assert!(after < Duration::from_millis(1_500), "{after:?}");
    }

    async fn two_collectors_at_two_nodes_get_one_device(database) {
        let node = TestNode::start(database).await;
        let other = node.sibling().await;
        let alice = register(&node, "alice").await;
        for _ in 0..5 {
            let laptop = Newcomer::at(&node, "laptop").await;
            super::take_in(&node, &alice, &laptop).await;
            let there = Rest::new(&other.url).unwrap();
            let request = laptop.request();
            let (one, two) = tokio::join!(laptop.collect(), there.collect_link(laptop.id(), &request));
            let (Ok(Collected::Tokens(one)), Ok(Collected::Tokens(two))) = (one, two) else { panic!("both get them") };
            assert_eq!((one.device_id, &one.refresh_token), (two.device_id, &two.refresh_token));
            let mine = Rest::new(&node.url).unwrap().with_token(&one.access_token);
            assert_eq!(mine.devices(alice.user_id).await.unwrap().devices.len(), 1);
            mine.logout().await.unwrap();
        }
    }
}
