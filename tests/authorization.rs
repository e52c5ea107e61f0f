//! Who may call what: a row for each route of the route tables, and what each kind of caller gets there.
//!
//! Every cell is asked for on a real node, each row among people of its own. A route without a row fails the test, and so
//! does a row whose own people are refused: then it would show nothing.

use crate::bad_input::cases::{keys, message, sign_in};
use crate::support::node::{TestNode, text};
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, pair, register, second_device, shared};
use serde_json::{Value, json};
use sotto::http::{ADMIN_ROUTES, ROUTES, SHARED_ROUTES};
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::{ConversationId, MessageId};
use sotto_client::rest::RawAnswer;
use sotto_client::{DeviceKeys, HeaderMap, Rest};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What callers get, by the columns' order: the code of a problem, or a status.
struct Row {
    route: &'static str,
    /// Nobody; a device that was removed; somebody else; a former member; a member; the one whose it is.
    cells: [&'static str; 6],
    body: fn(&World) -> Value,
}

const CALLERS: [&str; 6] = ["nobody", "a removed device", "somebody else", "a former member", "a member", "the owner"];

/// Alice owns a group with Bob; Dave was in it; Carol never was. `lost` was Alice's.
struct World {
    alice: Device,
    bob: Device,
    carol: Device,
    dave: Device,
    lost: Device,
    /// Joins when he is invited.
    erin: Device,
    group: ConversationId,
    /// Alice's in the group, from before Dave left.
    message: MessageId,
}

/// Written when Dave had left.
const LATE: &str = "what Dave never sees";

impl World {
    async fn new(node: &TestNode) -> Self {
        let (alice, bob, _) = pair(node).await;
        let (carol, dave, erin) =
            (register(node, "carol").await, register(node, "dave").await, register(node, "erin").await);
        let lost = second_device(node, &alice, "lost").await;
        lost.rest.logout().await.unwrap();
        let group = CreateConversation {
            kind: ConversationType::Group,
            members: vec![bob.user_id, dave.user_id],
            name: Some("the name of the group".to_owned()),
        };
        let group = alice.rest.create_conversation(&group, None).await.unwrap().0.conversation_id;
        let first = shared(group, "first");
        alice.rest.send_message(&first, None).await.unwrap();
        alice.rest.remove_members(group, &[dave.user_id]).await.unwrap();
        alice.rest.send_message(&shared(group, LATE), None).await.unwrap();
        Self { alice, bob, carol, dave, lost, erin, group, message: first.message_id }
    }

    fn path(&self, route: &str) -> String {
        route
            .replace("{user_id}", &text(self.alice.user_id))
            .replace("{device_id}", &text(self.alice.device_id))
            .replace("{link_id}", &Uuid::new_v4().to_string())
            .replace("{conversation_id}", &text(self.group))
            .replace("{message_id}", &text(self.message))
            .replace("{file}", "index.html")
    }

    fn callers(&self) -> [Rest; 6] {
        let rest = |device: &Device| device.rest.clone();
        let nobody = self.alice.rest.without_token();
        [nobody, rest(&self.lost), rest(&self.carol), rest(&self.dave), rest(&self.bob), rest(&self.alice)]
    }

    /// What neither a stranger nor a former member finds in an answer.
    fn is_told_of(&self, answer: &RawAnswer) -> Option<String> {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let late = sotto_client::protocol::Binary::encode(LATE.as_bytes());
        [self.alice.phone.clone(), self.alice.tokens.refresh_token.clone(), late]
            .into_iter()
            .find(|secret| body.contains(secret.as_str()))
    }
}

/// `open`: anybody, with this outcome.
const fn open(route: &'static str, outcome: &'static str, body: fn(&World) -> Value) -> Row {
    Row { route, cells: [outcome; 6], body }
}

/// About the caller alone: everybody gets the same for his own.
const fn own(route: &'static str, outcome: &'static str, body: fn(&World) -> Value) -> Row {
    let cells = ["unauthenticated", "unauthenticated", outcome, outcome, outcome, outcome];
    Row { route, cells, body }
}

/// About a conversation: what a stranger, a former member, a member and the owner get.
const fn of_members(route: &'static str, cells: [&'static str; 4], body: fn(&World) -> Value) -> Row {
    let [other, former, member, owner] = cells;
    Row { route, cells: ["unauthenticated", "unauthenticated", other, former, member, owner], body }
}

