//! Secrets that are planted, and looked for: after a story that uses all of them, none stands in the log, and in the
//! database only where it must.

use crate::device_links::{Newcomer, confirmation};
use crate::registration_lock::set_pin;
use crate::second_factor::{Account, code_for, early_in_a_step, login, request, with_backup_code, with_totp};
use crate::support::database::{Kind, connect};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{fresh_phone, info, register};
use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use serde_json::{Value, json};
use sotto_client::protocol::auth::{
    ChangePhone, DeviceInfo, LoginRequest, Purpose, PushTokens, RecoverRequest, RegisterRequest,
};
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::{Client, DeviceKeys, HeaderMap, Method, Options, Rest, SignIn, Store};
use std::collections::BTreeSet;
use std::time::Duration;

/// A secret, and the columns that it may stand in.
struct Canary {
    what: &'static str,
    bytes: Vec<u8>,
    may: &'static [&'static str],
}

#[derive(Default)]
struct Canaries(Vec<Canary>);

impl Canaries {
    fn add(&mut self, what: &'static str, secret: impl AsRef<[u8]>) {
        self.add_with(what, secret, &[]);
    }

    fn add_with(&mut self, what: &'static str, secret: impl AsRef<[u8]>, may: &'static [&'static str]) {
        let bytes = secret.as_ref().to_vec();
        assert!(bytes.len() >= 6, "{what} is too short to be found");
        self.0.push(Canary { what, bytes, may });
    }
}

impl Canary {
    /// Returns the forms in which a program might write the secret: as it is, as a list of numbers, in hexadecimal, and in
    /// base64 at each offset. Of base64 only those characters are used that do not depend on the bytes around the secret.
    fn forms(&self) -> Vec<Vec<u8>> {
        let numbers: Vec<String> = self.bytes.iter().map(u8::to_string).collect();
        let mut forms = vec![
            self.bytes.clone(),
            numbers.join(", ").into_bytes(),
            numbers.join(",").into_bytes(),
            HEXLOWER.encode(&self.bytes).into_bytes(),
            HEXUPPER.encode(&self.bytes).into_bytes(),
        ];
        for before in 0..3 {
            let text = [vec![0; before], self.bytes.clone()].concat();
            let own = (before * 8).div_ceil(6)..text.len() * 8 / 6;
            forms.push(BASE64.encode(&text).as_bytes()[own.clone()].to_vec());
            forms.push(BASE64URL_NOPAD.encode(&text).as_bytes()[own].to_vec());
        }
        forms
    }

