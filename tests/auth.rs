//! Signing in and out on real nodes: what a restart, a second node and an open socket must see.

use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, pair, register, second_device};
use crate::support::wire::next_of;
use sotto_client::protocol::auth::{LoginRequest, Purpose};
use sotto_client::protocol::event::Event;
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::{Error, Rest};
use std::time::Duration;

/// What the contract gives an ended session at another node.
const ELSEWHERE: Duration = Duration::from_secs(5);

fn code<T>(result: Result<T, Error>) -> ErrorCode {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => error.code().unwrap_or_else(|| panic!("no problem: {error}")),
    }
}

/// The same device signs in again by its proof.
async fn sign_in_again(node: &TestNode, device: &mut Device) -> sotto_client::protocol::auth::Tokens {
    let rest = Rest::new(&node.url).unwrap();
    let verification = rest.verify(&device.phone, Purpose::Login).await.unwrap();
    let request = LoginRequest {
        verification_id: verification.verification_id,
        code: node.code_for(&device.phone),
        device: info("again"),
        device_proof: Some(device.keys.proof(verification.verification_id)),
        keys: device.keys.sign_in_keys(5).unwrap(),
        totp: None,
        backup_code: None,
        pin: None,
    };
    rest.login(&request).await.unwrap()
}

on_both! {
    async fn a_session_outlives_the_node_and_so_do_the_limits(database) {
        let settings = [("SOTTO_AUTH__RESEND_DELAY", "0")];
        let mut node = TestNode::with(database, &settings).await;
        let alice = register(&node, "alice").await;
        let phone = fresh_phone();
        let rest = Rest::new(&node.url).unwrap();
        for _ in 0..3 {
            rest.verify(&phone, Purpose::Registration).await.unwrap();
        }
        assert_eq!(code(rest.verify(&phone, Purpose::Registration).await), ErrorCode::RateLimited);
        node.kill();
        node.restart().await;
        assert_eq!(alice.rest.me().await.unwrap().user.phone, alice.phone);
        assert_eq!(code(rest.verify(&phone, Purpose::Registration).await), ErrorCode::RateLimited);
        rest.refresh(&alice.tokens.refresh_token).await.unwrap();
    }

    async fn signing_out_closes_the_socket_and_tells_contacts(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, _) = pair(&node).await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let (mut bobs, _) = bob.socket().await;
        let (mut tablets, _) = tablet.socket().await;
        next_of(&mut bobs, "drained").await;
        next_of(&mut tablets, "drained").await;
        tablet.rest.logout().await.unwrap();
        assert_eq!(tablets.closed_within(ELSEWHERE).await.unwrap(), Some(4503));
        let changed = loop {
            match next_of(&mut bobs, "devices_changed").await.event().unwrap().unwrap() {
                Event::DevicesChanged(changed) if !changed.removed.is_empty() => break changed,
                Event::DevicesChanged(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((changed.user_id, changed.removed), (alice.user_id, vec![tablet.device_id]));
        assert_eq!(code(tablet.rest.me().await), ErrorCode::Unauthenticated);
        assert_eq!(code(Rest::new(&node.url).unwrap().refresh(&tablet.tokens.refresh_token).await), ErrorCode::Unauthenticated);
        let devices = bob.rest.devices(alice.user_id).await.unwrap().devices;
        assert_eq!(devices.iter().map(|device| device.device_id).collect::<Vec<_>>(), [alice.device_id]);
    }

    async fn a_stolen_refresh_token_ends_the_family_on_every_node(database) {
        let mut node = TestNode::start(database).await;
        node.expect_log("a refresh token was used twice");
        let other = node.sibling().await;
        let alice = register(&node, "alice").await;
        let rest = Rest::new(&node.url).unwrap();
        let next = rest.refresh(&alice.tokens.refresh_token).await.unwrap();
        let there = Rest::new(&other.url).unwrap().with_token(&next.access_token);
        there.me().await.unwrap();
        let (mut socket, _) = alice.socket().await;
        // The new token was used, so whoever comes with the old one is not the device.
        assert_eq!(code(rest.refresh(&alice.tokens.refresh_token).await), ErrorCode::Unauthenticated);
        let here = Rest::new(&node.url).unwrap().with_token(&next.access_token);
        assert_eq!(code(here.me().await), ErrorCode::Unauthenticated);
        assert_eq!(socket.closed_within(ELSEWHERE).await.unwrap(), Some(4503));
        let until = tokio::time::Instant::now() + ELSEWHERE;
        while there.me().await.is_ok() {
            assert!(tokio::time::Instant::now() < until, "the other node still takes the token");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn a_device_that_comes_back_keeps_its_socket_afterwards(database) {
        let node = TestNode::start(database).await;
        let other = node.sibling().await;
        let mut alice = register(&node, "alice").await;
        let (mut old, _) = alice.socket().await;
        let tokens = sign_in_again(&node, &mut alice).await;
        assert_eq!(tokens.device_id, alice.device_id);
        assert_eq!(old.closed_within(ELSEWHERE).await.unwrap(), Some(4503));
        assert_eq!(code(alice.rest.me().await), ErrorCode::Unauthenticated);
        // Its new socket at the other node must not fall to the end of the old family, which is heard of there later.
        let back = Device { tokens, url: other.url.clone(), ..alice };
        let (mut socket, _) = back.socket().await;
        assert!(socket.closed_within(Duration::from_secs(3)).await.is_err());
    }

    async fn neither_numbers_nor_codes_nor_tokens_are_logged(database) {
        let node = TestNode::with(database, &[("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_LOG__LEVEL", "trace")]).await;
        let alice = register(&node, "alice").await;
        alice.rest.lookup(&[fresh_phone(), alice.phone.clone()]).await.unwrap();
        let rest = Rest::new(&node.url).unwrap();
        let _ = rest.refresh("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
        rest.refresh(&alice.tokens.refresh_token).await.unwrap();
        let log = node.log();
        assert!(log.len() > 100, "trace must log something");
        let sent = node.code_for(&alice.phone);
        for secret in [&alice.phone, &alice.tokens.access_token, &alice.tokens.refresh_token] {
            assert!(!log.contains(secret.as_str()), "a secret is in the log");
        }
        assert!(!log.contains(&format!("\"{sent}\"")) && !log.contains(&format!("code={sent}")));
    }
}
