//! Guesses beyond a limit tell nothing: for every route that takes a code, a second factor or a PIN, a right one and a wrong one get
//! the same answer in the same time while a limit is reached, and each takes a try of its verification.
//!
//! The table names what each route of the route table takes; a route without a row fails the test.

use crate::device_links::Newcomer;
use crate::second_factor::{App, early_in_a_step};
use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, proof, register, second_device};
use crate::uniformity::{CHANCE, distance, median};
use serde_json::{Value, json};
use sotto::http::ROUTES;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::registration_lock::SetRegistrationLock;
use sotto_client::{DeviceKeys, HeaderMap, Rest};
use sotto_schema::{Store, StoreSettings};
use std::collections::BTreeSet;
use std::time::Instant;
use uuid::Uuid;

/// Pairs per route and secret.
const PAIRS: usize = 30;
const PIN: &str = "2580";

/// What a route takes that could be guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// A secret of 256 random bits, which needs no limit.
    LongSecret,
    /// A code for this purpose, and what stands behind it.
    Code(&'static str),
    /// The same from a device that is signed in.
    Proof(&'static str),
}
use Takes::{Code, LongSecret, Nothing, Proof};

const TABLE: &[(&str, Takes)] = &[
    ("POST /v1/auth/verifications", Nothing),
    ("POST /v1/auth/register", Code("registration")),
    ("POST /v1/auth/login", Code("login")),
    ("POST /v1/auth/recover", Code("recovery")),
    ("POST /v1/auth/refresh", LongSecret),
    ("POST /v1/auth/logout", Nothing),
    ("GET /v1/auth/me", Nothing),
    ("GET /v1/auth/totp", Nothing),
    ("POST /v1/auth/totp", Nothing),
    ("POST /v1/auth/totp/enable", Proof("second_factor")),
    ("POST /v1/auth/totp/undo", Proof("second_factor")),
    ("POST /v1/auth/totp/disable", Proof("second_factor")),
    ("POST /v1/auth/backup_codes", Proof("second_factor")),
    ("GET /v1/auth/registration_lock", Nothing),
    ("PUT /v1/auth/registration_lock", Proof("registration_lock")),
    ("POST /v1/auth/registration_lock/remove", Proof("registration_lock")),
    ("POST /v1/auth/phone", Proof("phone_change")),
    ("GET /v1/auth/deletion", Nothing),
    ("POST /v1/auth/deletion", Proof("account_deletion")),
    ("DELETE /v1/auth/deletion", Nothing),
    ("POST /v1/auth/export", Proof("export")),
    ("GET /v1/auth/trail", Nothing),
    ("GET /v1/auth/logins", Nothing),
    ("POST /v1/auth/links", Nothing),
    ("POST /v1/auth/links/{link_id}/scan", LongSecret),
    ("POST /v1/auth/links/{link_id}/confirm", Proof("device_link")),
    ("POST /v1/auth/links/{link_id}/refuse", LongSecret),
    ("POST /v1/auth/links/{link_id}/tokens", LongSecret),
    ("GET /v1/devices", Nothing),
    ("DELETE /v1/devices", Proof("device_removal")),
    ("PATCH /v1/devices/{device_id}", Nothing),
    ("POST /v1/devices/{device_id}/verify", Nothing),
    ("DELETE /v1/devices/{device_id}", Proof("device_removal")),
    ("PUT /v1/keys", Nothing),
    ("GET /v1/keys/count", Nothing),
    ("GET /v1/users/{user_id}/keys", Nothing),
    ("POST /v1/users/lookup", Nothing),
    ("GET /v1/conversations", Nothing),
    ("POST /v1/conversations", Nothing),
    ("GET /v1/conversations/{conversation_id}", Nothing),
    ("GET /v1/conversations/{conversation_id}/members", Nothing),
    ("POST /v1/conversations/{conversation_id}/members", Nothing),
    ("DELETE /v1/conversations/{conversation_id}/members", Nothing),
    ("GET /v1/conversations/{conversation_id}/messages", Nothing),
    ("PUT /v1/conversations/{conversation_id}/read", Nothing),
    ("POST /v1/messages", Nothing),
    ("PUT /v1/messages/{message_id}/read", Nothing),
    ("GET /v1/sync", Nothing),
    ("POST /v1/sync/ack", Nothing),
    ("GET /v1/ws", Nothing),
];

/// Which secret is guessed, and so which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guessed {
    /// The code from the text message; the PIN behind it is always right, so that its hash would show.
    Code,
    /// The code of the authenticator app, behind a right code.
    Totp,
    /// The PIN, behind a right code.
    Pin,
}

