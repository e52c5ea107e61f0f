//! The list, names and verification; a fingerprint stands once in an account.

use super::silence::sweeper;
use super::{code, seen};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{info, register, second_device};
use crate::support::wire::next_of;
use sotto_client::protocol::auth::{DeviceInfo, LoginRequest, Purpose};
use sotto_client::protocol::event::Event;
use sotto_client::protocol::keys::Keys;
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::{Binary, DeviceId};
use sotto_client::{DeviceKeys, Rest};
use std::time::Duration;

on_both! {
    async fn the_owner_sees_all_of_his_devices_and_nobody_elses(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "phone").await, register(&node, "bob").await);
        let tablet = second_device(&node, &alice, "tablet").await;
        let devices = alice.rest.own_devices().await.unwrap();
        let names: Vec<_> = devices.iter().map(|one| (one.name.as_str(), one.is_current)).collect();
        assert_eq!(names, [("phone", true), ("tablet", false)]);
        for one in &devices {
            assert_eq!(one.last_address.as_deref(), Some("127.0.0.1"));
            assert_eq!(one.removed_at, one.last_active_at.plus(Duration::from_secs(45 * 86_400)));
            assert_eq!(one.verified, None);
        }
        let key = bob.rest.devices(alice.user_id).await.unwrap().devices.into_iter()
            .find(|one| one.device_id == tablet.device_id).unwrap().identity_key;
        assert_eq!(devices[1].identity_key, key);
        assert_eq!(bob.rest.own_devices().await.unwrap().len(), 1);
        for (device, rest) in [(alice.device_id, &bob.rest), (DeviceId::random(), &alice.rest)] {
            assert_eq!(code(rest.rename_device(device, "mine").await), ErrorCode::NotFound);
            assert_eq!(code(rest.verify_device(device, &key).await), ErrorCode::NotFound);
            assert_eq!(code(rest.remove_device(device, None).await), ErrorCode::NotFound);
        }
        assert_eq!(alice.rest.own_devices().await.unwrap(), devices);
    }

    async fn a_new_name_is_told_to_the_other_devices_and_to_nobody_else(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, _) = crate::support::people::pair(&node).await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let (mut tablets, _) = tablet.socket().await;
        next_of(&mut tablets, "drained").await;
        alice.rest.rename_device(tablet.device_id, "the other one").await.unwrap();
        let Event::DeviceUpdated(updated) = next_of(&mut tablets, "device_updated").await.event().unwrap().unwrap() else {
            panic!("another event");
        };
        assert_eq!((updated.device_id, updated.name.as_str(), updated.verified_at), (tablet.device_id, "the other one", None));
        assert_eq!(seen(&alice.rest, tablet.device_id).await.name, "the other one");
        let events = bob.rest.sync(None).await.unwrap().events;
        assert!(events.iter().all(|event| !matches!(event, Event::DeviceUpdated(_))), "{events:?}");
        // The newest name is what waits.
        alice.rest.rename_device(alice.device_id, "one").await.unwrap();
        alice.rest.rename_device(alice.device_id, "two").await.unwrap();
        alice.rest.rename_device(alice.device_id, "two").await.unwrap();
        let names: Vec<_> = alice.rest.sync(None).await.unwrap().events.into_iter().filter_map(|event| match event {
            Event::DeviceUpdated(updated) if updated.device_id == alice.device_id => Some(updated.name),
            _ => None,
        }).collect();
        assert_eq!(names, ["two"]);
        for wrong in ["", "\u{7}", &"x".repeat(101)] {
            assert_eq!(code(alice.rest.rename_device(tablet.device_id, wrong).await), ErrorCode::ValidationFailed);
        }
    }

    async fn verified_is_what_was_compared(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "phone").await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let key = seen(&tablet.rest, tablet.device_id).await.identity_key;
        let mut other = key.0.clone();
        other[3] ^= 1;
        assert_eq!(code(alice.rest.verify_device(tablet.device_id, &Binary(other)).await), ErrorCode::Conflict);
        // Nobody vouches for himself.
        assert_eq!(code(tablet.rest.verify_device(tablet.device_id, &key).await), ErrorCode::Conflict);
        assert_eq!(seen(&alice.rest, tablet.device_id).await.verified, None);
        alice.rest.verify_device(tablet.device_id, &key).await.unwrap();
        let verified = seen(&tablet.rest, tablet.device_id).await.verified.unwrap();
        assert_eq!(verified.by, alice.device_id);
        let told = tablet.rest.sync(None).await.unwrap().events.into_iter().any(|event| {
            matches!(event, Event::DeviceUpdated(updated) if updated.verified_at == Some(verified.at))
        });
        assert!(told);
        alice.rest.rename_device(tablet.device_id, "x").await.unwrap();
        assert_eq!(seen(&alice.rest, tablet.device_id).await.verified, Some(verified));
    }

    async fn verified_is_lost_when_the_device_registers_anew(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "phone").await;
        let mut tablet = second_device(&node, &alice, "tablet").await;
        let key = seen(&tablet.rest, tablet.device_id).await.identity_key;
        alice.rest.verify_device(tablet.device_id, &key).await.unwrap();
        let fresh = tablet.keys.sign_in_keys(0).unwrap();
        tablet.rest.put_keys(&Keys { signed_prekey: fresh.signed_prekey.clone(), ..Keys::default() }).await.unwrap();
        assert!(seen(&alice.rest, tablet.device_id).await.verified.is_some());
        let anew = Keys { registration_id: Some(9), signed_prekey: fresh.signed_prekey, ..Keys::default() };
        tablet.rest.put_keys(&anew).await.unwrap();
        assert_eq!(seen(&alice.rest, tablet.device_id).await.verified, None);
    }

    async fn the_address_is_written_with_the_contact_once_a_minute(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "phone").await;
        let (other, _store) = sweeper(&node).await;
        let token = &alice.tokens.access_token;
        let (elsewhere, began) = ("203.0.113.9".parse().unwrap(), seen(&alice.rest, alice.device_id).await.last_active_at);
        let at = |seconds: u64| began.plus(Duration::from_secs(seconds));
        other.authenticate_from(token, Some(elsewhere), at(59)).await.unwrap();
        assert_eq!(seen(&alice.rest, alice.device_id).await.last_address.as_deref(), Some("127.0.0.1"));
        other.authenticate_from(token, Some(elsewhere), at(61)).await.unwrap();
        let one = seen(&alice.rest, alice.device_id).await;
        assert_eq!((one.last_address.as_deref(), one.last_active_at), (Some("203.0.113.9"), at(61)));
        // A contact that tells no address, as a socket's, keeps the one that is there.
        other.authenticate(token, at(125)).await.unwrap();
        let one = seen(&alice.rest, alice.device_id).await;
        assert_eq!((one.last_address.as_deref(), one.last_active_at), (Some("203.0.113.9"), at(125)));
    }

    async fn a_fingerprint_stands_once_in_an_account(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "phone").await;
        let marked = DeviceInfo { fingerprint: Some("installation-1".to_owned()), ..info("marked") };
        let rest = Rest::new(&node.url).unwrap();
        let request = async |device: &DeviceInfo, keys: &mut DeviceKeys, phone: &str| {
            let verification_id = rest.verify(phone, Purpose::Login).await.unwrap().verification_id;
            LoginRequest {
                verification_id,
                code: node.code_for(phone),
                device: device.clone(),
                device_proof: Some(keys.proof(verification_id)),
                keys: keys.sign_in_keys(2).unwrap(),
                totp: None,
                backup_code: None,
                pin: None,
            }
        };
        let mut keys = DeviceKeys::generate();
        let first = rest.login(&request(&marked, &mut keys, &alice.phone).await).await.unwrap();
        let twice = request(&marked, &mut DeviceKeys::generate(), &alice.phone).await;
        let error = rest.login(&twice).await.err().unwrap();
        let problem = error.problem().unwrap();
        assert_eq!(problem.code, ErrorCode::Conflict);
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/device/fingerprint"));
        // The device itself comes back with it, and another account may have the same.
        let back = rest.login(&request(&marked, &mut keys, &alice.phone).await).await.unwrap();
        assert_eq!(back.device_id, first.device_id);
        let bob = register(&node, "bob").await;
        rest.login(&request(&marked, &mut DeviceKeys::generate(), &bob.phone).await).await.unwrap();
        // Nothing was used up: with another mark the same code serves.
        rest.login(&LoginRequest { device: info("unmarked"), ..twice }).await.unwrap();
        assert_eq!(alice.rest.own_devices().await.unwrap().len(), 3);
    }

    async fn no_address_where_none_is_wanted(database) {
        let settings = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__KEEP_ADDRESSES", "false")];
        let node = TestNode::with(database, &settings).await;
        let alice = register(&node, "phone").await;
        assert_eq!(seen(&alice.rest, alice.device_id).await.last_address, None);
    }
}
