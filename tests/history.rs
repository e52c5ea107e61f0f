//! An account's past: the trail that its devices verify, and the history of tries to sign in.

use crate::second_factor::{Account, code_for, early_in_a_step, login, request, with_backup_code, with_totp};
use crate::support::database::Kind;
use crate::support::node::{TestNode, text};
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, register, second_device};
use serde_json::{Value, json};
use sotto_client::protocol::auth::{Purpose, RegisterRequest};
use sotto_client::protocol::logins::Login;
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::timestamp::Timestamp;
use sotto_client::protocol::trail::{Removal, TrailEntry, TrailEvent};
use sotto_client::{
    Client, DeviceKeys, Error, HeaderMap, Method, Options, Rest, SignIn, Store, TrailFault, TrailVerifier,
};
use sotto_schema::rows::logins::{LoginOf, LoginWay, RefusedLogin};
use sotto_schema::{StoreSettings, inspect};
use std::time::Duration;

/// The whole trail of a device's account, verified.
async fn verified(device: &Device) -> Vec<TrailEntry> {
    let (mut verifier, mut after, mut entries) = (TrailVerifier::new(device.user_id, None), 0, Vec::new());
    loop {
        let page = device.rest.trail(after, 2).await.unwrap();
        for item in &page.items {
            entries.push(verifier.follow(item).unwrap());
            after = item.seq;
        }
        if page.next.is_none() {
            verifier.end(&page.head).unwrap();
            return entries;
        }
    }
}

async fn events(device: &Device) -> Vec<TrailEvent> {
    verified(device).await.into_iter().map(|entry| entry.event).collect()
}

