//! The table: each route with a body that is right in form, what its members hold, and what the body comes to.

use super::change::Holds::{Bytes, Choice, Count, Id, List, Number, Object, Text, Word};
use super::change::{Member, element, may, must};
use super::room::Room;
use serde_json::{Value, json};
use sotto_client::protocol::MessageId;
use sotto_client::{DeviceKeys, Method};
use uuid::Uuid;

/// Largest number of a request, of an attempt, and of anything that JavaScript counts.
const SAFE: i64 = (1 << 53) - 1;

/// A method of a route.
pub struct Case {
    pub method: Method,
    /// As it stands in the route table.
    pub route: &'static str,
    /// With ids that exist.
    pub path: String,
    /// Right in form; where `outcome` is told it names nothing that exists, so that nothing comes of it.
    pub body: Option<Value>,
    pub members: Vec<Member>,
    pub outcome: Option<(u16, &'static str)>,
    /// Bytes that a body may have.
    pub limit: usize,
    /// Query parameters with values that are wrong.
    pub queries: &'static [(&'static str, &'static [&'static str])],
}

const NUMBERS: &[&str] =
    &["-1", "abc", "", "1.5", "1e3", "%2B1%2B", "0x10", "99999999999999999999", "9223372036854775808", "1%00"];

const DEVICE: &[Member] = &[
    must("/device", Object),
    must("/device/name", Text(100)),
    must("/device/platform", Choice),
    may("/device/fingerprint", Text(200)),
    may("/device/model", Text(100)),
    may("/device/os_version", Text(100)),
    may("/device/app_version", Text(100)),
    may("/device/push", Object),
    may("/device/push/fcm_token", Text(4096)),
    may("/device/push/apns_token", Text(4096)),
];

/// Members of *keys* below a prefix; complete at sign-in, any part afterwards.
macro_rules! keys {
    ($prefix:literal, $need:ident) => {
        &[
            $need(concat!($prefix, "/suite"), Choice),
            may(concat!($prefix, "/registration_id"), Number(1, 16_383)),
            $need(concat!($prefix, "/identity_key"), Bytes),
            $need(concat!($prefix, "/signing_key"), Bytes),
            may(concat!($prefix, "/identity_signature"), Bytes),
            $need(concat!($prefix, "/signed_prekey"), Object),
            must(concat!($prefix, "/signed_prekey/key_id"), Number(0, (1 << 31) - 1)),
            must(concat!($prefix, "/signed_prekey/public_key"), Bytes),
            must(concat!($prefix, "/signed_prekey/signature"), Bytes),
            $need(concat!($prefix, "/one_time_prekeys"), List),
            element(concat!($prefix, "/one_time_prekeys/1"), Object),
            must(concat!($prefix, "/one_time_prekeys/1/key_id"), Number(0, (1 << 31) - 1)),
            must(concat!($prefix, "/one_time_prekeys/1/public_key"), Bytes),
            may(concat!($prefix, "/pq_last_resort_prekey"), Object),
            may(concat!($prefix, "/pq_one_time_prekeys"), List),
        ]
    };
}

const SIGN_IN: &[Member] = &[must("/verification_id", Id), must("/code", Word), must("/keys", Object)];

/// What stands behind a code.
const BEHIND: &[Member] = &[may("/totp", Word), may("/backup_code", Word), may("/pin", Word)];

/// Who proves himself anew.
const AGAIN: &[Member] =
    &[must("/verification_id", Id), must("/code", Word), may("/totp", Word), may("/backup_code", Word)];

/// The proof of who confirms a link. What is missing of it is found after the link was found.
const LINK_PROOF: &[Member] =
    &[may("/verification_id", Id), may("/code", Word), may("/totp", Word), may("/backup_code", Word)];

/// A device that wants to be linked, and what its QR code says.
const LINK: &[Member] = &[must("/device", Object), must("/keys", Object)];
const LINK_CODE: &[Member] = &[must("/challenge", Bytes), must("/identity_key", Bytes)];

