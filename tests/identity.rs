//! Sign-in, sessions and the key directory against both databases, below HTTP: what the store and the rules make of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sotto::config::Config;
use sotto::config::challenge::Kind as ChallengeKind;
use sotto::config::value::Seconds;
use sotto::error::ApiError;
use sotto::identity::changes::Changes;
use sotto::identity::history::Tried;
use sotto::identity::secret_key::SecretKeys;
use sotto::identity::session::Caller;
use sotto::identity::sms::{Outbox, Sms};
use sotto::identity::xeddsa::SigningKey;
use sotto::identity::{Identity, device_proof};
use sotto_protocol::auth::{
    DeviceInfo, LoginRequest, LookupRequest, Platform, Purpose, RegisterRequest, Tokens, VerificationRequest,
};
use sotto_protocol::conversation::ConversationType;
use sotto_protocol::keys::{Keys, OneTimeKey, SignedKey, Suite};
use sotto_protocol::problem::ErrorCode;
use sotto_protocol::{Binary, DeviceId, Timestamp, UserId, VerificationId};
use sotto_schema::rows::NewConversation;
use sotto_schema::{Store, StoreSettings};
use uuid::Uuid;

use crate::support::database::{self, Kind};

pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
pub const TRIED: Tried<'static> = Tried { method: "code", address: HERE, agent: None };

/// What the live side was told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl Changes for Told {
    fn devices_changed(&self, user_id: UserId, told: &[UserId]) {
        assert!(told.contains(&user_id));
        self.note(format!("devices {user_id}"));
    }
    fn session_ended(&self, _user_id: UserId, device_id: DeviceId, _family: Uuid) {
        self.note(format!("ended {device_id}"));
    }
    fn keys_low(&self, _user_id: UserId, device_id: DeviceId) {
        self.note(format!("low {device_id}"));
    }
}

pub struct World {
    pub identity: Identity,
    /// Another node on the same store.
    pub other: Identity,
    pub store: Store,
    told: Arc<Told>,
    folder: tempfile::TempDir,
    pub now: Timestamp,
}

impl World {
    pub async fn new(kind: Kind, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = database::fresh(kind, folder.path()).await;
        let store = Store::open(&url, &StoreSettings::default()).await.unwrap();
        sotto_schema::migrate(&store).await.unwrap();
        let mut config = Config::default();
        config.auth.resend_delay = Seconds(0);
        // Everybody is at one address here.
        config.limits.codes_per_host_per_hour = 1000;
        config.challenge.kind = ChallengeKind::None;
        change(&mut config);
        let keys = Arc::new(SecretKeys::random().unwrap());
        let told = Arc::new(Told::default());
        let node = |name: &str| {
            let sms = Sms::outbox(Outbox::open(&folder.path().join("outbox")).unwrap());
            Identity::new(store.clone(), Arc::clone(&keys), sms, Arc::clone(&told) as _, &config, name)
        };
        let (identity, other) = (node("one"), node("two"));
        Self { identity, other, store, told, folder, now: Timestamp::now() }
    }