/// About something of Alice's account, which is nobody else's to see.
const fn of_owner(route: &'static str, outcome: &'static str, body: fn(&World) -> Value) -> Row {
    let cells = ["unauthenticated", "unauthenticated", "not_found", "not_found", "not_found", outcome];
    Row { route, cells, body }
}

fn complete_keys() -> Value {
    serde_json::to_value(DeviceKeys::generate().sign_in_keys(3).unwrap()).unwrap()
}

fn link_code(_: &World) -> Value {
    json!({"challenge": "AAAA", "identity_key": "AAAA"})
}

const fn nothing(_: &World) -> Value {
    Value::Null
}

fn again(_: &World) -> Value {
    json!({"verification_id": Uuid::new_v4(), "code": "000000"})
}

fn outgoing(world: &World) -> Value {
    let mut message = message();
    let object = message.as_object_mut().unwrap();
    for name in ["envelopes", "reply_to", "roster"] {
        object.remove(name);
    }
    message["conversation_id"] = json!(world.group);
    message["ciphertext"] = json!("AAEC");
    message
}

const TABLE: &[Row] = &[
    open("POST /v1/auth/verifications", "201", |_| json!({"phone": fresh_phone(), "purpose": "registration"})),
    open("POST /v1/auth/register", "code_rejected", |_| sign_in()),
    open("POST /v1/auth/login", "code_rejected", |_| sign_in()),
    open("POST /v1/auth/recover", "code_rejected", |_| sign_in()),
    open("POST /v1/auth/refresh", "unauthenticated", |_| json!({"refresh_token": "A".repeat(43)})),
    own("POST /v1/auth/logout", "204", nothing),
    own("GET /v1/auth/me", "200", nothing),
    own("GET /v1/auth/totp", "200", nothing),
    own("POST /v1/auth/totp", "201", nothing),
    own("POST /v1/auth/totp/enable", "conflict", |_| json!({"totp": "000000"})),
    own("POST /v1/auth/totp/undo", "code_rejected", again),
    own("POST /v1/auth/totp/disable", "code_rejected", again),
    own("POST /v1/auth/backup_codes", "code_rejected", again),
    own("GET /v1/auth/registration_lock", "200", nothing),
    own("PUT /v1/auth/registration_lock", "code_rejected", |world| {
        let mut body = again(world);
        body["pin"] = json!("2580");
        body
    }),
    own("POST /v1/auth/registration_lock/remove", "code_rejected", again),
    own("POST /v1/auth/phone", "code_rejected", again),
    // Open are only the two ends of the new device, which has nothing yet but the link's secret.
    open("POST /v1/auth/links", "201", |_| json!({"device": sign_in()["device"], "keys": complete_keys()})),
    own("POST /v1/auth/links/{link_id}/scan", "not_found", link_code),
    own("POST /v1/auth/links/{link_id}/confirm", "not_found", |world| {
        let mut body = link_code(world);
        (body["verification_id"], body["code"]) = (json!(Uuid::new_v4()), json!("000000"));
        body
    }),
    own("POST /v1/auth/links/{link_id}/refuse", "not_found", link_code),
    open(
        "POST /v1/auth/links/{link_id}/tokens",
        "not_found",
        |_| json!({"link_secret": "AAAA", "challenge": "AAAA", "proof": "AAAA"}),
    ),
    own("GET /v1/devices", "200", nothing),
    // One device alone: there is nothing to remove, and nothing to prove.
    own("DELETE /v1/devices", "204", nothing),
    // Alice's device: nobody else's to see, and gone when she has removed it.
    of_owner("PATCH /v1/devices/{device_id}", "204", |_| json!({"name": "new name"})),
    of_owner("POST /v1/devices/{device_id}/verify", "conflict", |_| json!({"identity_key": "AAAA"})),
    of_owner("DELETE /v1/devices/{device_id}", "204", nothing),
    own("POST /v1/auth/deletion", "code_rejected", again),
    own("GET /v1/auth/deletion", "200", nothing),
    own("DELETE /v1/auth/deletion", "not_found", nothing),
    own("POST /v1/auth/export", "code_rejected", again),
    own("GET /v1/auth/trail", "200", nothing),
    own("GET /v1/auth/logins", "200", nothing),
    // Nobody's keys but one's own: those of another device do not fit.
    own("PUT /v1/keys", "conflict", |_| keys()),
    own("GET /v1/keys/count", "200", nothing),
    own("GET /v1/users/{user_id}/keys", "200", nothing),
    own("POST /v1/users/lookup", "200", |_| json!({"phones": ["+15550000000"]})),
    own("GET /v1/conversations", "200", nothing),
    own("POST /v1/conversations", "201", |world| json!({"type": "group", "members": [world.erin.user_id]})),
    of_members("GET /v1/conversations/{conversation_id}", ["not_found", "200", "200", "200"], nothing),
    of_members("GET /v1/conversations/{conversation_id}/members", ["not_found", "forbidden", "200", "200"], nothing),
    of_members(
        "POST /v1/conversations/{conversation_id}/members",
        ["not_found", "forbidden", "forbidden", "204"],
        |world| json!({"user_ids": [world.erin.user_id]}),
    ),
    of_members(
        "DELETE /v1/conversations/{conversation_id}/members",
        ["not_found", "forbidden", "forbidden", "204"],
        |world| json!({"user_ids": [world.alice.user_id]}),
    ),
    of_members("GET /v1/conversations/{conversation_id}/messages", ["not_found", "200", "200", "200"], nothing),
    of_members(
        "PUT /v1/conversations/{conversation_id}/read",
        ["not_found", "forbidden", "204", "204"],
        |_| json!({"up_to": 1}),
    ),
    of_members("POST /v1/messages", ["not_found", "forbidden", "201", "201"], outgoing),
    of_members("PUT /v1/messages/{message_id}/read", ["not_found", "forbidden", "204", "204"], |_| json!({})),
    own("GET /v1/sync", "200", nothing),
    own("POST /v1/sync/ack", "cursor_unknown", |_| json!({"cursor": "AAAA"})),
    // Its own door asks for the token.
    open("GET /v1/ws", "invalid_frame", nothing),
    open("GET /", "200", nothing),
    open("GET /health", "200", nothing),
    open("GET /livez", "200", nothing),
    open("GET /readyz", "200", nothing),
    open("GET /openapi.json", "200", nothing),
    // On the admin listener, or where nobody else reaches the server (tests/http.rs).
    open("GET /metrics", "200", nothing),
    open("GET /docs", "200", nothing),
    open("GET /docs/{file}", "200", nothing),
];