const MESSAGE: &[Member] = &[
    must("/message_id", Id),
    must("/conversation_id", Id),
    must("/kind", Choice),
    element("/envelopes", List),
    element("/envelopes/0", Object),
    must("/envelopes/0/user_id", Id),
    must("/envelopes/0/device_id", Id),
    may("/envelopes/0/registration_id", Number(i64::MIN, i64::MAX)),
    must("/envelopes/0/type", Number(0, 255)),
    must("/envelopes/0/ciphertext", Bytes),
    may("/reply_to", Id),
    may("/expires_in", Number(1, 31_536_000)),
    may("/client_seq", Number(1, i64::MAX)),
    may("/roster", Word),
];

/// A message with everything that it may have, to nowhere.
pub fn message() -> Value {
    json!({
        "message_id": MessageId::ordered(), "conversation_id": Uuid::new_v4(), "kind": "text",
        "envelopes": [{
            "user_id": Uuid::new_v4(), "device_id": Uuid::new_v4(), "registration_id": 7, "type": 1, "ciphertext": "AAEC",
        }],
        "reply_to": Uuid::new_v4(), "expires_in": 60, "client_seq": 1, "roster": "x",
    })
}

pub fn keys() -> Value {
    let mut keys = serde_json::to_value(DeviceKeys::generate().sign_in_keys(3).unwrap()).unwrap();
    keys["registration_id"] = json!(7);
    keys
}

pub fn sign_in() -> Value {
    json!({
        "verification_id": Uuid::new_v4(), "code": "000000",
        "device": {
            "name": "Phone", "platform": "ios", "fingerprint": "f", "model": "m", "os_version": "1", "app_version": "2",
            "push": {"fcm_token": "a", "apns_token": "b"},
        },
        "keys": keys(), "device_proof": "AAAA", "totp": "1", "backup_code": "2", "pin": "3",
    })
}