/// The history as soon as it has so many entries.
pub async fn logins(device: &Device, count: usize) -> Vec<Login> {
    let begun = std::time::Instant::now();
    loop {
        let page = device.rest.logins(None, 200).await.unwrap();
        if page.items.len() >= count {
            return page.items;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", page.items);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

on_both! {
    async fn the_trail_tells_what_happened_to_an_account(database) {
        let mut node = TestNode::start(database).await;
        node.expect_log("a refresh token was used twice");
        let account = Account::with_second_factor(&node, "phone").await;
        let device = &account.device;
        let by_backup = with_backup_code(&account.request(&node).await, &account.backup_codes[0]);
        let second = login(&node, &by_backup).await.unwrap();
        early_in_a_step().await;
        let by_totp = with_totp(&account.request(&node).await, &account.app.code(0));
        let third = login(&node, &by_totp).await.unwrap();
        let rest = Rest::new(&node.url).unwrap();
        rest.with_token(&second.access_token).logout().await.unwrap();
        // A copy of a refresh token.
        let next = rest.refresh(&third.refresh_token).await.unwrap();
        rest.with_token(&next.access_token).me().await.unwrap();
        assert!(rest.refresh(&third.refresh_token).await.is_err());
        let mut proof = account.again(&node).await;
        proof.backup_code = Some(account.backup_codes[1].clone());
        let codes = device.rest.renew_backup_codes(&proof).await.unwrap().backup_codes;
        let mut proof = account.again(&node).await;
        proof.backup_code = Some(codes[0].clone());
        device.rest.disable_totp(&proof).await.unwrap();
        let (second, third) = (second.device_id, third.device_id);
        assert_eq!(events(device).await, [
            TrailEvent::Registered { device_id: device.device_id },
            TrailEvent::SecondFactorEnabled,
            TrailEvent::BackupCodeUsed,
            TrailEvent::DeviceAdded { device_id: second },
            TrailEvent::DeviceAdded { device_id: third },
            TrailEvent::DeviceRemoved { device_id: second, reason: Removal::SignedOut },
            TrailEvent::RefreshTokenReused { device_id: third },
            TrailEvent::BackupCodeUsed,
            TrailEvent::BackupCodesRenewed,
            TrailEvent::BackupCodeUsed,
            TrailEvent::SecondFactorDisabled,
        ]);
        let entries = verified(device).await;
        assert!(entries.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert_eq!(entries[3].address.as_deref(), Some("127.0.0.1"));
    }

    async fn what_is_refused_leaves_no_entry(database) {
        let node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "phone").await;
        let before = events(&account.device).await;
        let request = account.request(&node).await;
        login(&node, &with_totp(&request, &account.app.wrong())).await.err().unwrap();
        login(&node, &request).await.err().unwrap();
        let mut proof = account.again(&node).await;
        proof.totp = Some(account.app.wrong());
        account.device.rest.disable_totp(&proof).await.unwrap_err();
        assert_eq!(events(&account.device).await, before);
    }

    async fn devices_that_come_at_once_at_two_nodes_make_one_chain(database) {
        let node = TestNode::start(database).await;
        let other = node.sibling().await;
        let alice = register(&node, "alice").await;
        let mut requests = Vec::new();
        for _ in 0..8 {
            requests.push(request(&node, &alice.phone, Purpose::Login).await);
        }
        let mut all = tokio::task::JoinSet::new();
        for (number, request) in requests.into_iter().enumerate() {
            let url = if number % 2 == 0 { node.url.clone() } else { other.url.clone() };
            all.spawn(async move { Rest::new(&url).unwrap().login(&request).await.map(|tokens| tokens.device_id) });
        }
        let added: std::collections::BTreeSet<_> = all.join_all().await.into_iter().map(Result::unwrap).collect();
        let told: std::collections::BTreeSet<_> = events(&alice).await.into_iter().filter_map(|event| match event {
            TrailEvent::DeviceAdded { device_id } => Some(device_id),
            _ => None,
        }).collect();
        assert_eq!((told.len(), told), (8, added));
    }

    async fn a_changed_trail_is_not_believed(database) {
        let node = TestNode::start(database).await;
        let phone = fresh_phone();
        let (verification_id, code) = code_for(&node, &phone, Purpose::Registration).await;
        let sign_in = SignIn::new(verification_id, code, info("phone"));
        let client = Client::register(Options::new(&node.url), Store::in_memory().unwrap(), sign_in).await.unwrap();
        let (user, rest) = (text(client.user_id()), client.rest().await.unwrap());
        for _ in 0..2 {
            login(&node, &request(&node, &phone, Purpose::Login).await).await.unwrap();
        }
        let first = client.trail().await.unwrap();
        assert_eq!((first.entries.len(), first.head.seq), (3, 3));
        assert!(client.trail().await.unwrap().entries.is_empty(), "nothing is new");
        login(&node, &request(&node, &phone, Purpose::Login).await).await.unwrap();
        assert_eq!(client.trail().await.unwrap().entries.len(), 1);
        assert_eq!(client.whole_trail().await.unwrap().entries.len(), 4);
        let of_user = match database {
            Kind::Postgres => format!("user_id = '{user}'"),
            Kind::Sqlite => format!("user_id = x'{}'", user.replace('-', "")),
        };
        let store = sotto_schema::Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let change = async |statement: &str| {
            inspect::execute(&store, &statement.replace("OF_USER", &of_user)).await.unwrap();
        };
        // Somebody hides a device.
        change("UPDATE trail SET entry = replace(entry, 'device_added', 'device_added ') WHERE OF_USER AND seq = 3").await;
        assert!(matches!(client.whole_trail().await, Err(Error::Trail(TrailFault::Altered { seq: 3 }))));
        change("UPDATE trail SET entry = replace(entry, 'device_added ', 'device_added') WHERE OF_USER AND seq = 3").await;
        client.whole_trail().await.unwrap();
        // … or everything since.
        change("DELETE FROM trail WHERE OF_USER AND seq > 2").await;
        assert!(client.whole_trail().await.is_err());
        change("UPDATE trail_heads SET seq = 2, hash = (SELECT hash FROM trail WHERE OF_USER AND seq = 2) WHERE OF_USER").await;
        let cut = client.trail().await;
        assert!(matches!(cut, Err(Error::Trail(TrailFault::Shortened { verified: 4, found: 2 }))), "{cut:?}");
        // And goes on from there as if nothing had been.
        for _ in 0..3 {
            login(&node, &request(&node, &phone, Purpose::Login).await).await.unwrap();
        }
        let forked = client.trail().await;
        assert!(matches!(forked, Err(Error::Trail(TrailFault::Forked { verified: 4 }))), "{forked:?}");
        // A device that has verified nothing cannot know.
        let page = rest.trail(0, 200).await.unwrap();
        let mut stranger = TrailVerifier::new(client.user_id(), None);
        assert!(page.items.iter().all(|item| stranger.follow(item).is_ok()));
    }

    async fn a_trail_is_read_by_its_user_page_by_page(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        second_device(&node, &alice, "tablet").await;
        assert_eq!(events(&bob).await, [TrailEvent::Registered { device_id: bob.device_id }]);
        let page = alice.rest.trail(0, 1).await.unwrap();
        assert_eq!((page.items.len(), page.next.as_deref(), page.head.seq), (1, Some("1"), 2));
        let ask = async |query: &str| {
            let path = format!("/v1/auth/trail?{query}");
            let answer = alice.rest.raw(Method::GET, &path, HeaderMap::new(), None).await.unwrap();
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            (answer.status, body["code"].as_str().map(str::to_owned), body["items"].as_array().map(Vec::len))
        };
        assert_eq!(ask("after=2").await, (200, None, Some(0)));
        assert_eq!(ask("after=99").await, (200, None, Some(0)));
        for wrong in ["after=-1", "after=x", "after=9999999999999999999", "after="] {
            assert_eq!(ask(wrong).await, (400, Some("cursor_unknown".to_owned()), None), "{wrong}");
        }
    }

    async fn tries_to_sign_in_are_told_to_their_user(database) {
        let mut node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "phone").await;
        let alice = &account.device;
        let mut wrong = account.request(&node).await;
        let right = std::mem::replace(&mut wrong.code, "x00000".to_owned());
        login(&node, &wrong).await.err().unwrap();
        wrong.code = right;
        login(&node, &wrong).await.err().unwrap();
        login(&node, &with_totp(&wrong, &account.app.wrong())).await.err().unwrap();
        let tokens = login(&node, &with_backup_code(&wrong, &account.backup_codes[0])).await.unwrap();
        // Somebody wants the number for himself.
        let (verification_id, code) = code_for(&node, &alice.phone, Purpose::Registration).await;
        let keys = DeviceKeys::generate().sign_in_keys(2).unwrap();
        let again = RegisterRequest { verification_id, code, device: info("thief"), keys, totp: None, backup_code: None, pin: None, replace: None };
        let again = Rest::new(&node.url).unwrap().register(&again).await.map(|_| ()).unwrap_err();
        assert_eq!(again.code(), Some(ErrorCode::Conflict));
        let told = logins(alice, 6).await;
        let words: Vec<_> = told.iter().map(|login| (login.method.as_str(), login.outcome.as_str())).collect();
        assert_eq!(words, [
            ("registration", "refused"),
            ("code_backup_code", "signed_in"),
            ("code_totp", "wrong_second_factor"),
            ("code", "second_factor_required"),
            ("code", "wrong_code"),
            ("registration", "signed_in"),
        ]);
        assert_eq!(told[1].device_id, Some(tokens.device_id));
        assert!(told.iter().all(|login| login.address.as_deref() == Some("127.0.0.1")));
        // Pages, one at a time, are the same; and a cursor of somebody else's is none.
        let (mut after, mut paged) = (None, Vec::new());
        loop {
            let page = alice.rest.logins(after.as_deref(), 1).await.unwrap();
            paged.extend(page.items);
            after = page.next;
            if after.is_none() { break }
        }
        assert_eq!(paged, told);
        let cursor = alice.rest.logins(None, 1).await.unwrap().next.unwrap();
        let bob = register(&node, "bob").await;
        assert_eq!(bob.rest.logins(Some(&cursor), 1).await.unwrap_err().code(), Some(ErrorCode::CursorUnknown));
        assert_eq!(logins(&bob, 1).await.len(), 1);
        // What was noted is written when the server stops.
        login(&node, &request(&node, &bob.phone, Purpose::Login).await).await.unwrap();
        assert_eq!(node.terminate().await, Some(0));
        node.restart().await;
        assert_eq!(bob.rest.logins(None, 200).await.unwrap().items.len(), 2);
    }

    async fn a_program_is_named_and_who_has_no_account_leaves_nothing(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let rest = Rest::new(&node.url).unwrap();
        let agent = format!("Messenger/7.1 {}", "x".repeat(1000));
        for phone in [&fresh_phone(), &alice.phone] {
            let verification = rest.verify(phone, Purpose::Login).await.unwrap();
            let mut body = crate::bad_input::cases::sign_in();
            (body["verification_id"], body["code"]) = (json!(verification.verification_id), json!("x00000"));
            let headers = HeaderMap::from_iter([("user-agent".parse().unwrap(), agent.parse().unwrap())]);
            let answer = rest.raw(Method::POST, "/v1/auth/login", headers, Some(body.to_string().into_bytes())).await;
            assert_eq!(answer.unwrap().status, 401);
        }
        let told = logins(&alice, 2).await;
        assert_eq!(told[0].agent.as_deref(), Some(&agent[..200]));
        let store = sotto_schema::Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let rows = inspect::texts(&store, "SELECT outcome AS text FROM logins").await.unwrap();
        assert_eq!(rows.len(), 2, "the other number has no account: {rows:?}");
    }

    async fn whoever_wants_no_addresses_and_no_history_keeps_none(database) {
        let settings = [
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_AUTH__KEEP_ADDRESSES", "false"),
            ("SOTTO_AUTH__LOGIN_HISTORY_DAYS", "0"),
        ];
        let node = TestNode::with(database, &settings).await;
        let alice = register(&node, "alice").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(alice.rest.logins(None, 200).await.unwrap().items, []);
        assert!(verified(&alice).await.iter().all(|entry| entry.address.is_none()));
    }

    async fn months_come_and_go(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        logins(&alice, 1).await;
        let store = sotto_schema::Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let day = Duration::from_secs(86_400);
        let keep = day * 180;
        let mut now = Timestamp::now();
        let mut kept = 0;
        for week in 0..104 {
            now = now.plus(day * 7);
            // Two nodes look after it at once, as nodes do each minute.
            let since = now.minus(keep);
            let (one, other) = tokio::join!(store.keep_logins(since, now), store.keep_logins(since, now));
            one.unwrap();
            other.unwrap();
            let way = LoginWay { method: "code", address: None, agent: Some(format!("week {week}")) };
            let login = RefusedLogin {
                of: LoginOf::Account(alice.user_id),
                outcome: "wrong_code",
                way: Some(way),
                tries: 1,
                first_at: now,
                last_at: now,
            };
            store.note_refused_logins(vec![login]).await.unwrap();
            // Without anybody looking after it there is still room for the next month.
            kept = inspect::texts(&store, "SELECT agent AS text FROM logins").await.unwrap().len();
            assert!(kept <= 36, "{kept} weeks are kept");
        }
        assert!(kept >= 25, "{kept} weeks are kept, of half a year");
        let far = (now.plus(day), uuid::Uuid::max());
        let read = store.logins_before(alice.user_id, now.minus(keep), far, 200).await.unwrap();
        assert_eq!(read.len(), 26, "no older one is told, whether it is there or not");
        if database == Kind::Postgres {
            let months = "SELECT c.relname::text AS text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
                 WHERE i.inhparent = 'logins'::regclass";
            let months = inspect::texts(&store, months).await.unwrap();
            assert!((8..=11).contains(&months.len()), "{months:?}");
        }
    }
}
