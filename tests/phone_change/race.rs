//! A number that somebody registers while somebody else changes to it.

use crate::identity::{HERE, TRIED, World, device, in_a_world, keys, status};
use crate::support::database::Kind;
use futures::future::join;
use sotto_client::protocol::auth::{ChangePhone, Purpose, RegisterRequest};

in_a_world! {
    of_two_who_want_a_number_one_gets_it(world, config => { config.limits.enabled = false; }) {
        for round in 0..8_u8 {
            let (old, new) = (format!("+1555100000{round}"), format!("+1555200000{round}"));
            let alice = world.register(&old, 10 + round).await;
            let caller = world.caller(&alice).await;
            let (verification_id, code) = world.code(&new, Purpose::PhoneChange).await;
            let (old_id, old_code) = world.code(&old, Purpose::PhoneChange).await;
            let change = ChangePhone {
                verification_id, code, totp: None, backup_code: None, pin: None,
                old_verification_id: Some(old_id), old_code: Some(old_code),
            };
            let (verification_id, code) = world.code(&new, Purpose::Registration).await;
            let request = RegisterRequest { verification_id, code, device: device(), keys: keys(50 + round, 0), totp: None, backup_code: None, pin: None, replace: None };
            let (changed, registered) = join(
                world.identity.change_phone(&caller, change, HERE, world.now),
                world.other.register(request, TRIED, world.now),
            ).await;
            let owner = match (&changed, &registered) {
                (Ok(_), Err(_)) => alice.user_id,
                (Err(_), Ok(tokens)) => tokens.user_id,
                (changed, registered) => panic!("{} {}", changed.is_ok(), registered.is_ok()),
            };
            if changed.is_err() {
                assert_eq!(status(changed).0, 409);
            } else {
                assert_eq!(status(registered).0, 409);
            }
            assert_eq!(world.login(&new, 90 + round, false).await.unwrap().user_id, owner);
        }
    }
}
