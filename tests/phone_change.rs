//! Another number for an account: what is asked for, who is told, and who gets it when two want it.

mod race;

use crate::registration_lock::set_pin;
use crate::second_factor::{Account, code_for, early_in_a_step, login, not_accepted, problem, request};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, register, second_device};
use crate::support::wire::next_of;
use sotto_client::protocol::auth::{ChangePhone, MeUser, Purpose, RegisterRequest};
use sotto_client::protocol::event::Event;
use sotto_client::protocol::problem::{ErrorCode, Problem};
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::registration_lock::SetRegistrationLock;
use sotto_client::protocol::trail::{TrailEntry, TrailEvent};
use sotto_client::{Client, DeviceKeys, Options, Rest, SignIn, Store};

const PIN: &str = "2580";

/// A right code of the new number, and nothing beside it.
async fn change_to(node: &TestNode, phone: &str) -> ChangePhone {
    let (verification_id, code) = code_for(node, phone, Purpose::PhoneChange).await;
    ChangePhone {
        verification_id,
        code,
        totp: None,
        backup_code: None,
        pin: None,
        old_verification_id: None,
        old_code: None,
    }
}

/// The same with a right code of the old one.
async fn with_old(node: &TestNode, change: &ChangePhone, phone: &str) -> ChangePhone {
    let (id, code) = code_for(node, phone, Purpose::PhoneChange).await;
    ChangePhone { old_verification_id: Some(id), old_code: Some(code), ..change.clone() }
}

async fn change(device: &Device, request: &ChangePhone) -> Result<MeUser, Problem> {
    device.rest.change_phone(request).await.map_err(problem)
}

fn methods(result: Result<MeUser, Problem>) -> Vec<String> {
    let problem = result.expect_err("this should have been refused");
    assert_eq!((problem.status, problem.code), (401, ErrorCode::SecondFactorRequired));
    serde_json::from_value(problem.more["methods"].clone()).unwrap()
}

fn rejected(result: Result<MeUser, Problem>) -> Problem {
    let problem = result.expect_err("this should have been refused");
    assert_eq!((problem.status, problem.code), (401, ErrorCode::CodeRejected));
    problem
}

/// Nothing waits after a new second factor.
const AT_ONCE: [(&str, &str); 2] = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__SECOND_FACTOR_UNDO_HOURS", "0")];