on_both! {
    async fn each_route_serves_those_it_says_and_no_others(database) {
        let tables = [ROUTES, SHARED_ROUTES, ADMIN_ROUTES].concat();
        let routes: BTreeSet<String> = tables
            .iter()
            .flat_map(|route| route.methods.iter().map(|method| format!("{method} {}", route.path)))
            .collect();
        let told: BTreeSet<String> = TABLE.iter().map(|row| row.route.to_owned()).collect();
        assert_eq!(told, routes, "each route has a row in this table");
        let node = TestNode::start(database).await;
        let mut wrong = Vec::new();
        for row in TABLE {
            let world = World::new(&node).await;
            let (method, route) = row.route.split_once(' ').unwrap();
            let is_open = tables.iter().any(|known| known.path == route && known.open.is_some());
            assert_eq!(is_open, row.cells[0] != "unauthenticated" || route == "/v1/auth/refresh", "{}", row.route);
            for (place, rest) in world.callers().into_iter().enumerate() {
                let body = (row.body)(&world);
                let body = (!body.is_null()).then(|| body.to_string().into_bytes());
                let (method, path) = (method.parse().unwrap(), world.path(route));
                let answer = rest.raw(method, &path, HeaderMap::new(), body).await.unwrap();
                let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let outcome = match problem["code"].as_str() {
                    Some(code) if answer.status >= 400 => code.to_owned(),
                    _ => answer.status.to_string(),
                };
                if outcome != row.cells[place] {
                    wrong.push(format!("{} by {}: {outcome}, not {}", row.route, CALLERS[place], row.cells[place]));
                }
                if place < 4 && let Some(secret) = world.is_told_of(&answer) {
                    wrong.push(format!("{} by {} tells {secret}", row.route, CALLERS[place]));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
