//! Recovery: a new device in the place of all others, by a code and what stands behind it.

use crate::registration_lock::set_pin;
use crate::second_factor::{Account, code_for, early_in_a_step, not_accepted, problem};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, register, second_device, shared};
use crate::support::wire::next_of;
use futures::future::join;
use sotto_client::protocol::VerificationId;
use sotto_client::protocol::auth::{Purpose, RecoverRequest, Tokens};
use sotto_client::protocol::event::Event;
use sotto_client::protocol::problem::{ErrorCode, Problem};
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::trail::{Removal, TrailEntry, TrailEvent};
use sotto_client::{Client, DeviceKeys, Error, Options, Rest, SignIn, Store};
use std::time::Duration;

const PIN: &str = "2580";
/// Sockets on other nodes hear of it within this.
const ELSEWHERE: Duration = Duration::from_secs(5);

async fn request(node: &TestNode, phone: &str) -> RecoverRequest {
    let (verification_id, code) = code_for(node, phone, Purpose::Recovery).await;
    of(verification_id, code)
}

fn of(verification_id: VerificationId, code: String) -> RecoverRequest {
    RecoverRequest {
        verification_id,
        code,
        device: info("new"),
        keys: DeviceKeys::generate().sign_in_keys(2).unwrap(),
        totp: None,
        backup_code: None,
        pin: None,
    }
}

async fn recover(node: &TestNode, request: &RecoverRequest) -> Result<Tokens, Problem> {
    Rest::new(&node.url).unwrap().recover(request).await.map_err(problem)
}

fn methods(result: Result<Tokens, Problem>) -> Vec<String> {
    let problem = result.err().expect("this should have been refused");
    assert_eq!((problem.status, problem.code), (401, ErrorCode::SecondFactorRequired));
    serde_json::from_value(problem.more["methods"].clone()).unwrap()
}

async fn trail(rest: &Rest) -> Vec<TrailEvent> {
    let page = rest.trail(0, 200).await.unwrap();
    page.items.iter().map(|item| serde_json::from_str::<TrailEntry>(&item.entry).unwrap().event).collect()
}

async fn is_out(device: &Device) {
    assert_eq!(device.rest.me().await.unwrap_err().code(), Some(ErrorCode::Unauthenticated));
    let refreshed = Rest::new(&device.url).unwrap().refresh(&device.tokens.refresh_token).await;
    assert_eq!(refreshed.err().unwrap().code(), Some(ErrorCode::Unauthenticated));
}

/// Nothing waits after a new second factor.
const AT_ONCE: [(&str, &str); 2] = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__SECOND_FACTOR_UNDO_HOURS", "0")];

