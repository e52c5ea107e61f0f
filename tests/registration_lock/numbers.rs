//! Numbers that are kept, and given away: below HTTP, where days pass.

use super::{DAY, OTHER_PIN, PIN};
use crate::identity::{
    CONFLICT, HERE, LIMITED, REJECTED, TRIED, UNAUTHENTICATED, World, device, in_a_world, keys, status,
};
use crate::support::database::Kind;
use futures::future::join;
use sotto::error::ApiError;
use sotto_client::protocol::auth::{LoginRequest, Purpose, RegisterRequest, Tokens};
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::registration_lock::SetRegistrationLock;
use std::time::Duration;

impl World {
    async fn lock(&self, tokens: &Tokens, phone: &str, pin: &str) {
        self.lock_again(tokens, phone, None, pin).await;
    }

    /// Sets a PIN in the place of another one.
    async fn lock_again(&self, tokens: &Tokens, phone: &str, current: Option<&str>, pin: &str) {
        let (verification_id, code) = self.code(phone, Purpose::RegistrationLock).await;
        let by_code = Reauthentication::by_code(verification_id, code);
        let proof = Reauthentication { pin: current.map(str::to_owned), ..by_code };
        let caller = self.caller(tokens).await;
        let request = SetRegistrationLock::new(pin, proof);
        self.identity.set_registration_lock(&caller, request, HERE, self.now).await.unwrap();
    }

    async fn registration(&self, phone: &str, seed: u8, pin: Option<&str>) -> RegisterRequest {
        let (verification_id, code) = self.code(phone, Purpose::Registration).await;
        RegisterRequest {
            verification_id,
            code,
            device: device(),
            keys: keys(seed, 0),
            totp: None,
            backup_code: None,
            pin: pin.map(str::to_owned),
            replace: None,
        }
    }

    /// Asks for the number of an account that has been silent.
    async fn replace(&self, phone: &str, seed: u8) -> Result<Tokens, ApiError> {
        let request = self.registration(phone, seed, None).await;
        self.identity.register(RegisterRequest { replace: Some(true), ..request }, TRIED, self.now).await
    }

    async fn take(&self, phone: &str, seed: u8, pin: Option<&str>) -> Result<Tokens, ApiError> {
        let request = self.registration(phone, seed, pin).await;
        self.identity.register(request, TRIED, self.now).await
    }
}

const PHONE: &str = "+15550000001";

fn free_at(result: Result<Tokens, ApiError>) -> String {
    let ApiError(problem) = result.err().unwrap();
    assert_eq!(problem.status, 409);
    problem.more["available_at"].as_str().unwrap().to_owned()
}

