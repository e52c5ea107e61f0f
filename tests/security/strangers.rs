//! The stranger budget: an attacker with 200 networks and 200 accounts does everything that the interface allows to one victim,
//! from every network and account. The limits are sliding windows, so a burst does at once what an hour of it could.
//! Afterwards the victim, with one network and one device, signs in, gets codes, sends and receives, and what was written about the
//! victim lies below the stated bounds.

use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, register, shared};
use crate::support::wire::next_of;
use serde_json::{Value, json};
use sotto_client::protocol::UserId;
use sotto_client::protocol::auth::{LoginRequest, Purpose};
use sotto_client::{DeviceKeys, HeaderMap, Method, Rest};
use sotto_schema::{Store, StoreSettings, inspect};
use std::collections::BTreeMap;
use std::process::Command;
use uuid::Uuid;

const NETWORKS: u8 = 200;
const ACCOUNTS: &str = "200";
/// The victim's own network, and that of the proxy in front.
const HOME: &str = "203.0.113.7";

/// Rows of the victim's account log that strangers may cause: one per conversation and one per contact whose devices changed, and each
/// stranger makes one direct conversation and one group with the victim.
const MOST_EVENTS: i64 = 200 * 3 + 50;
/// Their bytes.
const MOST_EVENT_BYTES: i64 = 1024 * 1024;
/// Messages that strangers may leave: three each before an answer.
const MOST_MESSAGES: i64 = 200 * 3;
/// Verifications of the victim's number that strangers may start.
const MOST_VERIFICATIONS: i64 = 60;
/// Rows of the victim's sign-in history.
const MOST_LOGINS: i64 = 300;

/// One who asks from many places.
struct Attacker<'a> {
    node: &'a TestNode,
    /// How often each status was answered, by route.
    answers: BTreeMap<(String, u16), usize>,
}

impl Attacker<'_> {
    async fn ask(
        &mut self,
        address: &str,
        token: Option<&str>,
        call: (&str, &str),
        body: Option<Value>,
    ) -> (u16, Value) {
        let answer = ask(self.node, address, token, call, body).await;
        // Ids make routes out of paths again.
        let path: Vec<_> =
            call.1.split('/').map(|part| if Uuid::parse_str(part).is_ok() { "{id}" } else { part }).collect();
        *self.answers.entry((format!("{} {}", call.0, path.join("/")), answer.0)).or_default() += 1;
        assert!(answer.0 < 500 || answer.0 == 503, "{call:?}: {answer:?}");
        answer
    }
}

async fn ask(
    node: &TestNode,
    address: &str,
    token: Option<&str>,
    (method, path): (&str, &str),
    body: Option<Value>,
) -> (u16, Value) {
    let rest = Rest::new(&node.url).unwrap();
    let rest = token.map_or(rest.clone(), |token| rest.with_token(token));
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", address.parse().unwrap());
    let method: Method = method.parse().unwrap();
    let body = body.map(|body| body.to_string().into_bytes());
    let answer = rest.raw(method, path, headers, body).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

fn sign_in(verification: &str) -> Value {
    let keys = DeviceKeys::generate().sign_in_keys(1).unwrap();
    json!({"verification_id": verification, "code": "x00000", "device": info("stranger"), "keys": keys})
}

/// Accounts of the attacker's, made in the database: signing 200 up is bounded by itself.
async fn accounts(node: &TestNode) -> Vec<(Uuid, String)> {
    let out = node.folder.path().join("strangers.jsonl");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command.args(["user", "seed", "--count", ACCOUNTS, "--pairs", "--out"]).arg(&out).env_clear();
    command.env("SOTTO_DATA__DIR", node.folder.path()).env("SOTTO_STORE__URL", &node.store_url);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::fs::read_to_string(node.folder.path().join("strangers.jsonl")).unwrap();
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        (value["user_id"].as_str().unwrap().parse().unwrap(), value["access_token"].as_str().unwrap().to_owned())
    };
    lines.lines().map(line).collect()
}

/// What strangers without an account can do to a number.
async fn without_an_account(attacker: &mut Attacker<'_>, victim: &Device) {
    for network in 0..NETWORKS {
        let address = format!("198.51.{network}.1");
        let purposes = ["login", "recovery", "registration", "phone_change", "account_deletion"];
        for turn in 0..2 {
            let purpose = purposes[(usize::from(network) + turn) % purposes.len()];
            let body = json!({"phone": victim.phone, "purpose": purpose});
            let call = ("POST", "/v1/auth/verifications");
            let (status, answer) = attacker.ask(&address, None, call, Some(body)).await;
            let id = match status {
                201 => answer["verification_id"].as_str().unwrap().to_owned(),
                _ => Uuid::new_v4().to_string(),
            };
            let paths = ["/v1/auth/login", "/v1/auth/recover", "/v1/auth/register"];
            let path = paths[usize::from(network) % paths.len()];
            attacker.ask(&address, None, ("POST", path), Some(sign_in(&id))).await;
        }
        let refresh = json!({"refresh_token": "A".repeat(43)});
        attacker.ask(&address, None, ("POST", "/v1/auth/refresh"), Some(refresh)).await;
        attacker.ask(&address, None, ("POST", "/v1/auth/links"), Some(sign_in(&Uuid::new_v4().to_string()))).await;
    }
}