on_both! {
    async fn a_new_device_takes_the_place_of_all_others(database) {
        let node = TestNode::with(database, &AT_ONCE).await;
        let other = node.sibling().await;
        let account = Account::with_second_factor(&node, "alice").await;
        let alice = &account.device;
        let bob = register(&node, "bob").await;
        let direct = alice.rest.create_direct(bob.user_id).await.unwrap().conversation_id;
        bob.rest.send_message(&shared(direct, "before"), None).await.unwrap();
        let (mut here, _) = alice.socket().await;
        let (mut bobs, _) = bob.socket().await;
        early_in_a_step().await;
        let asked = request(&other, &alice.phone).await;
        for _ in 0..6 {
            assert_eq!(methods(recover(&other, &asked).await), ["totp", "backup_code"], "asking takes no try");
        }
        let wrong = RecoverRequest { totp: Some(account.app.wrong()), ..asked.clone() };
        not_accepted(recover(&other, &wrong).await, "/totp", 4);
        let right = RecoverRequest { totp: Some(account.app.code(0)), ..asked };
        let tokens = recover(&other, &right).await.unwrap();
        assert_eq!(tokens.user_id, alice.user_id);
        assert_eq!(here.closed_within(ELSEWHERE).await.unwrap(), Some(4503));
        is_out(alice).await;
        let rest = Rest::new(&node.url).unwrap().with_token(&tokens.access_token);
        let devices = rest.own_devices().await.unwrap();
        assert_eq!(devices.iter().map(|device| device.device_id).collect::<Vec<_>>(), [tokens.device_id]);
        // Who talks to her is told, and finds the new device's keys alone.
        let mut gone = Vec::new();
        while gone.is_empty() {
            if let Some(Event::DevicesChanged(changed)) = next_of(&mut bobs, "devices_changed").await.event().unwrap() {
                gone = changed.removed;
            }
        }
        assert_eq!(gone, [alice.device_id]);
        let keys = bob.rest.claim_keys(alice.user_id, &[]).await.unwrap();
        assert_eq!(keys.devices.len(), 1);
        // What the account has stays: conversations, and the second factor.
        let conversations = rest.conversations(None, None).await.unwrap().items;
        assert_eq!(conversations.iter().map(|found| found.conversation_id).collect::<Vec<_>>(), [direct]);
        assert!(rest.second_factor().await.unwrap().enabled);
        let removed = TrailEvent::DeviceRemoved { device_id: alice.device_id, reason: Removal::Recovered };
        let recovered = TrailEvent::Recovered { device_id: tokens.device_id };
        assert!(trail(&rest).await.ends_with(&[removed, recovered]));
        // The same request is nothing a second time.
        assert_eq!(recover(&node, &right).await.err().unwrap().code, ErrorCode::CodeRejected);
    }

    async fn a_backup_code_turns_the_second_factor_off(database) {
        let node = TestNode::with(database, &AT_ONCE).await;
        let account = Account::with_second_factor(&node, "alice").await;
        let phone = &account.device.phone;
        let asked = request(&node, phone).await;
        let right = RecoverRequest { backup_code: Some(account.backup_codes[3].clone()), ..asked };
        let tokens = recover(&node, &right).await.unwrap();
        is_out(&account.device).await;
        let rest = Rest::new(&node.url).unwrap().with_token(&tokens.access_token);
        assert!(!rest.second_factor().await.unwrap().enabled);
        let events = trail(&rest).await;
        for event in [TrailEvent::BackupCodeUsed, TrailEvent::SecondFactorDisabled] {
            assert!(events.contains(&event), "{events:?}");
        }
        // From here on there is nothing to recover with: a code alone signs in.
        let next = request(&node, phone).await;
        let refused = recover(&node, &RecoverRequest { backup_code: Some(account.backup_codes[4].clone()), ..next }).await;
        assert_eq!(refused.err().unwrap().code, ErrorCode::Conflict);
        rest.me().await.unwrap();
    }

    async fn a_pin_recovers_an_account_without_a_second_factor(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let bare = request(&node, &alice.phone).await;
        let refused = recover(&node, &bare).await.err().unwrap();
        assert_eq!((refused.status, refused.code), (409, ErrorCode::Conflict));
        set_pin(&node, &alice, PIN).await;
        assert_eq!(methods(recover(&node, &bare).await), ["pin"], "the refusal has used nothing up");
        not_accepted(recover(&node, &RecoverRequest { pin: Some("9999".to_owned()), ..bare.clone() }).await, "/pin", 4);
        let tokens = recover(&node, &RecoverRequest { pin: Some(PIN.to_owned()), ..bare }).await.unwrap();
        assert_eq!(tokens.user_id, alice.user_id);
        is_out(&alice).await;
        is_out(&tablet).await;
        let rest = Rest::new(&node.url).unwrap().with_token(&tokens.access_token);
        assert!(rest.registration_lock().await.unwrap().enabled, "the lock stays");
        let mut told = Vec::new();
        while told.len() < 3 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            told = rest.logins(None, 200).await.unwrap().items;
            told.retain(|login| login.method.starts_with("recovery"));
        }
        let words: Vec<_> = told.iter().map(|login| (login.method.as_str(), login.outcome.as_str())).collect();
        assert!(words.contains(&("recovery_pin", "signed_in")) && words.contains(&("recovery_pin", "wrong_second_factor")), "{words:?}");
    }

    async fn nothing_else_recovers(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        set_pin(&node, &alice, PIN).await;
        // A code for something else.
        let (verification_id, code) = code_for(&node, &alice.phone, Purpose::Login).await;
        let foreign = RecoverRequest { pin: Some(PIN.to_owned()), ..of(verification_id, code) };
        assert_eq!(recover(&node, &foreign).await.err().unwrap().code, ErrorCode::CodeRejected);
        // A device that is there is none to recover with, whoever says that he is it.
        let asked = request(&node, &alice.phone).await;
        let mut own = alice.keys;
        let same = RecoverRequest { keys: own.sign_in_keys(2).unwrap(), pin: Some(PIN.to_owned()), ..asked.clone() };
        assert_eq!(recover(&node, &same).await.err().unwrap().code, ErrorCode::Conflict);
        alice.rest.me().await.unwrap();
        // A number without an account gets no code, and no answer of its own.
        let verification = Rest::new(&node.url).unwrap().verify(&fresh_phone(), Purpose::Recovery).await.unwrap();
        let nobody = of(verification.verification_id, "123456".to_owned());
        assert_eq!(recover(&node, &nobody).await.err().unwrap().code, ErrorCode::CodeRejected);
        // Two at once: one code, one device.
        let right = RecoverRequest { pin: Some(PIN.to_owned()), ..asked };
        let other = RecoverRequest { keys: DeviceKeys::generate().sign_in_keys(2).unwrap(), ..right.clone() };
        let (one, two) = join(recover(&node, &right), recover(&node, &other)).await;
        assert!(one.is_ok() != two.is_ok());
    }

    async fn an_application_recovers(database) {
        let node = TestNode::start(database).await;
        let (phone, options) = (fresh_phone(), Options::new(&node.url));
        let sign_in = async |purpose| {
            let verification = Client::verify(&node.url, &phone, purpose).await.unwrap();
            SignIn::new(verification.verification_id, node.code_for(&phone), info("app"))
        };
        let store = Store::in_memory().unwrap();
        let entry = sign_in(Purpose::Registration).await;
        let lost = Client::register(options.clone(), store.clone(), entry).await.unwrap();
        let SignIn { verification_id, code, .. } = sign_in(Purpose::RegistrationLock).await;
        let proof = Reauthentication::by_code(verification_id, code);
        lost.set_registration_lock(PIN, proof).await.unwrap();
        let entry = sign_in(Purpose::Recovery).await.with_pin(PIN);
        let used = Client::recover(options.clone(), store, entry.clone()).await;
        assert!(matches!(used.err(), Some(Error::Usage(_))), "a store that is signed in is not lost");
        let found = Client::recover(options, Store::in_memory().unwrap(), entry).await.unwrap();
        assert_eq!(found.user_id(), lost.user_id());
        found.connect();
        found.connected(Duration::from_secs(30)).await.unwrap();
    }
}