/// An account whose strongest guard is that of what is guessed, on a node where one failure is all that there may be.
struct World {
    node: TestNode,
    store: Store,
    device: Device,
    /// For what waits for another device.
    tablet: Device,
    app: Option<App>,
    has_pin: bool,
    newcomer: Newcomer,
}

impl World {
    async fn new(database: Kind, guessed: Guessed) -> Self {
        let (codes, others) = if guessed == Guessed::Code { ("1", "1000") } else { ("1000", "1") };
        let settings = [
            ("SOTTO_AUTH__RESEND_DELAY", "0"),
            ("SOTTO_AUTH__SECOND_FACTOR_UNDO_HOURS", "0"),
            ("SOTTO_LIMITS__REQUESTS_PER_MINUTE", "1000000"),
            ("SOTTO_LIMITS__CODES_PER_NUMBER_PER_HOUR", "1000000"),
            ("SOTTO_LIMITS__CODES_PER_NUMBER_PER_DAY", "1000000"),
            ("SOTTO_LIMITS__CODES_PER_ADDRESS_PER_HOUR", "1000000"),
            ("SOTTO_LIMITS__CODES_PER_BLOCK_PER_HOUR", "1000000"),
            ("SOTTO_LIMITS__CODES_PER_NODE_PER_HOUR", "1000000"),
            ("SOTTO_LIMITS__SIGN_INS_PER_NETWORK_PER_MINUTE", "1000000"),
            ("SOTTO_SMS__BUDGET_PER_HOUR", "20000"),
            ("SOTTO_LIMITS__FAILED_SIGN_INS", codes),
            ("SOTTO_LIMITS__WRONG_SECOND_FACTORS", others),
            ("SOTTO_LIMITS__WRONG_PINS_PER_DAY", others),
        ];
        let node = TestNode::with(database, &settings).await;
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let device = register(&node, "owner").await;
        let tablet = second_device(&node, &device, "tablet").await;
        let newcomer = Newcomer::at(&node, "newcomer").await;
        device.rest.scan_link(newcomer.id(), &newcomer.code()).await.unwrap();
        let mut app = None;
        let has_pin = guessed != Guessed::Totp;
        if has_pin {
            let by_code = proof(&node, &device, Purpose::RegistrationLock).await;
            device.rest.set_registration_lock(&SetRegistrationLock::new(PIN, by_code)).await.unwrap();
        } else {
            let by_code = proof(&node, &device, Purpose::SecondFactor).await;
            early_in_a_step().await;
            let set_up = App::of(&device.rest.set_up_totp().await.unwrap());
            device.rest.enable_totp(&set_up.code(-1), by_code).await.unwrap();
            app = Some(set_up);
        }
        Self { node, store, device, tablet, app, has_pin, newcomer }
    }

    /// A request to a route with a fresh verification, and the verification. With `is_right` the guessed secret is right.
    async fn request(&self, route: &str, takes: Takes, guessed: Guessed, is_right: bool) -> (Value, String) {
        let (Code(purpose) | Proof(purpose)) = takes else { panic!("{route} takes nothing that is guessed") };
        let phone = if purpose == "phone_change" { fresh_phone() } else { self.device.phone.clone() };
        let rest = Rest::new(&self.node.url).unwrap();
        let purpose: Purpose = serde_json::from_value(json!(purpose)).unwrap();
        let verification = rest.verify(&phone, purpose).await.unwrap().verification_id.to_string();
        let code = self.node.code_for(&phone);
        let mut body = json!({ "verification_id": verification, "code": code });
        match takes {
            Code(_) => {
                body["device"] = crate::bad_input::cases::sign_in()["device"].clone();
                body["keys"] = serde_json::to_value(DeviceKeys::generate().sign_in_keys(1).unwrap()).unwrap();
            }
            _ if route.ends_with("/confirm") => {
                let link = self.newcomer.code();
                body["challenge"] = json!(link.challenge);
                body["identity_key"] = json!(link.identity_key);
            }
            _ if route == "PUT /v1/auth/registration_lock" => body["pin"] = json!("8642"),
            _ => {}
        }
        let pin_field = if route == "PUT /v1/auth/registration_lock" { "current_pin" } else { "pin" };
        if self.has_pin {
            let wrong = guessed == Guessed::Pin && !is_right;
            body[pin_field] = json!(if wrong { "9753" } else { PIN });
        }
        if let Some(app) = &self.app {
            body["totp"] = json!(if is_right { app.code(0) } else { app.wrong() });
        }
        if guessed == Guessed::Code && !is_right {
            body["code"] = json!(if code == "000000" { "000001" } else { "000000" });
        }
        (body, verification)
    }

