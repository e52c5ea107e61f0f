//! What a stranger, or somebody with a stolen session, can do to an owner: nothing that stays.

use crate::device_links::{Newcomer, take_in};
use crate::second_factor::{App, early_in_a_step, problem};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, proof, register, second_device};
use crate::support::wire::next_of;
use futures::future::join;
use serde_json::{Value, json};
use sotto_client::protocol::auth::{ChangePhone, Purpose, RecoverRequest, RegisterRequest};
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::registration_lock::SetRegistrationLock;
use sotto_client::{DeviceKeys, Error, HeaderMap, Method, Rest};
use sotto_schema::{Store, StoreSettings, inspect};

const PIN: &str = "2580";
const NO_LIMITS: [(&str, &str); 1] = [("SOTTO_LIMITS__ENABLED", "false")];
/// The limits of a real server, behind a proxy that names its clients.
const BEHIND_A_PROXY: [(&str, &str); 6] = [
    ("SOTTO_HTTP__TRUSTED_PROXIES", "127.0.0.0/8"),
    ("SOTTO_DEV__INSECURE", "true"),
    ("SOTTO_AUTH__RESEND_DELAY", "0"),
    ("SOTTO_LIMITS__CODES_PER_NUMBER_PER_HOUR", "1000"),
    ("SOTTO_LIMITS__CODES_PER_NUMBER_PER_DAY", "1000"),
    ("SOTTO_LIMITS__CODES_PER_ADDRESS_PER_HOUR", "1000"),
];

fn code<T>(result: Result<T, Error>) -> ErrorCode {
    problem(result.err().expect("this should have been refused")).code
}