    /// Whether a text has it. Six digits count as a word only: numbers have digits of their own.
    fn is_in(&self, text: &[u8]) -> bool {
        if self.bytes.len() == 6 && text.split(|byte| !byte.is_ascii_alphanumeric()).any(|word| word == self.bytes) {
            return true;
        }
        let codings = usize::from(self.bytes.len() == 6);
        self.forms().iter().skip(codings).any(|form| memchr::memmem::find(text, form).is_some())
    }
}

#[test]
fn a_canary_is_found_in_every_coding() {
    for secret in ["+4366012345678", "482913", "canary?>~-text"] {
        let canary = Canary { what: "a canary", bytes: secret.as_bytes().to_vec(), may: &[] };
        let mut written = vec![
            format!("told {secret}."),
            format!("{:?}", secret.as_bytes()),
            format!("{:?}", secret.as_bytes()).replace(' ', ""),
            format!("x{}x", HEXLOWER.encode(secret.as_bytes())),
            HEXUPPER.encode(secret.as_bytes()),
        ];
        for before in ["", "a", "ab", "abc"] {
            for after in ["", "y", "yz"] {
                let text = format!("{before}{secret}{after}");
                written.push(BASE64.encode(text.as_bytes()));
                written.push(BASE64URL_NOPAD.encode(text.as_bytes()));
            }
        }
        for text in written {
            assert!(canary.is_in(text.as_bytes()), "{secret} in {text}");
        }
        assert!(!canary.is_in(b"told nothing: [43, 52, 51], 2b343336, KzQz"));
    }
}

/// Every column of every table as text; of SQLite, whose file shows no columns, the file and its log.
async fn dump(node: &TestNode) -> Vec<(String, Vec<u8>)> {
    if node.kind == Kind::Sqlite {
        let read = |name: &str| (name.to_owned(), std::fs::read(node.folder.path().join(name)).unwrap_or_default());
        return vec![read("sotto.db"), read("sotto.db-wal")];
    }
    let database = connect(&node.store_url).await;
    let columns =
        "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = 'public'";
    let mut all = Vec::new();
    for row in database.query(columns, &[]).await.unwrap() {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let read = format!("SELECT string_agg({column}::text, ' ') FROM {table}");
        let text: Option<String> = database.query_one(&read, &[]).await.unwrap().get(0);
        all.push((format!("{table}.{column}"), text.unwrap_or_default().into_bytes()));
    }
    all
}

/// Lines without their time, whose digits are its own.
fn without_times(log: &str) -> Vec<u8> {
    let lines = log.lines().map(|line| line.split_once(' ').map_or(line, |(_, rest)| rest));
    lines.collect::<Vec<_>>().join("\n").into_bytes()
}

/// Two people who write to each other with real encryption.
async fn talk(node: &TestNode, canaries: &mut Canaries) {
    let mut people = Vec::new();
    for name in ["canary-anna-device", "canary-ben-device"] {
        let phone = fresh_phone();
        let verification = Client::verify(&node.url, &phone, Purpose::Registration).await.unwrap();
        let sign_in = SignIn::new(verification.verification_id, node.code_for(&phone), info(name));
        let client = Client::register(Options::new(&node.url), Store::in_memory().unwrap(), sign_in).await.unwrap();
        client.connect();
        client.connected(Duration::from_secs(30)).await.unwrap();
        canaries.add_with("a number of a talk", &phone, &["users.phone", "verifications.phone"]);
        canaries.add_with("a device's name", name, &["devices.name"]);
        people.push(client);
    }
    let [anna, ben] = people.as_slice() else { panic!("two") };
    let direct = anna.direct(ben.user_id()).await.unwrap();
    let mut inbox = ben.events_since(0);
    for (what, text) in
        [("a plaintext", "canary: the treaty is signed at dawn"), ("another plaintext", "canary: under the third oak")]
    {
        canaries.add(what, text);
        anna.send_text(direct, text).await.unwrap();
        let came = tokio::time::timeout(Duration::from_secs(30), inbox.next_message()).await.unwrap().unwrap();
        assert_eq!(came.text(), Some(text));
    }
}

/// Everything of sign-in: codes, tokens, second factor, push tokens, and what was refused.
async fn sign_in(node: &TestNode, canaries: &mut Canaries) {
    let rest = Rest::new(&node.url).unwrap();
    let phone = fresh_phone();
    let (verification_id, code) = code_for(node, &phone, Purpose::Registration).await;
    let push =
        PushTokens { fcm_token: Some("canary-fcm-token".to_owned()), apns_token: Some("canary-apns-token".to_owned()) };
    for token in ["canary-fcm-token", "canary-apns-token"] {
        canaries.add_with("a push token", token, &["devices.push"]);
    }
    let keys = DeviceKeys::generate().sign_in_keys(5).unwrap();
    let device = DeviceInfo { push: Some(push), ..info("pushed") };
    canaries.add("a code of a registration", &code);
    canaries.add_with("a number", &phone, &["users.phone", "verifications.phone"]);
    let tokens = rest
        .register(&RegisterRequest {
            verification_id,
            code,
            device,
            keys,
            totp: None,
            backup_code: None,
            pin: None,
            replace: None,
        })
        .await
        .unwrap();
    canaries.add("a refresh token", &tokens.refresh_token);
    canaries.add("an access token's signature", tokens.access_token.rsplit_once('.').unwrap().1);
    let next = rest.refresh(&tokens.refresh_token).await.unwrap();
    canaries.add("its successor", &next.refresh_token);
    canaries.add("the next access token", &next.access_token);

    early_in_a_step().await;
    let account = Account::with_second_factor(node, "factor").await;
    canaries.add("the code that has enabled the second factor", &account.spent);
    canaries.add("the secret of a second factor, as text", account.app.secret());
    canaries.add("the secret of a second factor", BASE32_NOPAD.decode(account.app.secret().as_bytes()).unwrap());
    canaries.add("a backup code that is used", &account.backup_codes[0]);
    canaries.add("a backup code", &account.backup_codes[1]);
    let request = account.request(node).await;
    canaries.add("a code of a sign-in", &request.code);
    let wrong = account.app.wrong();
    assert!(login(node, &with_totp(&request, &wrong)).await.is_err());
    canaries.add("a second factor that was wrong", &wrong);
    let shown = account.app.code(0);
    login(node, &with_totp(&request, &shown)).await.unwrap();
    canaries.add("a code of the second factor", &shown);
    let again = account.request(node).await;
    login(node, &with_backup_code(&again, &account.backup_codes[0])).await.unwrap();

    // What is refused is not remembered either.
    for (path, body) in [
        ("/v1/auth/refresh", json!({"refresh_token": "canary-refresh-token-canary-refresh-token-x"})),
        ("/v1/auth/login", json!({"verification_id": "canary-verification", "code": "canary-code"})),
        ("/v1/nowhere?token=canary-in-a-query", Value::Null),
        ("/v1/users/canary-in-a-path/keys", Value::Null),
    ] {
        let headers =
            HeaderMap::from_iter([("authorization".parse().unwrap(), "Bearer canary.bearer.token".parse().unwrap())]);
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        assert!(rest.raw(Method::POST, path, headers, body).await.unwrap().status >= 400);
    }
    for text in [
        "canary-refresh-token",
        "canary-verification",
        "canary-code",
        "canary-in-a-query",
        "canary-in-a-path",
        "canary.bearer.token",
    ] {
        canaries.add("something that was refused", text);
    }
}

/// A device that is linked by its QR code, and an account that will be deleted.
async fn link_and_delete(node: &TestNode, canaries: &mut Canaries) {
    let owner = register(node, "owner").await;
    let newcomer = Newcomer::at(node, "linked").await;
    canaries.add("the secret of a link", newcomer.begun.link_secret.as_ref());
    canaries.add("the challenge of a link", newcomer.begun.challenge.as_ref());
    owner.rest.scan_link(newcomer.id(), &newcomer.code()).await.unwrap();
    let confirmation = confirmation(node, &owner, &newcomer).await;
    owner.rest.confirm_link(newcomer.id(), &confirmation).await.unwrap();
    let tokens = newcomer.tokens().await;
    canaries.add("the refresh token of a linked device", &tokens.refresh_token);
    let (verification_id, code) = code_for(node, &owner.phone, Purpose::AccountDeletion).await;
    canaries.add("a code of a deletion", &code);
    let proof = Reauthentication::by_code(verification_id, code);
    owner.rest.request_deletion(&proof).await.unwrap();
}

/// A number that is protected, changed, and recovered with.
async fn lock_and_recover(node: &TestNode, canaries: &mut Canaries) {
    let owner = register(node, "locked").await;
    let (pin, wrong) = ("719356284071", "170482653917");
    canaries.add("a PIN", pin);
    canaries.add("a PIN that was wrong", wrong);
    set_pin(node, &owner, pin).await;
    let stranger = request(node, &owner.phone, Purpose::Login).await;
    assert!(login(node, &LoginRequest { pin: Some(wrong.to_owned()), ..stranger }).await.is_err());
    let new = fresh_phone();
    canaries.add_with("another number", &new, &["users.phone", "verifications.phone", "account_events.body"]);
    let (verification_id, code) = code_for(node, &new, Purpose::PhoneChange).await;
    canaries.add("a code of a change of number", &code);
    let pin = Some(pin.to_owned());
    let change = ChangePhone {
        verification_id,
        code,
        totp: None,
        backup_code: None,
        pin: pin.clone(),
        old_verification_id: None,
        old_code: None,
    };
    owner.rest.change_phone(&change).await.unwrap();
    let (verification_id, code) = code_for(node, &new, Purpose::Recovery).await;
    canaries.add("a code of a recovery", &code);
    let keys = DeviceKeys::generate().sign_in_keys(2).unwrap();
    let recover =
        RecoverRequest { verification_id, code, device: info("found"), keys, totp: None, backup_code: None, pin };
    let tokens = Rest::new(&node.url).unwrap().recover(&recover).await.unwrap();
    canaries.add("the refresh token of a recovery", &tokens.refresh_token);
}

on_both! {
    async fn planted_secrets_are_found_nowhere(database) {
        let settings = [
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_LOG__LEVEL", "trace"),
            ("SOTTO_SMS__TWILIO__AUTH_TOKEN", "canary-of-the-gateway"),
        ];
        let node = TestNode::with(database, &settings).await;
        let mut canaries = Canaries::default();
        canaries.add("the gateway's token", "canary-of-the-gateway");
        let file: Value = serde_json::from_slice(&std::fs::read(node.folder.path().join("secret.key")).unwrap()).unwrap();
        let secrets: Vec<&str> = strings(&file).into_iter().filter(|text| text.len() >= 40).collect();
        assert!(!secrets.is_empty(), "the form of secret.key has changed");
        for secret in secrets {
            canaries.add("a secret key", secret);
        }
        talk(&node, &mut canaries).await;
        sign_in(&node, &mut canaries).await;
        link_and_delete(&node, &mut canaries).await;
        lock_and_recover(&node, &mut canaries).await;
        let whats: BTreeSet<_> = canaries.0.iter().map(|canary| canary.bytes.clone()).collect();
        assert!(whats.len() >= 20, "{} canaries", whats.len());

        let mut found = Vec::new();
        let log = without_times(&node.log());
        assert!(memchr::memmem::find(&log, b"sotto::access").is_some(), "requests are logged");
        let dump = dump(&node).await;
        for canary in &canaries.0 {
            if canary.is_in(&log) {
                found.push(format!("{} is in the log", canary.what));
            }
            for (column, text) in &dump {
                // SQLite's file shows no columns; PostgreSQL has told that the others are clean.
                let may = canary.may.contains(&column.as_str()) || (database == Kind::Sqlite && !canary.may.is_empty());
                if !may && canary.is_in(text) {
                    found.push(format!("{} is in {column}", canary.what));
                }
            }
            // Where it must be it is, so that the search is known to find.
            let there = |column: &&str| dump.iter().any(|(name, text)| (name == *column || database == Kind::Sqlite) && canary.is_in(text));
            assert!(canary.may.is_empty() || canary.may.iter().any(there), "{} is not found", canary.what);
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(members) => members.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}