/// Everything that the route table has under `/v1`.
pub fn cases(room: &Room) -> Vec<Case> {
    let case = |method: Method, route: &'static str| {
        let path = route
            .replace("{user_id}", &room.bob.user_id.to_string())
            .replace("{device_id}", &room.message.to_string())
            .replace("{link_id}", &room.message.to_string())
            .replace("{conversation_id}", &room.group.to_string())
            .replace("{message_id}", &room.message.to_string());
        let limit = 64 * 1024;
        Case { method, route, path, body: None, members: Vec::new(), outcome: None, limit, queries: &[] }
    };
    let with = |mut case: Case, body: Value, members: &[&[Member]], outcome| {
        (case.body, case.members, case.outcome) = (Some(body), members.concat(), outcome);
        case
    };
    let large = |case: Case| Case { limit: 1024 * 1024, ..case };
    let with_keys = |case: Case| Case { limit: 256 * 1024, ..case };
    let asks = |case: Case, queries| Case { queries, ..case };
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let rejected = Some((401, "code_rejected"));
    let nowhere = Some((404, "not_found"));
    let users = json!({"user_ids": [Uuid::new_v4()]});
    let again = json!({"verification_id": Uuid::new_v4(), "code": "000000", "totp": "1", "backup_code": "2"});
    let mut lock = again.clone();
    lock["pin"] = "2580".into();
    let link_code = json!({"challenge": "AAAA", "identity_key": "AAAA"});
    let mut confirm = again.clone();
    confirm["challenge"] = "AAAA".into();
    confirm["identity_key"] = "AAAA".into();
    let change: &[Member] = &[must("/user_ids", List), element("/user_ids/0", Id)];
    vec![
        with(
            case(post.clone(), "/v1/auth/verifications"),
            json!({
                "phone": room.carol.phone, "purpose": "login", "challenge_response": {"challenge": "c", "solution": "1"},
            }),
            &[&[
                must("/phone", Word),
                must("/purpose", Choice),
                may("/challenge_response", Object),
                may("/challenge_response/challenge", Text(200)),
                must("/challenge_response/solution", Text(8192)),
            ]],
            None,
        ),
        with_keys(with(
            case(post.clone(), "/v1/auth/register"),
            sign_in(),
            &[SIGN_IN, DEVICE, keys!("/keys", must), &[may("/pin", Word)]],
            rejected,
        )),
        with_keys(with(
            case(post.clone(), "/v1/auth/recover"),
            sign_in(),
            &[SIGN_IN, DEVICE, keys!("/keys", must), BEHIND],
            rejected,
        )),
        with_keys(with(
            case(post.clone(), "/v1/auth/login"),
            sign_in(),
            &[SIGN_IN, DEVICE, keys!("/keys", must), BEHIND, &[may("/device_proof", Bytes)]],
            rejected,
        )),
        with(
            case(post.clone(), "/v1/auth/refresh"),
            json!({"refresh_token": "A".repeat(43)}),
            &[&[must("/refresh_token", Word)]],
            Some((401, "unauthenticated")),
        ),
        case(post.clone(), "/v1/auth/logout"),
        case(get.clone(), "/v1/auth/me"),
        case(get.clone(), "/v1/auth/totp"),
        case(post.clone(), "/v1/auth/totp"),
        with(
            case(post.clone(), "/v1/auth/totp/enable"),
            json!({"totp": "000000"}),
            &[&[must("/totp", Word)]],
            Some((409, "conflict")),
        ),
        with(case(post.clone(), "/v1/auth/totp/disable"), again.clone(), &[AGAIN], rejected),
        with(case(post.clone(), "/v1/auth/totp/undo"), again.clone(), &[AGAIN], rejected),
        with(case(post.clone(), "/v1/auth/backup_codes"), again.clone(), &[AGAIN], rejected),
        case(get.clone(), "/v1/auth/registration_lock"),
        with(case(put.clone(), "/v1/auth/registration_lock"), lock, &[AGAIN, &[must("/pin", Word)]], rejected),
        with(case(post.clone(), "/v1/auth/registration_lock/remove"), again.clone(), &[AGAIN], rejected),
        with(
            case(post.clone(), "/v1/auth/phone"),
            again.clone(),
            &[AGAIN, &[may("/pin", Word), may("/old_verification_id", Id), may("/old_code", Word)]],
            rejected,
        ),
        with(case(post.clone(), "/v1/auth/deletion"), again.clone(), &[AGAIN], rejected),
        case(get.clone(), "/v1/auth/deletion"),
        case(delete.clone(), "/v1/auth/deletion"),
        with(case(post.clone(), "/v1/auth/export"), again.clone(), &[AGAIN], rejected),
        asks(case(get.clone(), "/v1/auth/trail"), &[("limit", &["0", "201", "-1", "abc", "", "1.5"])]),
        asks(case(get.clone(), "/v1/auth/logins"), &[("limit", &["0", "201", "-1", "abc", "", "1.5"])]),
        with_keys(with(
            case(post.clone(), "/v1/auth/links"),
            json!({"device": sign_in()["device"], "keys": sign_in()["keys"]}),
            &[LINK, DEVICE, keys!("/keys", must)],
            None,
        )),
        with(case(post.clone(), "/v1/auth/links/{link_id}/scan"), link_code.clone(), &[LINK_CODE], nowhere),
        with(case(post.clone(), "/v1/auth/links/{link_id}/refuse"), link_code, &[LINK_CODE], nowhere),
        with(case(post.clone(), "/v1/auth/links/{link_id}/confirm"), confirm, &[LINK_CODE, LINK_PROOF], nowhere),
        with(
            case(post.clone(), "/v1/auth/links/{link_id}/tokens"),
            json!({"link_secret": "AAAA", "challenge": "AAAA", "proof": "AAAA"}),
            &[&[must("/link_secret", Bytes), must("/challenge", Bytes), must("/proof", Bytes)]],
            nowhere,
        ),
        case(get.clone(), "/v1/devices"),
        case(delete.clone(), "/v1/devices"),
        case(delete.clone(), "/v1/devices/{device_id}"),
        with(case(Method::PATCH, "/v1/devices/{device_id}"), json!({"name": "x"}), &[&[must("/name", Word)]], nowhere),
        with(
            case(post.clone(), "/v1/devices/{device_id}/verify"),
            json!({"identity_key": "AAAA"}),
            &[&[must("/identity_key", Bytes)]],
            nowhere,
        ),
        large(with(case(put.clone(), "/v1/keys"), room.alice_keys.clone(), &[keys!("", may)], None)),
        case(get.clone(), "/v1/keys/count"),
        asks(
            case(get.clone(), "/v1/users/{user_id}/keys"),
            &[("device_id", &["x", "", "7", "null"]), ("claim", &["maybe", "", "1", "FALSE"])],
        ),
        with(
            case(post.clone(), "/v1/users/lookup"),
            json!({"phones": ["+15550000000"]}),
            &[&[must("/phones", List), element("/phones/0", Word)]],
            None,
        ),
        asks(case(get.clone(), "/v1/conversations"), &[("limit", &["0", "201", "-1", "abc", "501", "", "1.5"])]),
        with(
            case(post.clone(), "/v1/conversations"),
            json!({"type": "group", "members": [Uuid::new_v4()], "name": "n"}),
            &[&[must("/type", Choice), must("/members", List), element("/members/0", Id), may("/name", Text(100))]],
            nowhere,
        ),
        case(get.clone(), "/v1/conversations/{conversation_id}"),
        asks(
            case(get.clone(), "/v1/conversations/{conversation_id}/members"),
            &[("limit", &["0", "201", "-1", "abc", "501", "", "1.5"])],
        ),
        with(case(post.clone(), "/v1/conversations/{conversation_id}/members"), users.clone(), &[change], nowhere),
        with(case(delete, "/v1/conversations/{conversation_id}/members"), users, &[change], nowhere),
        asks(
            case(get.clone(), "/v1/conversations/{conversation_id}/messages"),
            &[("limit", &["0", "501", "-1", "abc", "", "1.5"]), ("after_seq", NUMBERS), ("before_seq", NUMBERS)],
        ),
        with(
            case(put.clone(), "/v1/conversations/{conversation_id}/read"),
            json!({"up_to": SAFE}),
            &[&[must("/up_to", Number(0, i64::MAX))]],
            Some((422, "validation_failed")),
        ),
        large(with(case(post.clone(), "/v1/messages"), message(), &[MESSAGE], nowhere)),
        with(
            case(put, "/v1/messages/{message_id}/read"),
            json!({"conversation_id": Uuid::new_v4()}),
            &[&[may("/conversation_id", Id)]],
            None,
        ),
        asks(case(get.clone(), "/v1/sync"), &[("limit", &["0", "501", "-1", "abc", "", "1.5"])]),
        with(
            case(post, "/v1/sync/ack"),
            json!({"cursor": "AAAA"}),
            &[&[must("/cursor", Word)]],
            Some((400, "cursor_unknown")),
        ),
        case(get, "/v1/ws"),
    ]
}

