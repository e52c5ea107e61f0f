//! The PIN that protects a number: who gets past it, who gets the number, and when.

mod numbers;

use crate::second_factor::{Account, code_for, login, not_accepted, problem, request};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, register};
use sotto_client::protocol::Timestamp;
use sotto_client::protocol::auth::{LoginRequest, Purpose, RegisterRequest, Tokens};
use sotto_client::protocol::problem::{ErrorCode, Problem};
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::registration_lock::{RegistrationLockState, SetRegistrationLock};
use sotto_client::protocol::trail::{TrailEntry, TrailEvent};
use sotto_client::{Client, DeviceKeys, Options, Rest, SignIn, Store};

const PIN: &str = "2580";
const OTHER_PIN: &str = "8052";
const DAY: u64 = 86_400;

async fn again(node: &TestNode, device: &Device) -> Reauthentication {
    let (verification_id, code) = code_for(node, &device.phone, Purpose::RegistrationLock).await;
    Reauthentication::by_code(verification_id, code)
}

/// Protects the number of a device's account.
pub async fn set_pin(node: &TestNode, device: &Device, pin: &str) {
    let proof = again(node, device).await;
    device.rest.set_registration_lock(&SetRegistrationLock::new(pin, proof)).await.unwrap();
}

fn with_pin(request: &LoginRequest, pin: &str) -> LoginRequest {
    LoginRequest { pin: Some(pin.to_owned()), ..request.clone() }
}

fn methods(problem: &Problem) -> Vec<String> {
    serde_json::from_value(problem.more["methods"].clone()).unwrap()
}

async fn last_event(device: &Device) -> TrailEvent {
    let page = device.rest.trail(0, 200).await.unwrap();
    serde_json::from_str::<TrailEntry>(&page.items.last().unwrap().entry).unwrap().event
}

/// A registration of a number that has an account, with the right code.
async fn registration(node: &TestNode, phone: &str, pin: Option<&str>) -> RegisterRequest {
    let (verification_id, code) = code_for(node, phone, Purpose::Registration).await;
    let keys = DeviceKeys::generate().sign_in_keys(2).unwrap();
    RegisterRequest {
        verification_id,
        code,
        device: info("stranger"),
        keys,
        totp: None,
        backup_code: None,
        pin: pin.map(str::to_owned),
        replace: None,
    }
}

async fn try_register(node: &TestNode, request: &RegisterRequest) -> Result<Tokens, Problem> {
    Rest::new(&node.url).unwrap().register(request).await.map_err(problem)
}