    pub fn later(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    fn outbox(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("outbox")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn start(&self, phone: &str, purpose: Purpose) -> Result<VerificationId, ApiError> {
        let request = VerificationRequest::new(phone, purpose);
        Ok(self.identity.start_verification(request, None, HERE, self.now).await?.verification_id)
    }

    pub async fn code(&self, phone: &str, purpose: Purpose) -> (VerificationId, String) {
        let id = self.start(phone, purpose).await.unwrap();
        let line = self.outbox().pop().unwrap();
        assert_eq!(line["to"], phone);
        (id, line["code"].as_str().unwrap().to_owned())
    }

    pub async fn register(&self, phone: &str, seed: u8) -> Tokens {
        let (verification_id, code) = self.code(phone, Purpose::Registration).await;
        let request = RegisterRequest {
            verification_id,
            code,
            device: device(),
            keys: keys(seed, 0),
            totp: None,
            backup_code: None,
            pin: None,
            replace: None,
        };
        self.identity.register(request, TRIED, self.now).await.unwrap()
    }

    pub async fn login(&self, phone: &str, seed: u8, proof: bool) -> Result<Tokens, ApiError> {
        let (verification_id, code) = self.code(phone, Purpose::Login).await;
        self.login_with(verification_id, code, seed, proof).await
    }

    async fn login_with(
        &self,
        verification_id: VerificationId,
        code: String,
        seed: u8,
        proof: bool,
    ) -> Result<Tokens, ApiError> {
        let text = device_proof::message(verification_id);
        let proof = proof.then(|| Binary(identity_key(seed).sign(text.as_bytes(), &[3; 64]).unwrap().to_vec()));
        let request = LoginRequest {
            verification_id,
            code,
            device: device(),
            keys: keys(seed, 1000),
            device_proof: proof,
            totp: None,
            backup_code: None,
            pin: None,
        };
        self.identity.login(request, TRIED, self.now).await
    }

    pub async fn caller(&self, tokens: &Tokens) -> Caller {
        self.identity.authenticate(&tokens.access_token, self.now).await.unwrap()
    }
}

fn identity_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes([seed; 32])
}

pub fn device() -> DeviceInfo {
    DeviceInfo {
        name: "Phone".into(),
        platform: Platform::Android,
        fingerprint: None,
        model: None,
        os_version: None,
        app_version: None,
        push: Some(sotto_protocol::auth::PushTokens { fcm_token: Some("t".into()), apns_token: None }),
    }
}

fn signed(seed: u8, key_id: i64, public_key: Vec<u8>) -> SignedKey {
    let signature = identity_key(seed).sign(&public_key, &[9; 64]).unwrap().to_vec();
    SignedKey { key_id, public_key: public_key.into(), signature: signature.into() }
}

fn kyber(fill: u8) -> Vec<u8> {
    let mut key = vec![fill; 1569];
    key[0] = 8;
    key
}

fn one_time(ids: std::ops::Range<i64>) -> Vec<OneTimeKey> {
    ids.map(|key_id| OneTimeKey { key_id, public_key: identity_key(200).public().into() }).collect()
}

pub fn keys(seed: u8, first_id: i64) -> Keys {
    Keys {
        suite: Some(Suite::Signal),
        registration_id: Some(7),
        identity_key: Some(identity_key(seed).public().into()),
        signing_key: None,
        identity_signature: None,
        signed_prekey: Some(signed(seed, 1, identity_key(100).public())),
        one_time_prekeys: Some(one_time(first_id..first_id + 10)),
        pq_last_resort_prekey: Some(signed(seed, 1, kyber(1))),
        pq_one_time_prekeys: Some((first_id..first_id + 2).map(|id| signed(seed, id, kyber(2))).collect()),
    }
}

pub fn status(result: Result<impl Sized, ApiError>) -> (u16, ErrorCode) {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(ApiError(problem)) => (problem.status, problem.code),
    }
}

fn attempts_left(result: Result<impl Sized, ApiError>) -> i64 {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(ApiError(problem)) => {
            assert_eq!(problem.code, ErrorCode::CodeRejected);
            problem.more["attempts_left"].as_i64().unwrap()
        }
    }
}

fn other_code(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}

pub const REJECTED: (u16, ErrorCode) = (401, ErrorCode::CodeRejected);
pub const UNAUTHENTICATED: (u16, ErrorCode) = (401, ErrorCode::Unauthenticated);
pub const CONFLICT: (u16, ErrorCode) = (409, ErrorCode::Conflict);
pub const LIMITED: (u16, ErrorCode) = (429, ErrorCode::RateLimited);

macro_rules! in_a_world {
    ($($name:ident($world:ident, $($config:ident => $change:block)?) $body:block)+) => {
        $(async fn $name(kind: Kind) {
            #[allow(unused_mut, reason = "some of them let time pass")]
            let mut $world = World::new(kind, |_config| { $(let $config = _config; $change)? }).await;
            $body
        })+
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(super::Kind::Sqlite).await; })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(super::Kind::Postgres).await; })+
        }
    };
}
pub(crate) use in_a_world;