/// Asks from an address, as the proxy tells it.
async fn from(node: &TestNode, address: &str, token: Option<&str>, call: (&str, &str), body: &Value) -> (u16, Value) {
    let rest = Rest::new(&node.url).unwrap();
    let rest = token.map_or(rest.clone(), |token| rest.with_token(token));
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", address.parse().unwrap());
    let (method, path) = call;
    let method: Method = method.parse().unwrap();
    let answer = rest.raw(method, path, headers, Some(body.to_string().into_bytes())).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

fn sign_in(verification: &str, code: &str) -> Value {
    let keys = DeviceKeys::generate().sign_in_keys(1).unwrap();
    json!({"verification_id": verification, "code": code, "device": info("new"), "keys": keys})
}

/// Sets a second factor up and enables it, with a proof.
async fn enable(device: &Device, by_code: Reauthentication) -> App {
    early_in_a_step().await;
    let app = App::of(&device.rest.set_up_totp().await.unwrap());
    device.rest.enable_totp(&app.code(-1), by_code).await.unwrap();
    app
}

fn available_at<T>(result: Result<T, Error>) -> String {
    let refused = problem(result.err().expect("this should have been refused"));
    assert_eq!((refused.status, refused.code), (409, ErrorCode::Conflict), "{refused:?}");
    refused.more["available_at"].as_str().unwrap().to_owned()
}

on_both! {
    async fn wrong_codes_of_strangers_stop_no_owner(database) {
        let node = TestNode::with(database, &BEHIND_A_PROXY).await;
        let alice = register(&node, "alice").await;
        let verify = async |address: &str, purpose: &str| {
            let body = json!({"phone": alice.phone, "purpose": purpose});
            let (status, answer) = from(&node, address, None, ("POST", "/v1/auth/verifications"), &body).await;
            assert_eq!(status, 201, "{answer}");
            (answer["verification_id"].as_str().unwrap().to_owned(), node.code_for(&alice.phone))
        };
        // Ten networks, each to its limit.
        for network in 0..10 {
            let address = format!("198.51.{network}.1");
            let (verification, _) = verify(&address, "login").await;
            let mut answers = Vec::new();
            for _ in 0..6 {
                let body = sign_in(&verification, "x00000");
                answers.push(from(&node, &address, None, ("POST", "/v1/auth/login"), &body).await.0);
            }
            assert_eq!(answers, [401; 6], "five wrong ones void the verification");
            let (again, _) = verify(&address, "login").await;
            let limited = from(&node, &address, None, ("POST", "/v1/auth/login"), &sign_in(&again, "x00000")).await;
            assert_eq!(limited.0, 429, "{}", limited.1);
        }
        let (verification, right) = verify("203.0.113.1", "login").await;
        let body = sign_in(&verification, &right);
        let (status, answer) = from(&node, "203.0.113.1", None, ("POST", "/v1/auth/login"), &body).await;
        assert_eq!(status, 200, "{answer}");
        // A device that is signed in, even from a network that is at its limit.
        let (verification, right) = verify("203.0.113.1", "registration_lock").await;
        let token = Some(alice.tokens.access_token.as_str());
        let body = json!({"pin": PIN, "verification_id": verification, "code": right});
        let (status, answer) = from(&node, "198.51.0.1", token, ("PUT", "/v1/auth/registration_lock"), &body).await;
        assert_eq!(status, 204, "{answer}");
    }

    async fn a_session_alone_changes_nothing(database) {
        let node = TestNode::with(database, &NO_LIMITS).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let tablet = second_device(&node, &alice, "tablet").await;
        let nothing = Reauthentication::default();
        // A code of another number is no proof either.
        let bobs = proof(&node, &bob, Purpose::DeviceRemoval).await;
        assert_eq!(code(alice.rest.remove_other_devices(&bobs).await), ErrorCode::CodeRejected);
        alice.rest.set_up_totp().await.unwrap();
        let app = App::of(&alice.rest.set_up_totp().await.unwrap());
        early_in_a_step().await;
        for refused in [
            code(alice.rest.enable_totp(&app.code(0), nothing.clone()).await),
            code(alice.rest.set_registration_lock(&SetRegistrationLock::new(PIN, nothing.clone())).await),
            code(alice.rest.remove_device(tablet.device_id, None).await),
            code(alice.rest.remove_other_devices(&nothing).await),
            code(alice.rest.request_deletion(&nothing).await),
        ] {
            assert_eq!(refused, ErrorCode::SecondFactorRequired);
        }
        assert_eq!(alice.rest.own_devices().await.unwrap().len(), 2);
        assert!(!alice.rest.second_factor().await.unwrap().enabled);
        // With a code, once.
        let by_code = proof(&node, &alice, Purpose::DeviceRemoval).await;
        alice.rest.remove_other_devices(&by_code).await.unwrap();
        let laptop = second_device(&node, &alice, "laptop").await;
        assert_eq!(code(alice.rest.remove_device(laptop.device_id, Some(&by_code)).await), ErrorCode::CodeRejected);
    }

    async fn a_new_second_factor_is_undone_by_another_device(database) {
        let node = TestNode::with(database, &NO_LIMITS).await;
        let stolen = register(&node, "stolen").await;
        let own = second_device(&node, &stolen, "own").await;
        // The thief has a session and reads one text message after the other.
        let app = enable(&stolen, proof(&node, &stolen, Purpose::SecondFactor).await).await;
        early_in_a_step().await;
        let by_totp = Reauthentication::default().with_totp(app.code(0));
        let until = stolen.rest.second_factor().await.unwrap().undo_until.unwrap().to_string();
        assert_eq!(available_at(stolen.rest.remove_other_devices(&by_totp).await), until);
        assert_eq!(available_at(stolen.rest.remove_device(own.device_id, Some(&by_totp)).await), until);
        assert_eq!(available_at(stolen.rest.request_deletion(&by_totp).await), until);
        assert_eq!(
            available_at(stolen.rest.set_registration_lock(&SetRegistrationLock::new(PIN, by_totp)).await),
            until
        );
        let phone = fresh_phone();
        let asked = Rest::new(&node.url).unwrap().verify(&phone, Purpose::PhoneChange).await.unwrap();
        let change = ChangePhone {
            verification_id: asked.verification_id,
            code: node.code_for(&phone),
            totp: Some(app.code(0)),
            backup_code: None,
            pin: None,
            old_verification_id: None,
            old_code: None,
        };
        assert_eq!(available_at(stolen.rest.change_phone(&change).await), until);
        let asked = Rest::new(&node.url).unwrap().verify(&stolen.phone, Purpose::Recovery).await.unwrap();
        let recovery = RecoverRequest {
            verification_id: asked.verification_id,
            code: node.code_for(&stolen.phone),
            device: info("thief"),
            keys: DeviceKeys::generate().sign_in_keys(1).unwrap(),
            totp: Some(app.code(0)),
            backup_code: None,
            pin: None,
        };
        assert_eq!(available_at(Rest::new(&node.url).unwrap().recover(&recovery).await), until);
        // The device that enabled it does not undo it; the other one does, with a code.
        let by_code = proof(&node, &own, Purpose::SecondFactor).await;
        assert_eq!(code(stolen.rest.undo_totp(&by_code).await), ErrorCode::Conflict);
        assert_eq!(code(own.rest.undo_totp(&Reauthentication::default()).await), ErrorCode::SecondFactorRequired);
        own.rest.undo_totp(&by_code).await.unwrap();
        let by_code = proof(&node, &own, Purpose::DeviceRemoval).await;
        own.rest.remove_device(stolen.device_id, Some(&by_code)).await.unwrap();
        assert_eq!(own.rest.own_devices().await.unwrap().len(), 1);
        let by_code = proof(&node, &own, Purpose::SecondFactor).await;
        assert_eq!(code(own.rest.undo_totp(&by_code).await), ErrorCode::Conflict, "there is none");
    }

    async fn the_pin_from_before_recovers_from_a_new_second_factor(database) {
        let node = TestNode::with(database, &NO_LIMITS).await;
        let stolen = register(&node, "stolen").await;
        let by_code = proof(&node, &stolen, Purpose::RegistrationLock).await;
        stolen.rest.set_registration_lock(&SetRegistrationLock::new(PIN, by_code)).await.unwrap();
        // The PIN was there for two days already.
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let earlier = match store.kind() {
            "postgres" => "UPDATE registration_locks SET created_at = created_at - interval '2 days'",
            _ => "UPDATE registration_locks SET created_at = created_at - 172800000000",
        };
        inspect::execute(&store, earlier).await.unwrap();
        let by_code = proof(&node, &stolen, Purpose::SecondFactor).await;
        early_in_a_step().await;
        let app = App::of(&stolen.rest.set_up_totp().await.unwrap());
        assert_eq!(code(stolen.rest.enable_totp(&app.code(-1), by_code.clone()).await), ErrorCode::SecondFactorRequired);
        stolen.rest.enable_totp(&app.code(-1), by_code.with_pin(PIN)).await.unwrap();
        let asked = Rest::new(&node.url).unwrap().verify(&stolen.phone, Purpose::Recovery).await.unwrap();
        let recovery = RecoverRequest {
            verification_id: asked.verification_id,
            code: node.code_for(&stolen.phone),
            device: info("owner"),
            keys: DeviceKeys::generate().sign_in_keys(1).unwrap(),
            totp: None,
            backup_code: None,
            pin: Some(PIN.to_owned()),
        };
        let tokens = Rest::new(&node.url).unwrap().recover(&recovery).await.unwrap();
        let rest = Rest::new(&node.url).unwrap().with_token(&tokens.access_token);
        assert!(!rest.second_factor().await.unwrap().enabled);
        assert!(rest.registration_lock().await.unwrap().enabled);
        assert_eq!(code(stolen.rest.me().await), ErrorCode::Unauthenticated);
    }

    async fn a_number_is_taken_over_by_the_strongest_guard_and_with_notice(database) {
        let settings = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__SECOND_FACTOR_UNDO_HOURS", "0")];
        let node = TestNode::with(database, &settings).await;
        let alice = register(&node, "alice").await;
        let by_code = proof(&node, &alice, Purpose::RegistrationLock).await;
        alice.rest.set_registration_lock(&SetRegistrationLock::new(PIN, by_code)).await.unwrap();
        let by_code = proof(&node, &alice, Purpose::SecondFactor).await.with_pin(PIN);
        let app = enable(&alice, by_code).await;
        let (mut socket, _) = alice.socket().await;
        let asked = Rest::new(&node.url).unwrap().verify(&alice.phone, Purpose::Registration).await.unwrap();
        let with_pin = RegisterRequest {
            verification_id: asked.verification_id,
            code: node.code_for(&alice.phone),
            device: info("thief"),
            keys: DeviceKeys::generate().sign_in_keys(1).unwrap(),
            totp: None,
            backup_code: None,
            pin: Some(PIN.to_owned()),
            replace: None,
        };
        let kept = problem(Rest::new(&node.url).unwrap().register(&with_pin).await.err().unwrap());
        assert_eq!((kept.status, &kept.more["methods"]), (409, &json!(["totp", "backup_code"])));
        assert_eq!(alice.rest.deletion().await.unwrap().deletes_at, None, "the PIN is not enough");
        early_in_a_step().await;
        let with_totp = RegisterRequest { totp: Some(app.code(0)), ..with_pin };
        let begun = Rest::new(&node.url).unwrap().register(&with_totp).await;
        let until = available_at(begun);
        next_of(&mut socket, "account_deletion").await;
        assert_eq!(alice.rest.deletion().await.unwrap().deletes_at.unwrap().to_string(), until);
        alice.rest.cancel_deletion().await.unwrap();
        alice.rest.me().await.unwrap();
    }

    async fn the_same_codes_in_exchanged_places_wait_for_each_other(database) {
        let node = TestNode::with(database, &NO_LIMITS).await;
        let other = node.sibling().await;
        let alice = register(&node, "alice").await;
        for _ in 0..10 {
            let one = Rest::new(&node.url).unwrap().verify(&alice.phone, Purpose::PhoneChange).await.unwrap();
            let one = (one.verification_id, node.code_for(&alice.phone));
            let two = Rest::new(&node.url).unwrap().verify(&alice.phone, Purpose::PhoneChange).await.unwrap();
            let two = (two.verification_id, node.code_for(&alice.phone));
            let change = |new: &(_, String), old: &(_, String)| ChangePhone {
                verification_id: new.0,
                code: new.1.clone(),
                totp: None,
                backup_code: None,
                pin: None,
                old_verification_id: Some(old.0),
                old_code: Some(old.1.clone()),
            };
            let (first, second) = (change(&one, &two), change(&two, &one));
            let (here, there) = (alice.at(&node), alice.at(&other));
            let (first, second) = join(here.change_phone(&first), there.change_phone(&second)).await;
            assert_eq!([code(first), code(second)], [ErrorCode::Conflict; 2], "it is the account's number already");
        }
    }

    async fn a_stolen_session_uses_up_nobodys_tries(database) {
        let settings = [("SOTTO_AUTH__RESEND_DELAY", "0")];
        let node = TestNode::with(database, &settings).await;
        let stolen = register(&node, "stolen").await;
        let own = second_device(&node, &stolen, "own").await;
        // Wrong codes of a number of the thief's own are no tries at all, and those of the account's are this device's.
        let phone = fresh_phone();
        let foreign = Rest::new(&node.url).unwrap().verify(&phone, Purpose::DeviceRemoval).await.unwrap();
        let real = stolen.rest.verify(&stolen.phone, Purpose::DeviceRemoval).await.unwrap();
        for (id, most) in [(foreign.verification_id, 8), (real.verification_id, 8)] {
            for _ in 0..most {
                let refused = problem(
                    stolen.rest.remove_other_devices(&Reauthentication::by_code(id, "x00000")).await.unwrap_err(),
                );
                assert!([401, 429].contains(&refused.status), "{refused:?}");
            }
        }
        let by_code = proof(&node, &own, Purpose::DeviceRemoval).await;
        own.rest.remove_device(stolen.device_id, Some(&by_code)).await.unwrap();
    }

    async fn a_confirmed_link_ends_with_the_removal_of_devices(database) {
        let node = TestNode::with(database, &NO_LIMITS).await;
        let stolen = register(&node, "stolen").await;
        let own = second_device(&node, &stolen, "own").await;
        let newcomer = Newcomer::at(&node, "thief's second").await;
        take_in(&node, &stolen, &newcomer).await;
        let by_code = proof(&node, &own, Purpose::DeviceRemoval).await;
        own.rest.remove_other_devices(&by_code).await.unwrap();
        assert_eq!(code(newcomer.collect().await), ErrorCode::NotFound);
        assert_eq!(own.rest.own_devices().await.unwrap().len(), 1);
    }

    async fn a_proof_serves_once_over_two_nodes(database) {
        let node = TestNode::with(database, &NO_LIMITS).await;
        let other = node.sibling().await;
        let alice = register(&node, "alice").await;
        for round in 0..6 {
            let one = second_device(&node, &alice, "one").await;
            let two = second_device(&node, &alice, "two").await;
            let by_code = proof(&node, &alice, Purpose::DeviceRemoval).await;
            let (here, there) = (alice.at(&node), alice.at(&other));
            let both = join(
                here.remove_device(one.device_id, Some(&by_code)),
                there.remove_device(two.device_id, Some(&by_code)),
            );
            let (first, second) = both.await;
            assert!(first.is_ok() != second.is_ok(), "round {round}: {first:?} {second:?}");
            let by_code = proof(&node, &alice, Purpose::DeviceRemoval).await;
            alice.rest.remove_other_devices(&by_code).await.unwrap();
        }
    }
}