on_both! {
    async fn a_new_device_needs_the_pin_and_a_known_one_does_not(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        assert_eq!(
            alice.rest.registration_lock().await.unwrap(),
            RegistrationLockState { enabled: false, enabled_at: None }
        );
        set_pin(&node, &alice, PIN).await;
        let state = alice.rest.registration_lock().await.unwrap();
        assert!(state.enabled && state.enabled_at.is_some());
        assert_eq!(last_event(&alice).await, TrailEvent::RegistrationLockSet);

        let stranger = request(&node, &alice.phone, Purpose::Login).await;
        for _ in 0..6 {
            let asked = login(&node, &stranger).await.err().unwrap();
            assert_eq!((asked.status, asked.code), (401, ErrorCode::SecondFactorRequired));
            assert_eq!(methods(&asked), ["pin"], "asking takes no try");
        }
        not_accepted(login(&node, &with_pin(&stranger, OTHER_PIN)).await, "/pin", 4);
        not_accepted(login(&node, &with_pin(&stranger, "")).await, "/pin", 3);
        not_accepted(login(&node, &with_pin(&stranger, "25800")).await, "/pin", 2);
        let totp = LoginRequest { totp: Some(PIN.to_owned()), ..stranger.clone() };
        assert_eq!(login(&node, &totp).await.err().unwrap().code, ErrorCode::SecondFactorRequired);
        let tokens = login(&node, &with_pin(&stranger, PIN)).await.unwrap();
        assert_eq!(tokens.user_id, alice.user_id);
        assert_eq!(login(&node, &with_pin(&stranger, PIN)).await.err().unwrap().code, ErrorCode::CodeRejected);
        let next = request(&node, &alice.phone, Purpose::Login).await;
        assert_eq!(login(&node, &with_pin(&next, PIN)).await.unwrap().user_id, alice.user_id, "a PIN serves again");

        let (verification_id, code) = code_for(&node, &alice.phone, Purpose::Login).await;
        let mut own = alice.keys;
        let known = LoginRequest {
            verification_id,
            code,
            device: info("alice again"),
            device_proof: Some(own.proof(verification_id)),
            keys: own.sign_in_keys(2).unwrap(),
            totp: None,
            backup_code: None,
            pin: None,
        };
        let unproved = LoginRequest { device_proof: None, ..known.clone() };
        assert_eq!(login(&node, &unproved).await.err().unwrap().code, ErrorCode::SecondFactorRequired);
        assert_eq!(login(&node, &known).await.unwrap().device_id, alice.device_id);
    }

    async fn it_is_set_replaced_and_removed_with_a_proof(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        for (pin, word) in [("123", "not_a_pin"), ("12a4", "not_a_pin"), ("0000", "too_simple"), ("4321", "too_simple")] {
            let request = SetRegistrationLock::new(pin, again(&node, &alice).await);
            let refused = problem(alice.rest.set_registration_lock(&request).await.unwrap_err());
            assert_eq!((refused.status, refused.errors[0].code.as_str()), (422, word), "{pin}");
        }
        // A code for something else, or of somebody else, is none.
        let (verification_id, code) = code_for(&node, &alice.phone, Purpose::Login).await;
        let foreign = again(&node, &bob).await;
        for proof in [Reauthentication::by_code(verification_id, code), foreign] {
            let request = SetRegistrationLock::new(PIN, proof);
            let refused = problem(alice.rest.set_registration_lock(&request).await.unwrap_err());
            assert_eq!(refused.code, ErrorCode::CodeRejected);
        }
        assert!(!alice.rest.registration_lock().await.unwrap().enabled);
        set_pin(&node, &alice, PIN).await;
        // A PIN is replaced and removed by who knows it, and a code alone is not enough.
        let change = SetRegistrationLock::new(OTHER_PIN, again(&node, &alice).await);
        let refused = problem(alice.rest.set_registration_lock(&change).await.unwrap_err());
        assert_eq!((refused.code, methods(&refused)), (ErrorCode::SecondFactorRequired, vec!["pin".to_owned()]));
        let bare = SetRegistrationLock { verification_id: None, code: None, ..change.clone() };
        let refused = problem(alice.rest.set_registration_lock(&bare).await.unwrap_err());
        assert_eq!(methods(&refused), ["code", "pin"]);
        let change = SetRegistrationLock { current_pin: Some(PIN.to_owned()), ..change };
        alice.rest.set_registration_lock(&change).await.unwrap();
        let stranger = request(&node, &alice.phone, Purpose::Login).await;
        not_accepted(login(&node, &with_pin(&stranger, PIN)).await, "/pin", 4);
        let proof = again(&node, &alice).await.with_pin(OTHER_PIN);
        let used = Rest::new(&node.url).unwrap().with_token(&alice.tokens.access_token);
        used.remove_registration_lock(&proof).await.unwrap();
        assert_eq!(problem(used.remove_registration_lock(&proof).await.unwrap_err()).code, ErrorCode::CodeRejected);
        assert_eq!(last_event(&alice).await, TrailEvent::RegistrationLockRemoved);
        assert!(!alice.rest.registration_lock().await.unwrap().enabled);
        login(&node, &stranger).await.unwrap();
        // Without one nothing changes, and the trail does not grow.
        let entries = alice.rest.trail(0, 200).await.unwrap().items.len();
        used.remove_registration_lock(&again(&node, &alice).await).await.unwrap();
        assert_eq!(alice.rest.trail(0, 200).await.unwrap().items.len(), entries);
    }

    async fn with_a_second_factor_that_is_asked_for_instead(database) {
        let settings = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__SECOND_FACTOR_UNDO_HOURS", "0")];
        let node = TestNode::with(database, &settings).await;
        let account = Account::with_second_factor(&node, "alice").await;
        let mut proof = again(&node, &account.device).await;
        let request = SetRegistrationLock::new(PIN, proof.clone());
        let refused = problem(account.device.rest.set_registration_lock(&request).await.unwrap_err());
        assert_eq!(refused.code, ErrorCode::SecondFactorRequired);
        proof.backup_code = Some(account.backup_codes[0].clone());
        account.device.rest.set_registration_lock(&SetRegistrationLock::new(PIN, proof)).await.unwrap();
        let stranger = account.request(&node).await;
        let asked = login(&node, &with_pin(&stranger, PIN)).await.err().unwrap();
        assert_eq!((asked.code, methods(&asked)), (ErrorCode::SecondFactorRequired, vec![
            "totp".to_owned(),
            "backup_code".to_owned(),
        ]));
    }

    async fn a_stranger_does_not_register_the_number(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let unlocked = try_register(&node, &registration(&node, &alice.phone, Some(PIN)).await).await.err().unwrap();
        assert_eq!((unlocked.status, unlocked.more.contains_key("available_at")), (409, true));
        assert!(!unlocked.more.contains_key("methods"), "sign in instead");
        set_pin(&node, &alice, PIN).await;
        let thief = registration(&node, &alice.phone, None).await;
        let kept = try_register(&node, &thief).await.err().unwrap();
        assert_eq!((kept.status, kept.code, methods(&kept)), (409, ErrorCode::Conflict, vec!["pin".to_owned()]));
        let until = kept.more["available_at"].clone();
        let until: Timestamp = serde_json::from_value(until).unwrap();
        let away = until.since(Timestamp::now()).as_secs();
        assert!((7 * DAY - 120..=7 * DAY).contains(&away), "{away}");
        let asked = try_register(&node, &RegisterRequest { replace: Some(true), ..thief.clone() }).await.err().unwrap();
        assert_eq!((asked.status, asked.code), (409, ErrorCode::Conflict), "it is too early to ask for it");
        not_accepted(
            try_register(&node, &RegisterRequest { pin: Some(OTHER_PIN.to_owned()), ..thief.clone() }).await,
            "/pin",
            4,
        );
        alice.rest.me().await.unwrap();
        // A second factor is asked for instead, and no PIN that was not set frees anything.
        let account = Account::with_second_factor(&node, "bob").await;
        let thief = registration(&node, &account.device.phone, Some(PIN)).await;
        let kept = try_register(&node, &thief).await.err().unwrap();
        assert_eq!((kept.status, kept.more.contains_key("available_at")), (409, true));
        assert_eq!(methods(&kept), ["totp", "backup_code"]);
    }

    async fn an_application_goes_the_whole_way(database) {
        let node = TestNode::start(database).await;
        let (phone, options) = (fresh_phone(), Options::new(&node.url));
        let sign_in = async |purpose| {
            let verification = Client::verify(&node.url, &phone, purpose).await.unwrap();
            SignIn::new(verification.verification_id, node.code_for(&phone), info("app"))
        };
        let entry = sign_in(Purpose::Registration).await;
        let client = Client::register(options.clone(), Store::in_memory().unwrap(), entry).await.unwrap();
        let proof = async || {
            let SignIn { verification_id, code, .. } = sign_in(Purpose::RegistrationLock).await;
            Reauthentication::by_code(verification_id, code)
        };
        client.set_registration_lock(PIN, proof().await).await.unwrap();
        assert!(client.registration_lock().await.unwrap().enabled);
        let entry = sign_in(Purpose::Login).await;
        let store = Store::in_memory().unwrap();
        let asked = Client::login(options.clone(), store.clone(), entry.clone()).await.err().unwrap();
        assert!(asked.needs_second_factor());
        let wrong = Client::login(options.clone(), store.clone(), entry.clone().with_pin(OTHER_PIN)).await;
        assert!(wrong.err().unwrap().needs_second_factor());
        let tablet = Client::login(options.clone(), store, entry.with_pin(PIN)).await.unwrap();
        assert_eq!(tablet.user_id(), client.user_id());
        client.remove_registration_lock(&proof().await.with_pin(PIN)).await.unwrap();
        let entry = sign_in(Purpose::Login).await;
        Client::login(options, Store::in_memory().unwrap(), entry).await.unwrap();
    }
}
