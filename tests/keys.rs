//! The key directory on two nodes of one database.

use crate::support::database::Kind;
use crate::support::lock::Held;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{register, second_device};
use sotto_client::Error;
use sotto_client::protocol::keys::{Keys, OneTimeKey};
use sotto_client::protocol::{DeviceId, ErrorCode};
use std::collections::HashSet;

on_both! {
    async fn two_nodes_never_hand_out_the_same_key(database) {
        let node = TestNode::start(database).await;
        let other = node.sibling().await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let (here, there) = (alice.at(&node), alice.at(&other));
        let claims = futures::future::join_all(
            (0..30).map(|turn| if turn % 2 == 0 { &here } else { &there }.claim_keys(bob.user_id, &[])),
        );
        let mut seen = HashSet::new();
        let mut empty = 0;
        for claimed in claims.await {
            let bundle = claimed.unwrap().devices.remove(0);
            assert!(bundle.signed_prekey.is_some());
            match bundle.one_time_prekey {
                Some(key) => assert!(seen.insert(key.key_id), "key {} was handed out twice", key.key_id),
                None => empty += 1,
            }
        }
        assert_eq!((seen.len(), empty), (20, 10));
        assert_eq!(bob.rest.key_count().await.unwrap().one_time_prekeys, 0);
    }

    async fn a_bundle_for_every_device_but_the_calling_one(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let tablet = second_device(&node, &bob, "tablet").await;
        let ids = |devices: &[sotto_client::protocol::keys::Bundle]| -> HashSet<DeviceId> {
            devices.iter().map(|device| device.device_id).collect()
        };
        let all = alice.rest.claim_keys(bob.user_id, &[]).await.unwrap().devices;
        assert_eq!(ids(&all), HashSet::from([bob.device_id, tablet.device_id]));
        let one = alice.rest.claim_keys(bob.user_id, &[tablet.device_id]).await.unwrap().devices;
        assert_eq!(ids(&one), HashSet::from([tablet.device_id]));
        let own = bob.rest.devices(bob.user_id).await.unwrap().devices;
        assert_eq!(ids(&own), HashSet::from([tablet.device_id]));
        assert!(own[0].signed_prekey.is_none() && own[0].one_time_prekey.is_none());
        assert_eq!(tablet.rest.key_count().await.unwrap().one_time_prekeys, 18);
    }
}

/// The device is there when it is looked at, and gone when the keys are written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_device_that_is_just_being_removed_are_refused() {
    let node = TestNode::start(Kind::Postgres).await;
    let bob = register(&node, "bob").await;
    // Its token has been used before: nothing else of the device is written now.
    bob.rest.key_count().await.unwrap();
    let removal = Held::by(&node, &format!("DELETE FROM devices WHERE id = '{}'", bob.device_id)).await;
    let rest = bob.at(&node);
    let key = OneTimeKey { key_id: 5000, public_key: vec![9; 32].into() };
    let upload = Keys { one_time_prekeys: Some(vec![key]), ..Keys::default() };
    let uploading = tokio::spawn(async move { rest.put_keys(&upload).await });
    removal.blocks(1).await;
    removal.release().await;
    let refused = uploading.await.unwrap();
    assert!(
        matches!(&refused, Err(Error::Problem(problem)) if problem.code == ErrorCode::Unauthenticated),
        "{refused:?}"
    );
}