/// What strangers with an account can do to a user whose id they know.
async fn with_an_account(attacker: &mut Attacker<'_>, strangers: &[(Uuid, String)], victim: UserId) {
    for (number, (_, token)) in strangers.iter().enumerate() {
        let (address, token) = (format!("198.51.{}.1", number % usize::from(NETWORKS)), Some(token.as_str()));
        let body = json!({"type": "direct", "members": [victim]});
        let (status, direct) = attacker.ask(&address, token, ("POST", "/v1/conversations"), Some(body)).await;
        if status == 201 {
            for _ in 0..4 {
                let body = json!({
                    "message_id": Uuid::new_v4(), "conversation_id": direct["conversation_id"],
                    "kind": "text", "ciphertext": "AAEC",
                });
                attacker.ask(&address, token, ("POST", "/v1/messages"), Some(body)).await;
            }
        }
        let body = json!({"type": "group", "members": [victim]});
        let (status, group) = attacker.ask(&address, token, ("POST", "/v1/conversations"), Some(body)).await;
        if status == 201 {
            let path = format!("/v1/conversations/{}/members", group["conversation_id"].as_str().unwrap());
            let members = json!({"user_ids": [victim]});
            attacker.ask(&address, token, ("DELETE", &path), Some(members.clone())).await;
            attacker.ask(&address, token, ("POST", &path), Some(members)).await;
        }
        let keys = format!("/v1/users/{victim}/keys");
        attacker.ask(&address, token, ("GET", &keys), None).await;
    }
}

async fn number(store: &Store, query: &str) -> i64 {
    inspect::texts(store, query).await.unwrap()[0].parse().unwrap()
}

on_both! {
    async fn leave_an_honest_user_everything(database) {
        let settings = [
            ("SOTTO_HTTP__TRUSTED_PROXIES", "127.0.0.0/8"),
            ("SOTTO_DEV__INSECURE", "true"),
            // As on a server that was not configured for tests.
            ("SOTTO_CHALLENGE__KIND", "proof_of_work"),
            ("SOTTO_LIMITS__CODES_PER_HOST_PER_HOUR", "10"),
            ("SOTTO_LIMITS__CODES_PER_REGION_PER_HOUR", "200"),
        ];
        let node = TestNode::with(database, &settings).await;
        let (victim, friend) = (register(&node, "victim").await, register(&node, "friend").await);
        let direct = victim.rest.create_direct(friend.user_id).await.unwrap().conversation_id;
        let strangers = accounts(&node).await;
        let mut attacker = Attacker { node: &node, answers: BTreeMap::new() };
        without_an_account(&mut attacker, &victim).await;
        with_an_account(&mut attacker, &strangers, victim.user_id).await;
        for ((route, status), count) in &attacker.answers {
            println!("{count:6} × {status} {route}");
        }

        // The device that is signed in, with a code for its own number.
        let token = Some(victim.tokens.access_token.as_str());
        let body = json!({"phone": victim.phone, "purpose": "registration_lock"});
        let (status, answer) = ask(&node, HOME, token, ("POST", "/v1/auth/verifications"), Some(body)).await;
        assert_eq!(status, 201, "{answer}");
        let (id, code) = (answer["verification_id"].clone(), node.code_for(&victim.phone));
        let body = json!({"pin": "2580", "verification_id": id, "code": code});
        let (status, answer) = ask(&node, HOME, token, ("PUT", "/v1/auth/registration_lock"), Some(body)).await;
        assert_eq!(status, 204, "{answer}");
        // A second device, from the network that the account signed in from before.
        let verification = Rest::new(&node.url).unwrap().verify(&victim.phone, Purpose::Login).await.unwrap();
        let request = LoginRequest {
            verification_id: verification.verification_id,
            code: node.code_for(&victim.phone),
            device: info("tablet"),
            keys: DeviceKeys::generate().sign_in_keys(1).unwrap(),
            device_proof: None,
            totp: None,
            backup_code: None,
            pin: Some("2580".to_owned()),
        };
        let tablet = Rest::new(&node.url).unwrap().login(&request).await.unwrap();
        assert_eq!(tablet.user_id, victim.user_id);
        // Messages, both ways.
        let (mut socket, _) = friend.socket().await;
        victim.rest.send_message(&shared(direct, "still here"), None).await.unwrap();
        next_of(&mut socket, "new_message").await;
        friend.rest.send_message(&shared(direct, "so am I"), None).await.unwrap();
        let page = victim.rest.history(direct, Default::default()).await.unwrap();
        assert_eq!(page.items.len(), 2);
        // Somebody new joins.
        let phone = fresh_phone();
        let body = json!({"phone": phone, "purpose": "registration"});
        let (status, answer) = ask(&node, "192.0.2.99", None, ("POST", "/v1/auth/verifications"), Some(body)).await;
        assert_eq!(status, 201, "{answer}");

        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let user = match store.kind() {
            "postgres" => format!("'{}'", Uuid::from(victim.user_id)),
            _ => format!("x'{}'", Uuid::from(victim.user_id).simple()),
        };
        let count = |what: &str| format!("SELECT CAST({what} AS TEXT) AS text");
        let events = count("COUNT(*)") + &format!(" FROM account_events WHERE user_id = {user}");
        let bytes = count("COALESCE(SUM(LENGTH(CAST(body AS TEXT))), 0)")
            + &format!(" FROM account_events WHERE user_id = {user}");
        let messages = count("COUNT(*)") + " FROM messages WHERE kind <> 'system'";
        let verifications = count("COUNT(*)") + &format!(" FROM verifications WHERE phone = '{}'", victim.phone);
        let logins = count("COUNT(*)") + &format!(" FROM logins WHERE user_id = {user}");
        for (what, query, most) in [
            ("events", events, MOST_EVENTS),
            ("bytes of events", bytes, MOST_EVENT_BYTES),
            ("messages", messages, MOST_MESSAGES + 2),
            ("verifications", verifications, MOST_VERIFICATIONS),
            ("tries in the history", logins, MOST_LOGINS),
        ] {
            let found = number(&store, &query).await;
            println!("{what}: {found}, at most {most}");
            assert!(found <= most, "{what}: {found}, more than {most}");
        }
    }
}
