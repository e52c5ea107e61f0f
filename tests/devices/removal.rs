//! Removing devices: one, or all others, on every node within five seconds.

use super::code;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{pair, proof, second_device};
use crate::support::wire::next_of;
use sotto_client::Rest;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use std::time::Duration;
use tokio::time::Instant;

/// What the contract gives another node.
const ELSEWHERE: Duration = Duration::from_secs(5);

on_both! {
    async fn all_others_go_on_every_node_within_five_seconds(database) {
        let node = TestNode::start(database).await;
        let other = node.sibling().await;
        let (alice, bob, _) = pair(&node).await;
        let here = second_device(&node, &alice, "here").await;
        let there = second_device(&other, &alice, "there").await;
        let (mut heres, _) = here.socket().await;
        let (mut theres, _) = there.socket().await;
        let (mut own, _) = alice.socket().await;
        there.rest.me().await.unwrap();
        let by_code = proof(&node, &alice, Purpose::DeviceRemoval).await;
        let began = Instant::now();
        alice.rest.remove_other_devices(&by_code).await.unwrap();
        for socket in [&mut heres, &mut theres] {
            assert_eq!(socket.closed_within(ELSEWHERE).await.unwrap(), Some(4503));
        }
        for (device, node) in [(&here, &node), (&there, &other)] {
            while device.at(node).me().await.is_ok() {
                assert!(began.elapsed() < ELSEWHERE, "the token is taken still");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(code(Rest::new(&node.url).unwrap().refresh(&device.tokens.refresh_token).await), ErrorCode::Unauthenticated);
        }
        assert!(began.elapsed() < ELSEWHERE);
        let left = alice.rest.own_devices().await.unwrap();
        assert_eq!(left.iter().map(|one| one.device_id).collect::<Vec<_>>(), [alice.device_id]);
        let keys = bob.rest.claim_keys(alice.user_id, &[]).await.unwrap().devices;
        assert_eq!(keys.iter().map(|one| one.device_id).collect::<Vec<_>>(), [alice.device_id]);
        // The caller's own socket stays.
        assert!(own.closed_within(Duration::from_secs(1)).await.is_err());
        // There is none any more: nothing is used up.
        alice.rest.remove_other_devices(&Reauthentication::default()).await.unwrap();
    }

    async fn one_goes_and_the_others_are_told(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, _) = pair(&node).await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let laptop = second_device(&node, &alice, "laptop").await;
        let (mut tablets, _) = tablet.socket().await;
        let (mut laptops, _) = laptop.socket().await;
        let (mut bobs, _) = bob.socket().await;
        let by_code = proof(&node, &alice, Purpose::DeviceRemoval).await;
        alice.rest.remove_device(tablet.device_id, Some(&by_code)).await.unwrap();
        assert_eq!(tablets.closed_within(ELSEWHERE).await.unwrap(), Some(4503));
        for socket in [&mut laptops, &mut bobs] {
            loop {
                match next_of(socket, "devices_changed").await.event().unwrap().unwrap() {
                    Event::DevicesChanged(changed) if changed.removed == [tablet.device_id] => break,
                    Event::DevicesChanged(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(code(alice.rest.remove_device(tablet.device_id, Some(&by_code)).await), ErrorCode::NotFound);
        assert_eq!(code(tablet.rest.me().await), ErrorCode::Unauthenticated);
        // Oneself: the same as signing out.
        laptop.rest.remove_device(laptop.device_id, None).await.unwrap();
        assert_eq!(code(laptop.rest.me().await), ErrorCode::Unauthenticated);
    }
}