on_both! {
    async fn by_a_code_of_either_number(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let tablet = second_device(&node, &alice, "tablet").await;
        let (mut tablets, _) = tablet.socket().await;
        let new = fresh_phone();
        let asked = change_to(&node, &new).await;
        for _ in 0..6 {
            assert_eq!(methods(change(&alice, &asked).await), ["old_code"], "asking takes no try");
        }
        let half = ChangePhone { old_code: Some("123456".to_owned()), ..asked.clone() };
        assert_eq!(change(&alice, &half).await.err().unwrap().errors[0].pointer.as_deref(), Some("/old_verification_id"));
        // A wrong code of the old number, and right ones of another number and for another purpose.
        let right = with_old(&node, &asked, &alice.phone).await;
        let wrong = ChangePhone { old_code: Some("x".to_owned()), ..right.clone() };
        assert_eq!(rejected(change(&alice, &wrong).await).errors[0].pointer.as_deref(), Some("/old_code"));
        rejected(change(&alice, &with_old(&node, &asked, &bob.phone).await).await);
        let (id, code) = code_for(&node, &alice.phone, Purpose::Login).await;
        rejected(change(&alice, &ChangePhone { old_verification_id: Some(id), old_code: Some(code), ..asked }).await);
        let changed = change(&alice, &right).await.unwrap();
        assert_eq!((&changed.phone, changed.user_id), (&new, alice.user_id));
        assert_eq!(tablet.rest.me().await.unwrap().user.phone, new);
        match next_of(&mut tablets, "phone_changed").await.event().unwrap() {
            Some(Event::PhoneChanged(told)) => assert_eq!(told.phone, new),
            other => panic!("{other:?}"),
        }
        let page = alice.rest.trail(0, 200).await.unwrap();
        let last: TrailEntry = serde_json::from_str(&page.items.last().unwrap().entry).unwrap();
        assert_eq!(last.event, TrailEvent::PhoneChanged);
        // Others find the new number and not the old one; codes have served.
        let found = bob.rest.lookup(&[alice.phone.clone(), new.clone()]).await.unwrap();
        assert_eq!(found.iter().map(|found| (&found.phone, found.user_id)).collect::<Vec<_>>(), [(&new, alice.user_id)]);
        rejected(change(&alice, &right).await);
        // The new number signs in to it, and the old one is anybody's.
        let tokens = login(&node, &request(&node, &new, Purpose::Login).await).await.unwrap();
        assert_eq!(tokens.user_id, alice.user_id);
        let (verification_id, code) = code_for(&node, &alice.phone, Purpose::Registration).await;
        let keys = DeviceKeys::generate().sign_in_keys(2).unwrap();
        let anybody = RegisterRequest { verification_id, code, device: info("anybody"), keys, totp: None, backup_code: None, pin: None, replace: None };
        let anybody = Rest::new(&node.url).unwrap().register(&anybody).await.unwrap();
        assert_ne!(anybody.user_id, alice.user_id);
    }

    async fn a_second_factor_is_asked_for_and_nothing_else_will_do(database) {
        let node = TestNode::with(database, &AT_ONCE).await;
        let account = Account::with_second_factor(&node, "alice").await;
        early_in_a_step().await;
        let asked = change_to(&node, &fresh_phone()).await;
        let both = with_old(&node, &asked, &account.device.phone).await;
        assert_eq!(methods(change(&account.device, &asked).await), ["totp", "backup_code"]);
        assert_eq!(methods(change(&account.device, &both).await), ["totp", "backup_code"]);
        let wrong = ChangePhone { totp: Some(account.app.wrong()), ..both.clone() };
        not_accepted(change(&account.device, &wrong).await, "/totp", 4);
        change(&account.device, &ChangePhone { totp: Some(account.app.code(0)), ..asked }).await.unwrap();
        let next = change_to(&node, &fresh_phone()).await;
        let code = Some(account.backup_codes[0].clone());
        change(&account.device, &ChangePhone { backup_code: code.clone(), ..next }).await.unwrap();
        let third = change_to(&node, &fresh_phone()).await;
        not_accepted(change(&account.device, &ChangePhone { backup_code: code, ..third }).await, "/backup_code", 4);
    }

    async fn a_pin_is_asked_for_and_the_old_number_will_not_do(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        set_pin(&node, &alice, PIN).await;
        let asked = change_to(&node, &fresh_phone()).await;
        assert_eq!(methods(change(&alice, &asked).await), ["pin"]);
        not_accepted(change(&alice, &ChangePhone { pin: Some("9999".to_owned()), ..asked.clone() }).await, "/pin", 4);
        let new = change(&alice, &ChangePhone { pin: Some(PIN.to_owned()), ..asked }).await.unwrap().phone;
        let next = change_to(&node, &fresh_phone()).await;
        assert_eq!(methods(change(&alice, &with_old(&node, &next, &new).await).await), ["pin"]);
        assert!(alice.rest.registration_lock().await.unwrap().enabled, "the lock goes with the account");
    }

    async fn a_number_in_use_is_told_to_whoever_has_shown_everything(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        for phone in [&bob.phone, &alice.phone] {
            let asked = change_to(&node, phone).await;
            assert_eq!(methods(change(&alice, &asked).await), ["old_code"]);
            let all = if phone == &alice.phone {
                ChangePhone { old_verification_id: Some(asked.verification_id), old_code: Some(asked.code.clone()), ..asked }
            } else {
                with_old(&node, &asked, &alice.phone).await
            };
            for _ in 0..2 {
                let refused = change(&alice, &all).await.err().unwrap();
                assert_eq!((refused.status, refused.code), (409, ErrorCode::Conflict), "and uses nothing up");
            }
        }
        assert_eq!(alice.rest.me().await.unwrap().user.phone, alice.phone);
        assert_eq!(bob.rest.me().await.unwrap().user.phone, bob.phone);
    }

    async fn a_code_of_the_number_before_proves_nothing(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let (verification_id, code) = code_for(&node, &alice.phone, Purpose::RegistrationLock).await;
        let before = Reauthentication::by_code(verification_id, code);
        let entry = request(&node, &alice.phone, Purpose::Login).await;
        let asked = change_to(&node, &fresh_phone()).await;
        change(&alice, &with_old(&node, &asked, &alice.phone).await).await.unwrap();
        let refused = alice.rest.set_registration_lock(&SetRegistrationLock::new(PIN, before)).await;
        assert_eq!(problem(refused.unwrap_err()).code, ErrorCode::CodeRejected);
        assert_eq!(login(&node, &entry).await.err().unwrap().code, ErrorCode::CodeRejected);
    }

    async fn a_code_of_the_old_number_serves_once(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let asked = change_to(&node, &fresh_phone()).await;
        let first = with_old(&node, &asked, &alice.phone).await;
        let new = change(&alice, &first).await.unwrap().phone;
        let back = change_to(&node, &alice.phone).await;
        change(&alice, &with_old(&node, &back, &new).await).await.unwrap();
        let third = change_to(&node, &fresh_phone()).await;
        let ChangePhone { old_verification_id, old_code, .. } = first;
        rejected(change(&alice, &ChangePhone { old_verification_id, old_code, ..third }).await);
    }

    async fn an_application_changes_its_number(database) {
        let node = TestNode::start(database).await;
        let (old, new) = (fresh_phone(), fresh_phone());
        let verification = Client::verify(&node.url, &old, Purpose::Registration).await.unwrap();
        let entry = SignIn::new(verification.verification_id, node.code_for(&old), info("app"));
        let client = Client::register(Options::new(&node.url), Store::in_memory().unwrap(), entry).await.unwrap();
        let asked = change_to(&node, &new).await;
        assert!(client.change_phone(&asked).await.unwrap_err().needs_second_factor());
        let changed = client.change_phone(&with_old(&node, &asked, &old).await).await.unwrap();
        assert_eq!(changed.phone, new);
    }
}