in_a_world! {
    a_code_has_five_tries_and_one_use(world, config => { config.limits.enabled = false; }) {
        let (id, code) = world.code("+15550000001", Purpose::Registration).await;
        let register = async |code: String| {
            let request = RegisterRequest { verification_id: id, code, device: device(), keys: keys(1, 0), totp: None, backup_code: None, pin: None, replace: None };
            world.identity.register(request, TRIED, world.now).await
        };
        // What is no try costs none: another purpose, and 422.
        assert_eq!(attempts_left(world.login_with(id, code.clone(), 1, false).await), 0);
        let mut broken = keys(1, 0);
        broken.signed_prekey.as_mut().unwrap().signature.0[3] ^= 1;
        let request = RegisterRequest { verification_id: id, code: code.clone(), device: device(), keys: broken, totp: None, backup_code: None, pin: None, replace: None };
        let ApiError(problem) = world.identity.register(request, TRIED, world.now).await.err().unwrap();
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/keys/signed_prekey/signature"));
        for left in [4, 3, 2, 1] {
            assert_eq!(attempts_left(register(other_code(&code)).await), left);
        }
        register(code.clone()).await.unwrap();
        assert_eq!(attempts_left(register(code.clone()).await), 0);

        let (id, code) = world.code("+15550000002", Purpose::Registration).await;
        for left in [4, 3, 2, 1, 0] {
            let request =
                RegisterRequest { verification_id: id, code: other_code(&code), device: device(), keys: keys(2, 0), totp: None, backup_code: None, pin: None, replace: None };
            assert_eq!(attempts_left(world.identity.register(request, TRIED, world.now).await), left);
        }
        let request = RegisterRequest { verification_id: id, code, device: device(), keys: keys(2, 0), totp: None, backup_code: None, pin: None, replace: None };
        assert_eq!(attempts_left(world.identity.register(request, TRIED, world.now).await), 0);
    }

    a_number_in_use_is_told_after_the_right_code_and_costs_nothing(world,) {
        world.register("+15550000001", 1).await;
        let (verification_id, code) = world.code("+15550000001", Purpose::Registration).await;
        for _ in 0..3 {
            let request =
                RegisterRequest { verification_id, code: code.clone(), device: device(), keys: keys(2, 0), totp: None, backup_code: None, pin: None, replace: None };
            assert_eq!(status(world.identity.register(request, TRIED, world.now).await), CONFLICT);
        }
        let request = RegisterRequest { verification_id, code: other_code(&code), device: device(), keys: keys(2, 0), totp: None, backup_code: None, pin: None, replace: None };
        assert_eq!(attempts_left(world.identity.register(request, TRIED, world.now).await), 4);
    }

    a_code_ends_and_unknown_numbers_get_none(world,) {
        world.register("+15550000001", 1).await;
        let sent = world.outbox().len();
        let unknown = world.start("+15550000009", Purpose::Login).await.unwrap();
        world.start("+15550000009", Purpose::Recovery).await.unwrap();
        assert_eq!(world.outbox().len(), sent);
        assert_eq!(attempts_left(world.login_with(unknown, "123456".into(), 2, false).await), 4);
        assert_eq!(attempts_left(world.login_with(VerificationId::random(), "123456".into(), 2, false).await), 0);
        let (id, code) = world.code("+15550000001", Purpose::Login).await;
        world.later(600);
        assert_eq!(status(world.login_with(id, code, 2, false).await), REJECTED);
        assert_eq!(status(world.start("0041", Purpose::Login).await), (422, ErrorCode::ValidationFailed));
    }

    codes_are_counted_per_number_and_network(world,) {
        for _ in 0..3 {
            world.start("+15550000001", Purpose::Registration).await.unwrap();
        }
        let ApiError(problem) = world.start("+15550000001", Purpose::Registration).await.err().unwrap();
        assert_eq!((problem.status, problem.retry_after_ms), (429, Some(3_600_000)));
        assert_eq!(problem.more["limit"]["name"], "code_number");
        for number in 10..27 {
            world.start(&format!("+155500000{number}"), Purpose::Registration).await.unwrap();
        }
        assert_eq!(status(world.start("+15550000099", Purpose::Registration).await), LIMITED);
        let request = VerificationRequest::new("+15550000099", Purpose::Registration);
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 3, 7));
        world.other.start_verification(request, None, elsewhere, world.now).await.unwrap();
        world.later(3600);
        world.start("+15550000001", Purpose::Registration).await.unwrap();
    }

    the_same_number_waits_for_resend_at(world, config => { config.auth.resend_delay = Seconds(60); }) {
        let request = VerificationRequest::new("+15550000001", Purpose::Registration);
        let first = world.identity.start_verification(request.clone(), None, HERE, world.now).await.unwrap();
        assert_eq!(first.resend_at, world.now.plus(Duration::from_secs(60)));
        assert_eq!(first.expires_at, world.now.plus(Duration::from_secs(600)));
        world.later(59);
        assert_eq!(status(world.identity.start_verification(request.clone(), None, HERE, world.now).await), LIMITED);
        world.later(1);
        world.identity.start_verification(request, None, HERE, world.now).await.unwrap();
    }

    failures_lock_number_and_address_for_a_while(world, config => { config.limits.codes_per_number_per_hour = 10; }) {
        world.register("+15550000001", 1).await;
        let tokens = world.register("+15550000002", 2).await;
        let (id, code) = world.code("+15550000001", Purpose::Login).await;
        for _ in 0..5 {
            assert_eq!(status(world.login_with(id, other_code(&code), 3, false).await), REJECTED);
        }
        assert_eq!(status(world.login_with(id, code, 3, false).await), REJECTED);
        let (id, code) = world.code("+15550000001", Purpose::Login).await;
        assert_eq!(status(world.login_with(id, code.clone(), 3, false).await), LIMITED);
        assert_eq!(status(world.login("+15550000002", 4, false).await), LIMITED);
        // Whoever holds a session goes on.
        world.identity.refresh(&tokens.refresh_token, world.now).await.unwrap();
        world.later(900 - 360);
        assert_eq!(status(world.login_with(id, code.clone(), 3, false).await), LIMITED);
        // Nothing was used up meanwhile; the codes live ten minutes, the lock fifteen.
        world.later(360);
        world.login("+15550000001", 3, false).await.unwrap();
    }

    a_known_device_comes_back_by_proof(world,) {
        let first = world.register("+15550000001", 1).await;
        let caller = world.caller(&first).await;
        let (id, code) = world.code("+15550000001", Purpose::Login).await;
        assert_eq!(status(world.login_with(id, code.clone(), 1, false).await), CONFLICT);
        world.told.take();
        let again = world.login_with(id, code, 1, true).await.unwrap();
        assert_eq!((again.device_id, again.user_id), (first.device_id, first.user_id));
        assert_eq!(world.told.take(), [format!("ended {}", first.device_id)]);
        // The old family is over, here at once and on the other node as soon as it listens.
        assert_eq!(status(world.identity.authenticate(&first.access_token, world.now).await), UNAUTHENTICATED);
        assert_eq!(status(world.identity.refresh(&first.refresh_token, world.now).await), UNAUTHENTICATED);
        let back = world.caller(&again).await;
        assert!(back.session_id != caller.session_id);
        let count = world.identity.key_count(&back).await.unwrap();
        assert_eq!((count.one_time_prekeys, count.pq_one_time_prekeys), (20, 4));
        let me = world.identity.me(&back).await.unwrap();
        assert_eq!((me.user.phone.as_str(), me.device.device_id), ("+15550000001", first.device_id));
        assert_eq!(me.device.info, device());
    }

    ten_devices_and_no_more(world, config => { config.limits.enabled = false; }) {
        world.register("+15550000001", 1).await;
        for seed in 2..=10 {
            world.login("+15550000001", seed, false).await.unwrap();
        }
        let (id, code) = world.code("+15550000001", Purpose::Login).await;
        let refused = world.login_with(id, code.clone(), 11, false).await;
        assert_eq!(status(refused), (409, ErrorCode::LimitReached));
        // It cost nothing: a known device still signs in with the same code.
        let tokens = world.login_with(id, code, 10, true).await.unwrap();
        let caller = world.caller(&tokens).await;
        world.identity.logout(&caller, world.now).await.unwrap();
        assert_eq!(status(world.identity.authenticate(&tokens.access_token, world.now).await), UNAUTHENTICATED);
        // Two at once for the one place that is free: one gets it.
        let (a, b) = (
            world.code("+15550000001", Purpose::Login).await,
            world.code("+15550000001", Purpose::Login).await,
        );
        let (a, b) = tokio::join!(world.login_with(a.0, a.1, 21, false), world.login_with(b.0, b.1, 22, false));
        assert!(a.is_ok() != b.is_ok());
    }

    a_refresh_token_works_once_and_a_minute_long_again(world,) {
        let first = world.register("+15550000001", 1).await;
        let second = world.identity.refresh(&first.refresh_token, world.now).await.unwrap();
        world.later(59);
        let repeated = world.other.refresh(&first.refresh_token, world.now).await.unwrap();
        assert_eq!(repeated.refresh_token, second.refresh_token);
        assert!(repeated.access_token != second.access_token);
        // The new access token is used anywhere: from then on the first one is re-use.
        world.other.authenticate(&repeated.access_token, world.now).await.unwrap();
        world.told.take();
        assert_eq!(status(world.identity.refresh(&first.refresh_token, world.now).await), UNAUTHENTICATED);
        assert_eq!(world.told.take(), [format!("ended {}", first.device_id)]);
        assert_eq!(status(world.identity.refresh(&second.refresh_token, world.now).await), UNAUTHENTICATED);
        assert_eq!(status(world.identity.authenticate(&second.access_token, world.now).await), UNAUTHENTICATED);
        // The other node remembers for four seconds, unless it hears of it.
        world.other.authenticate(&second.access_token, world.now).await.unwrap();
        world.other.hear_ends(world.now).await.unwrap();
        assert_eq!(status(world.other.authenticate(&second.access_token, world.now).await), UNAUTHENTICATED);
        assert_eq!(world.told.take().len(), 1);
        world.other.hear_ends(world.now).await.unwrap();
        assert!(world.told.take().is_empty());
        // The session ended, not the device.
        let back = world.login("+15550000001", 1, true).await.unwrap();
        assert_eq!(back.device_id, first.device_id);
    }

    a_refresh_token_is_reuse_after_a_minute_or_when_the_next_was_refreshed(world,) {
        let first = world.register("+15550000001", 1).await;
        world.identity.refresh(&first.refresh_token, world.now).await.unwrap();
        world.later(61);
        assert_eq!(status(world.identity.refresh(&first.refresh_token, world.now).await), UNAUTHENTICATED);

        let first = world.register("+15550000002", 2).await;
        let second = world.identity.refresh(&first.refresh_token, world.now).await.unwrap();
        let third = world.identity.refresh(&second.refresh_token, world.now).await.unwrap();
        let again = world.identity.refresh(&second.refresh_token, world.now).await.unwrap();
        assert_eq!(again.refresh_token, third.refresh_token);
        assert_eq!(status(world.identity.refresh(&first.refresh_token, world.now).await), UNAUTHENTICATED);
        assert_eq!(status(world.identity.refresh(&third.refresh_token, world.now).await), UNAUTHENTICATED);
        for text in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(status(world.identity.refresh(text, world.now).await), UNAUTHENTICATED);
        }
    }

    many_refreshes_at_once_give_one_successor(world,) {
        let first = world.register("+15550000001", 1).await;
        let all = futures::future::join_all((0..8).map(|turn| {
            let node = if turn % 2 == 0 { &world.identity } else { &world.other };
            node.refresh(&first.refresh_token, world.now)
        }));
        let tokens: std::collections::HashSet<_> =
            all.await.into_iter().map(|tokens| tokens.unwrap().refresh_token).collect();
        assert_eq!(tokens.len(), 1);
    }

    tokens_end(world,) {
        let tokens = world.register("+15550000001", 1).await;
        assert_eq!((tokens.expires_in, tokens.refresh_expires_in), (1800, 604_800));
        world.later(1801);
        assert_eq!(status(world.identity.authenticate(&tokens.access_token, world.now).await), UNAUTHENTICATED);
        world.later(604_800);
        assert_eq!(status(world.identity.refresh(&tokens.refresh_token, world.now).await), UNAUTHENTICATED);
        world.identity.sweep(world.now).await.unwrap();
        let back = world.login("+15550000001", 1, true).await.unwrap();
        assert_eq!(back.device_id, tokens.device_id);
        // 45 days without contact.
        world.later(45 * 86_400);
        world.told.take();
        world.identity.sweep(world.now).await.unwrap();
        assert_eq!(world.told.take(), [format!("devices {}", tokens.user_id)]);
        let fresh = world.login("+15550000001", 1, false).await.unwrap();
        assert!(fresh.device_id != tokens.device_id);
    }

    a_contact_is_written_once_a_minute(world,) {
        let tokens = world.register("+15550000001", 1).await;
        let begun = world.now;
        let active = async |world: &World| {
            let caller = world.caller(&tokens).await;
            world.identity.me(&caller).await.unwrap().device.last_active_at
        };
        world.later(59);
        assert_eq!(active(&world).await, begun);
        world.later(2);
        assert_eq!(active(&world).await, world.now);
    }

    keys_are_handed_out_once_ever(world, config => { config.limits.enabled = false; }) {
        let (alice, bob) = (world.register("+15550000001", 1).await, world.register("+15550000002", 2).await);
        let asker = world.caller(&alice).await;
        let claims = futures::future::join_all((0..14).map(|turn| {
            let node = if turn % 2 == 0 { &world.identity } else { &world.other };
            node.user_keys(&asker, bob.user_id, None, true, world.now)
        }));
        let bundles: Vec<_> =
            claims.await.into_iter().flat_map(|claimed| claimed.unwrap().devices).collect();
        assert_eq!(bundles.len(), 14);
        let mut ids: Vec<_> =
            bundles.iter().filter_map(|bundle| bundle.one_time_prekey.as_ref()).map(|key| key.key_id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..10).collect::<Vec<_>>());
        let last_resort = kyber(1);
        let pq = bundles.iter().map(|bundle| bundle.pq_prekey.as_ref().unwrap());
        assert_eq!(pq.filter(|key| key.public_key.0 != last_resort).count(), 2);
        let owner = world.caller(&bob).await;
        // A repeated upload brings none of them back; higher ids do.
        let upload = Keys { one_time_prekeys: Some(one_time(5..12)), ..Keys::default() };
        world.identity.put_keys(&owner, upload, world.now).await.unwrap();
        assert_eq!(world.identity.key_count(&owner).await.unwrap().one_time_prekeys, 2);
        for first in [100, 200, 300] {
            let upload = Keys { one_time_prekeys: Some(one_time(first..first + 100)), ..Keys::default() };
            world.identity.put_keys(&owner, upload, world.now).await.unwrap();
        }
        assert_eq!(world.identity.key_count(&owner).await.unwrap().one_time_prekeys, 200);
        let next = world.identity.user_keys(&asker, bob.user_id, None, true, world.now).await.unwrap();
        assert_eq!(next.devices[0].one_time_prekey.as_ref().unwrap().key_id, 200);
    }

    claims_are_six_then_one_in_ten_minutes(world,) {
        let (alice, bob) = (world.register("+15550000001", 1).await, world.register("+15550000002", 2).await);
        let asker = world.caller(&alice).await;
        let claim = async |world: &World| {
            let claimed = world.identity.user_keys(&asker, bob.user_id, None, true, world.now).await.unwrap();
            let bundle = &claimed.devices[0];
            assert!(bundle.signed_prekey.is_some() && bundle.pq_prekey.is_some());
            bundle.one_time_prekey.is_some()
        };
        for _ in 0..6 {
            assert!(claim(&world).await);
        }
        assert!(!claim(&world).await);
        world.later(599);
        assert!(!claim(&world).await);
        world.later(1);
        assert!(claim(&world).await);
        assert!(!claim(&world).await);
        // Another asker has an allowance of his own, and looking without claiming takes nothing.
        let carol = world.register("+15550000003", 3).await;
        let carol = world.caller(&carol).await;
        let shown = world.identity.user_keys(&carol, bob.user_id, None, false, world.now).await.unwrap();
        let shown = serde_json::to_value(&shown.devices[0]).unwrap();
        assert!(shown.get("signed_prekey").is_none() && shown["one_time_prekey"].is_null() && shown["pq_prekey"].is_null());
        let only = Some(vec![DeviceId::random()]);
        assert!(world.identity.user_keys(&carol, bob.user_id, only, true, world.now).await.unwrap().devices.is_empty());
        let own = world.identity.user_keys(&carol, carol.user_id, None, true, world.now).await.unwrap();
        assert!(own.devices.is_empty());
        let nobody = world.identity.user_keys(&carol, UserId::random(), None, true, world.now).await;
        assert_eq!(status(nobody), (404, ErrorCode::NotFound));
    }

    low_stock_is_told_when_the_line_is_crossed(world, config => { config.limits.enabled = false; }) {
        let (alice, bob) = (world.register("+15550000001", 1).await, world.register("+15550000002", 2).await);
        let (asker, owner) = (world.caller(&alice).await, world.caller(&bob).await);
        let upload = Keys { one_time_prekeys: Some(one_time(10..11)), ..Keys::default() };
        world.identity.put_keys(&owner, upload, world.now).await.unwrap();
        world.told.take();
        let claim = async || world.identity.user_keys(&asker, bob.user_id, None, true, world.now).await.unwrap();
        claim().await;
        assert!(world.told.take().is_empty());
        claim().await;
        assert_eq!(world.told.take(), [format!("low {}", bob.device_id)]);
        claim().await;
        assert!(world.told.take().is_empty());
    }

    fixed_keys_stay_and_a_new_registration_is_told(world,) {
        let tokens = world.register("+15550000001", 1).await;
        let caller = world.caller(&tokens).await;
        let put = async |keys: Keys| world.identity.put_keys(&caller, keys, world.now).await;
        let other = Keys { identity_key: keys(2, 0).identity_key, ..Keys::default() };
        assert_eq!(status(put(other).await), CONFLICT);
        assert_eq!(status(put(Keys { suite: Some(Suite::Olm), ..Keys::default() }).await), CONFLICT);
        let alone = Keys { registration_id: Some(8), ..Keys::default() };
        assert_eq!(status(put(alone.clone()).await), (422, ErrorCode::ValidationFailed));
        let forged = Keys { signed_prekey: keys(2, 0).signed_prekey, ..Keys::default() };
        assert_eq!(status(put(forged).await), (422, ErrorCode::ValidationFailed));
        put(keys(1, 50)).await.unwrap();
        world.told.take();
        let signed_prekey = Some(signed(1, 2, identity_key(101).public()));
        put(Keys { signed_prekey: signed_prekey.clone(), ..alone }).await.unwrap();
        assert_eq!(world.told.take(), [format!("devices {}", tokens.user_id)]);
        let events = world.store.account_events_after(tokens.user_id, 0, 10).await.unwrap();
        assert_eq!(events.last().unwrap().body["identity_changed"][0], tokens.device_id.to_string());
    }

    lookups_have_a_budget(world, config => { config.limits.lookups_first_day = 12; config.limits.lookups_per_day = 5; }) {
        let alice = world.register("+15550000001", 1).await;
        let bob = world.register("+15550000002", 2).await;
        let lookup = async |world: &World, phones: &[&str]| {
            let tokens = world.identity.refresh(&alice.refresh_token, world.now).await;
            drop(tokens);
            let caller = Caller {
                user_id: alice.user_id,
                device_id: alice.device_id,
                session_id: Uuid::new_v4(),
                token_expires_at: world.now,
            };
            let request = LookupRequest { phones: phones.iter().map(|phone| (*phone).to_owned()).collect() };
            world.identity.lookup(&caller, request, world.now).await
        };
        let found = lookup(&world, &["+15550000002", "nonsense", "+15550000077", "+15550000002"]).await.unwrap();
        assert_eq!(found.users.len(), 1);
        assert_eq!(found.users[0].user_id, bob.user_id);
        let many: Vec<String> = (0..9).map(|number| format!("+1666000000{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        lookup(&world, &many).await.unwrap();
        assert_eq!(status(lookup(&world, &["+15550000002"]).await), LIMITED);
        world.later(86_400);
        lookup(&world, &many[..5]).await.unwrap();
        assert_eq!(status(lookup(&world, &["+15550000002"]).await), LIMITED);
        world.later(86_400);
        lookup(&world, &["+15550000002"]).await.unwrap();
        let too_many = vec!["+15550000002"; 101];
        assert_eq!(status(lookup(&world, &too_many).await), (422, ErrorCode::ValidationFailed));
    }

    contacts_change_their_devices_at_once_without_a_deadlock(world, config => { config.limits.enabled = false; }) {
        let phones = ["+15550000001", "+15550000002", "+15550000003"];
        let mut users = Vec::new();
        for (seed, phone) in (1..).zip(phones) {
            users.push(world.register(phone, seed).await);
        }
        let members: Vec<UserId> = users.iter().map(|tokens| tokens.user_id).collect();
        let group = NewConversation {
            kind: ConversationType::Group,
            name: None,
            creator: members[0],
            members: members.clone(),
        };
        world.store.create_conversation(group, None, world.now).await.unwrap();
        let mut codes = Vec::new();
        for (index, phone) in phones.iter().enumerate() {
            for device in 0..6_u8 {
                let seed = 10 + u8::try_from(index).unwrap() * 10 + device;
                codes.push((seed, world.code(phone, Purpose::Login).await));
            }
        }
        let asker = world.caller(&users[0]).await;
        let logins = futures::future::join_all(
            codes.into_iter().map(|(seed, (id, code))| world.login_with(id, code, seed, false)),
        );
        let claims = futures::future::join_all((0..12).map(|turn| {
            world.other.user_keys(&asker, members[1 + turn % 2], None, true, world.now)
        }));
        let (logins, claims) = tokio::join!(logins, claims);
        assert!(claims.iter().all(Result::is_ok));
        let signed_in: Vec<Tokens> = logins.into_iter().map(Result::unwrap).collect();
        // Each of the three heard of all eighteen devices, in one event about each of the three.
        for user in &members {
            let events = world.store.account_events_after(*user, 0, 100).await.unwrap();
            let changes: Vec<_> = events.iter().filter(|event| event.kind == "devices_changed").collect();
            let added: usize = changes.iter().map(|event| event.body["added"].as_array().unwrap().len()).sum();
            assert_eq!((changes.len(), added), (3, 18));
        }
        let callers = futures::future::join_all(signed_in.iter().map(|tokens| world.caller(tokens))).await;
        let gone = futures::future::join_all(callers.iter().map(|caller| world.other.logout(caller, world.now))).await;
        assert!(gone.iter().all(Result::is_ok));
    }

    a_new_device_is_told_and_raises_the_version(world,) {
        let first = world.register("+15550000001", 1).await;
        world.told.take();
        let second = world.login("+15550000001", 2, false).await.unwrap();
        assert!(second.device_id != first.device_id);
        assert_eq!(world.told.take(), [format!("devices {}", first.user_id)]);
        let events = world.store.account_events_after(first.user_id, 0, 10).await.unwrap();
        // The first device never had to be told of itself: nothing of that waits beside the second.
        assert_eq!((events.len(), events[0].seq), (1, 2));
        assert_eq!(events[0].body["added"], serde_json::json!([second.device_id]));
        // Not news to the new device itself.
        let position = async |device| {
            let arrival = world.store.arrival(first.user_id, device, world.now).await.unwrap();
            arrival.map(|arrival| (arrival.account_head, arrival.account_seen))
        };
        assert_eq!(position(second.device_id).await, Some((2, 2)));
        assert_eq!(position(first.device_id).await, Some((2, 1)));
        let caller = world.caller(&second).await;
        world.identity.logout(&caller, world.now).await.unwrap();
        assert_eq!(position(second.device_id).await, None);
        let told = world.told.take();
        assert_eq!(told, [format!("ended {}", second.device_id), format!("devices {}", first.user_id)]);
        // Nobody can do anything with the tokens of a device that is gone.
        assert_eq!(status(world.other.authenticate(&second.access_token, world.now).await), UNAUTHENTICATED);
        assert_eq!(status(world.identity.refresh(&second.refresh_token, world.now).await), UNAUTHENTICATED);
        world.identity.authenticate(&first.access_token, world.now).await.unwrap();
    }
}