    async fn ask(&self, route: &str, takes: Takes, body: &Value) -> (u16, Value, f64) {
        let (method, path) = route.split_once(' ').unwrap();
        let path = path
            .replace("{link_id}", &self.newcomer.id().to_string())
            .replace("{device_id}", &self.tablet.device_id.to_string());
        let rest = Rest::new(&self.node.url).unwrap();
        let rest = if matches!(takes, Proof(_)) { rest.with_token(&self.device.tokens.access_token) } else { rest };
        let body = Some(body.to_string().into_bytes());
        let begun = Instant::now();
        let answer = rest.raw(method.parse().unwrap(), &path, HeaderMap::new(), body).await.unwrap();
        let took = begun.elapsed().as_secs_f64();
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default(), took)
    }

    /// Tries that a verification has lost.
    async fn tries(&self, verification: &str) -> i64 {
        let id: Uuid = verification.parse().unwrap();
        super::verification_tries(&self.store, id).await
    }

    /// Holds right and wrong ones against each other while the limit is reached.
    async fn compare(&self, route: &str, takes: Takes, guessed: Guessed) {
        let (first, _) = self.request(route, takes, guessed, false).await;
        self.ask(route, takes, &first).await;
        let mut times: [Vec<f64>; 2] = Default::default();
        let mut answers = BTreeSet::new();
        let mut tries = BTreeSet::new();
        for pair in 0..PAIRS + 5 {
            let right_first = Uuid::new_v4().as_bytes()[0] & 1 == 1;
            for is_right in [right_first, !right_first] {
                let (body, verification) = self.request(route, takes, guessed, is_right).await;
                let (status, mut answer, took) = self.ask(route, takes, &body).await;
                let object = answer.as_object_mut().unwrap();
                // Of each request its own.
                for name in ["request_id", "retry_after_ms", "detail"] {
                    object.remove(name);
                }
                answers.insert(format!("{status} {answer}"));
                tries.insert(self.tries(&verification).await);
                if pair >= 5 {
                    times[usize::from(is_right)].push(took);
                }
            }
        }
        assert_eq!(answers.len(), 1, "{route}, {guessed:?}: {answers:?}");
        assert!(answers.first().unwrap().starts_with("429 "), "{route}, {guessed:?}: {answers:?}");
        assert_eq!(tries, BTreeSet::from([1]), "{route}, {guessed:?}: each guess takes a try");
        let [wrong, right] = &times;
        let (far, medians) = (distance(right, wrong), (median(right) * 1e6, median(wrong) * 1e6));
        assert!(far.abs() < CHANCE, "{route}, {guessed:?}: {far:+.1} deviations apart, medians {medians:?} µs");
    }
}

/// Whether a secret is guessed at a route at all.
fn applies(route: &str, guessed: Guessed) -> bool {
    match guessed {
        // Where there is nothing to change, a set-up has not begun or a second factor is asked for by its own route.
        Guessed::Code => !route.ends_with("/totp/enable"),
        Guessed::Totp => !route.ends_with("/totp/enable") && !route.ends_with("/totp/undo"),
        Guessed::Pin => !route.ends_with("/totp/enable"),
    }
}

async fn guessed(database: Kind, guessed: Guessed) {
    let world = World::new(database, guessed).await;
    for (route, takes) in TABLE {
        if matches!(takes, Code(_) | Proof(_)) && applies(route, guessed) {
            world.compare(route, *takes, guessed).await;
        }
    }
}

#[test]
fn each_route_says_what_it_takes() {
    let routes: BTreeSet<String> =
        ROUTES.iter().flat_map(|route| route.methods.iter().map(|method| format!("{method} {}", route.path))).collect();
    let told: BTreeSet<String> = TABLE.iter().map(|(route, _)| (*route).to_owned()).collect();
    assert_eq!(told, routes);
}

on_both! {
    async fn a_right_code_beyond_the_limit_looks_like_a_wrong_one(database) {
        guessed(database, Guessed::Code).await;
    }

    async fn a_right_second_factor_beyond_the_limit_looks_like_a_wrong_one(database) {
        guessed(database, Guessed::Totp).await;
    }

    async fn a_right_pin_beyond_the_limit_looks_like_a_wrong_one(database) {
        guessed(database, Guessed::Pin).await;
    }
}