/// A client's frame with a content that is right in form.
pub struct Said {
    pub t: &'static str,
    pub d: Value,
    pub members: Vec<Member>,
}

/// Everything that a client says after `welcome`.
pub fn frames(room: &Room) -> Vec<Said> {
    let state = |pointer| must(pointer, Choice);
    vec![
        Said { t: "send_message", d: message(), members: MESSAGE.to_vec() },
        Said {
            t: "mark_read",
            d: json!({"conversation_id": room.direct, "up_to": 1}),
            members: vec![must("/conversation_id", Id), must("/up_to", Number(0, i64::MAX))],
        },
        Said { t: "ack", d: json!({"n": 0}), members: vec![must("/n", Count)] },
        Said {
            t: "typing",
            d: json!({"conversation_id": room.direct, "state": "started"}),
            members: vec![must("/conversation_id", Id), state("/state"), may("/user_id", Id), may("/device_id", Id)],
        },
        Said { t: "presence", d: json!({"state": "active"}), members: vec![state("/state")] },
        Said { t: "auth", d: json!({"token": room.alice.tokens.access_token}), members: vec![must("/token", Word)] },
    ]
}

/// `hello`.
pub fn hello(room: &Room) -> Said {
    Said {
        t: "hello",
        d: json!({"token": room.alice.tokens.access_token, "version": 1, "client": "c", "attempt": 1}),
        members: vec![
            must("/token", Word),
            must("/version", Number(i64::MIN, i64::MAX)),
            may("/client", Word),
            may("/attempt", Number(0, SAFE)),
        ],
    }
}