in_a_world! {
    a_number_is_free_seven_days_after_the_last_contact(world, config => { config.limits.enabled = false; }) {
        let alice = world.register(PHONE, 1).await;
        world.lock(&alice, PHONE, PIN).await;
        world.later(6 * DAY);
        // The device is heard of.
        let alice = world.identity.refresh(&alice.refresh_token, world.now).await.unwrap();
        let until = world.now.plus(Duration::from_secs(7 * DAY)).to_string();
        assert_eq!(free_at(world.replace(PHONE, 2).await), until);
        world.later(7 * DAY - 1);
        assert_eq!(free_at(world.replace(PHONE, 2).await), until);
        // A wrong PIN is one a second before, too.
        assert_eq!(status(world.take(PHONE, 2, Some(OTHER_PIN)).await), REJECTED);
        world.later(1);
        // Nothing is deleted by who does not say so.
        assert_eq!(free_at(world.take(PHONE, 2, None).await), until);
        let bob = world.replace(PHONE, 2).await.unwrap();
        assert_ne!(bob.user_id, alice.user_id);
        world.identity.sweep(world.now).await.unwrap();
        assert_eq!(status(world.identity.authenticate(&alice.access_token, world.now).await), UNAUTHENTICATED);
        assert_eq!(status(world.identity.refresh(&alice.refresh_token, world.now).await), UNAUTHENTICATED);
        // The newcomer has an account without a lock.
        assert_eq!(world.login(PHONE, 3, false).await.unwrap().user_id, bob.user_id);
        assert!(world.store.own_devices(alice.user_id).await.unwrap().is_empty());
        assert_eq!(world.store.registration_lock(alice.user_id).await.unwrap().map(|lock| lock.id), None);
    }

    an_account_that_signed_out_everywhere_keeps_it_as_long(world, config => { config.limits.enabled = false; }) {
        let alice = world.register(PHONE, 1).await;
        world.lock(&alice, PHONE, PIN).await;
        world.later(3 * DAY);
        let alice = world.identity.refresh(&alice.refresh_token, world.now).await.unwrap();
        let caller = world.caller(&alice).await;
        world.later(DAY);
        world.identity.logout(&caller, world.now).await.unwrap();
        let until = world.now.plus(Duration::from_secs(7 * DAY)).to_string();
        world.later(7 * DAY - 1);
        assert_eq!(free_at(world.replace(PHONE, 2).await), until);
        world.later(1);
        world.replace(PHONE, 2).await.unwrap();
    }

    without_a_lock_a_number_is_had_after_the_same_time(world, config => { config.limits.enabled = false; }) {
        let alice = world.register(PHONE, 1).await;
        assert_eq!(status(world.replace(PHONE, 2).await), CONFLICT);
        world.later(7 * DAY);
        assert_eq!(status(world.take(PHONE, 2, Some(PIN)).await), CONFLICT);
        // Until then, and after, whoever has the number signs in.
        assert_eq!(world.login(PHONE, 3, false).await.unwrap().user_id, alice.user_id);
        assert_eq!(status(world.replace(PHONE, 2).await), CONFLICT, "a device was heard of");
        world.later(7 * DAY);
        assert_ne!(world.replace(PHONE, 2).await.unwrap().user_id, alice.user_id);
    }

    the_pin_lets_an_account_in_use_its_time_of_grace(world, config => { config.limits.enabled = false; }) {
        let alice = world.register(PHONE, 1).await;
        world.lock(&alice, PHONE, PIN).await;
        let request = world.registration(PHONE, 2, Some(PIN)).await;
        let until = world.now.plus(Duration::from_secs(14 * DAY)).to_string();
        assert_eq!(free_at(world.identity.register(request.clone(), TRIED, world.now).await), until);
        assert_eq!(status(world.identity.register(request, TRIED, world.now).await), REJECTED, "the code has served");
        // The devices are told, and any of them cancels.
        let caller = world.caller(&alice).await;
        assert_eq!(world.identity.deletion(&caller).await.unwrap().deletes_at.unwrap().to_string(), until);
        world.identity.cancel_deletion(&caller, world.now).await.unwrap();
        assert_eq!(world.login(PHONE, 1, true).await.unwrap().user_id, alice.user_id);
        // Not cancelled: it goes when its time has come, and not before.
        assert_eq!(status(world.take(PHONE, 2, Some(PIN)).await), CONFLICT);
        world.later(14 * DAY);
        world.identity.sweep(world.now).await.unwrap();
        assert_ne!(world.take(PHONE, 2, None).await.unwrap().user_id, alice.user_id);
    }

    the_pin_frees_the_number_of_a_silent_account(world, config => { config.limits.enabled = false; }) {
        let alice = world.register(PHONE, 1).await;
        world.lock(&alice, PHONE, PIN).await;
        world.later(7 * DAY);
        let request = world.registration(PHONE, 2, Some(PIN)).await;
        let anew = world.identity.register(request.clone(), TRIED, world.now).await.unwrap();
        assert_ne!(anew.user_id, alice.user_id);
        assert_eq!(status(world.identity.register(request, TRIED, world.now).await), REJECTED, "the code has served");
        world.identity.sweep(world.now).await.unwrap();
        assert_eq!(status(world.identity.authenticate(&alice.access_token, world.now).await), UNAUTHENTICATED);
        // Neither the old PIN nor the old device is anything to the new account.
        assert_eq!(status(world.take(PHONE, 3, Some(PIN)).await), CONFLICT);
        assert_eq!(world.login(PHONE, 1, true).await.unwrap().user_id, anew.user_id);
    }

    of_two_who_take_it_at_once_one_does(world, config => { config.limits.enabled = false; }) {
        for round in 0..8_u8 {
            let phone = format!("+1555000100{round}");
            let alice = world.register(&phone, 1).await;
            world.lock(&alice, &phone, PIN).await;
            world.later(7 * DAY);
            let (one, two) = (world.registration(&phone, 2, Some(PIN)).await, world.registration(&phone, 3, Some(PIN)).await);
            let (one, two) = join(
                world.identity.register(one, TRIED, world.now),
                world.other.register(two, TRIED, world.now),
            ).await;
            let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
            let (code, _) = status(lost);
            assert!([401, 409].contains(&code), "{code}");
            assert_eq!(world.login(&phone, 4, false).await.unwrap().user_id, won.unwrap().user_id);
        }
    }

    wrong_pins_are_counted_for_the_account_and_stop_nobody_signed_in(world, config => {
        config.limits.codes_per_number_per_hour = 1000;
        config.limits.codes_per_number_per_day = 1000;
        config.limits.codes_per_address_per_hour = 1000;
        config.limits.codes_per_region_per_hour = 1000;
        config.limits.codes_per_block_per_hour = 1000;
        config.limits.failed_sign_ins = 1000;
    }) {
        let alice = world.register(PHONE, 1).await;
        world.lock(&alice, PHONE, PIN).await;
        for round in 0..5 {
            // At sign-in and at registration they count alike.
            if round % 2 == 0 {
                assert_eq!(status(world.take(PHONE, 2, Some(OTHER_PIN)).await), REJECTED);
            } else {
                let (verification_id, code) = world.code(PHONE, Purpose::Login).await;
                let request = LoginRequest {
                    verification_id, code, device: device(), keys: keys(2, 0), device_proof: None,
                    totp: None, backup_code: None, pin: Some(OTHER_PIN.to_owned()),
                };
                assert_eq!(status(world.other.login(request, TRIED, world.now).await), REJECTED);
            }
            world.later(60);
        }
        assert_eq!(status(world.take(PHONE, 2, Some(PIN)).await), LIMITED, "the right one as well");
        // The owner replaces it all the same.
        world.lock_again(&alice, PHONE, Some(PIN), OTHER_PIN).await;
        world.later(7 * DAY);
        assert_eq!(status(world.take(PHONE, 2, Some(PIN)).await), REJECTED);
        world.take(PHONE, 2, Some(OTHER_PIN)).await.unwrap();
    }
}
