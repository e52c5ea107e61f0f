//! The routes of REST on a real node, in process: what every route has in common, and conversations, messages and sync
//! from request to answer. Sign-in is `tests/identity.rs`'s.

use std::sync::Arc;

use crate::support::database::{self, Kind};
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::web;
use serde_json::{Value, json};
use sotto::config::Config;
use sotto::http::body::OpenBodies;
use sotto::http::cursor::Cursors;
use sotto::http::health::Pulse;
use sotto::http::strangers::Strangers;
use sotto::http::{ADMIN_ROUTES, Door, ROUTES, SHARED_ROUTES, Services, app};
use sotto::identity::Identity;
use sotto::identity::changes::NobodyListens;
use sotto::identity::secret_key::SecretKeys;
use sotto::identity::sms::{Outbox, Sms};
use sotto::identity::xeddsa::SigningKey;
use sotto_actors::{Node, NodeSettings};
use sotto_protocol::Binary;
use sotto_schema::{Store, StoreSettings};
use uuid::Uuid;

const MAIN: Door = Door::Main { with_admin: true };

struct World {
    services: Services,
    config: Config,
    folder: tempfile::TempDir,
}

/// A signed-in device.
struct Device {
    user: String,
    device: String,
    token: String,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}: {:?}", self.status, self.text))
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("test.db").display());
        Self::on(folder, &url).await
    }

    /// One on SQLite, and one on PostgreSQL.
    async fn both() -> Vec<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = database::fresh(Kind::Postgres, folder.path()).await;
        vec![Self::new().await, Self::on(folder, &url).await]
    }

    async fn on(folder: tempfile::TempDir, url: &str) -> Self {
        let store = Store::open(url, &StoreSettings::default()).await.unwrap();
        sotto_schema::migrate(&store).await.unwrap();
        let config = Config::default();
        let keys = Arc::new(SecretKeys::random().unwrap());
        let sms = Sms::outbox(Outbox::open(&folder.path().join("outbox")).unwrap());
        let changes = Arc::new(NobodyListens);
        let identity = Identity::new(store.clone(), Arc::clone(&keys), sms, changes, &config, "test");
        let identity = web::Data::new(identity);
        let node = Node::start(store, identity.clone().into_inner(), NodeSettings::default()).await.unwrap();
        let services = Services {
            node,
            identity,
            cursors: Cursors::new(keys),
            health: Pulse::new(false),
            strangers: Strangers::new(&config.limits),
            open_bodies: OpenBodies::new(config.http.open_bodies),
        };
        Self { services, config, folder }
    }

    async fn at(&self, door: Door, request: TestRequest) -> Answer {
        let app = init_service(app(&self.services, &self.config, door)).await;
        answer(call_service(&app, request.to_request()).await).await
    }

    async fn ask(&self, method: Method, path: &str, device: Option<&Device>, body: Option<Value>) -> Answer {
        self.at(MAIN, request(method, path, device, body)).await
    }

    async fn get(&self, path: &str, device: &Device) -> Answer {
        self.ask(Method::GET, path, Some(device), None).await
    }

    async fn post(&self, path: &str, device: &Device, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(device), Some(body)).await
    }

    async fn put(&self, path: &str, device: &Device, body: Value) -> Answer {
        self.ask(Method::PUT, path, Some(device), Some(body)).await
    }

    async fn register(&self, number: u8) -> Device {
        let phone = format!("+417912345{number:02}");
        let wanted = json!({"phone": phone, "purpose": "registration"});
        let started = self.ask(Method::POST, "/v1/auth/verifications", None, Some(wanted)).await;
        assert_eq!(started.status, 201, "{}", started.text);
        let sent = std::fs::read_to_string(self.folder.path().join("outbox")).unwrap();
        let sent: Value = serde_json::from_str(sent.lines().last().unwrap()).unwrap();
        let key = SigningKey::from_bytes([number; 32]);
        let mut shared = vec![5];
        shared.extend([number; 32]);
        let kyber = [vec![8], vec![number; 1568]].concat();
        let signed = |public_key: &[u8]| {
            let signature = key.sign(public_key, &[9; 64]).unwrap();
            json!({"key_id": 1, "public_key": Binary::encode(public_key), "signature": Binary::encode(&signature)})
        };
        let body = json!({
            "verification_id": started.json()["verification_id"],
            "code": sent["code"],
            "device": {"name": "Phone", "platform": "android"},
            "keys": {
                "suite": "signal",
                "registration_id": 7,
                "identity_key": Binary::encode(&key.public()),
                "signed_prekey": signed(&shared),
                "one_time_prekeys": [],
                "pq_last_resort_prekey": signed(&kyber),
            },
        });
        let tokens = self.ask(Method::POST, "/v1/auth/register", None, Some(body)).await;
        assert_eq!(tokens.status, 201, "{}", tokens.text);
        let text = |name: &str| tokens.json()[name].as_str().unwrap().to_owned();
        Device { user: text("user_id"), device: text("device_id"), token: text("access_token") }
    }
}

async fn answer<B: actix_web::body::MessageBody>(response: ServiceResponse<B>) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = String::from_utf8(read_body(response).await.to_vec()).unwrap();
    Answer { status, headers, text }
}

fn request(method: Method, path: &str, device: Option<&Device>, body: Option<Value>) -> TestRequest {
    let mut request = TestRequest::default().method(method).uri(path);
    if let Some(device) = device {
        request = request.insert_header(("authorization", format!("Bearer {}", device.token)));
    }
    if let Some(body) = body {
        let text = body.to_string();
        request = request.insert_header(("content-type", "application/json"));
        request = request.insert_header(("content-length", text.len())).set_payload(text);
    }
    request
}

fn message(conversation: &str, to: &Device) -> Value {
    json!({
        "message_id": Uuid::now_v7(),
        "conversation_id": conversation,
        "kind": "text",
        "envelopes": [{"user_id": to.user, "device_id": to.device, "registration_id": 7, "type": 2, "ciphertext": "AAEC"}],
    })
}

async fn direct(world: &World, from: &Device, to: &Device) -> String {
    let made = world.post("/v1/conversations", from, json!({"type": "direct", "members": [to.user]})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()["conversation_id"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn what_is_not_open_wants_a_token_and_other_methods_are_named() {
    let world = World::new().await;
    for route in ROUTES {
        let path = route.path.replace("{user_id}", "x").replace("{conversation_id}", "x").replace("{message_id}", "x");
        // Open: an id that could be one, so that it is the body that is missing.
        let path = path.replace("{link_id}", &Uuid::now_v7().to_string());
        for method in route.methods {
            let method: Method = method.parse().unwrap();
            let answer = world.ask(method.clone(), &path, None, None).await;
            if route.open.is_some() {
                assert_ne!(answer.status, 404, "{method} {path}");
            } else {
                assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"), "{method} {path}");
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{method} {path}");
            }
            assert!(!answer.header("x-request-id").is_empty(), "{method} {path}");
        }
        let other = if route.methods.contains(&"PATCH") { Method::PUT } else { Method::PATCH };
        let other = world.ask(other, &path, None, None).await;
        assert_eq!((other.status, other.code().as_str()), (405, "method_not_allowed"), "{path}");
        for method in route.methods {
            assert!(
                other.header("allow").split(", ").any(|known| known == *method),
                "{path}: {}",
                other.header("allow")
            );
        }
    }
    let nowhere = world.ask(Method::GET, "/v1/nothing", None, None).await;
    assert_eq!((nowhere.status, nowhere.code().as_str()), (404, "not_found"));
}

#[actix_web::test]
async fn operators_have_a_door_of_their_own() {
    let world = World::new().await;
    let status = async |door: Door, path: &str| world.at(door, TestRequest::get().uri(path)).await.status;
    let alone = Door::Main { with_admin: false };
    for path in ["/metrics", "/docs", "/docs/index.html"] {
        assert_eq!(status(alone, path).await, 404, "{path}");
        assert!(status(Door::Admin, path).await < 400, "{path}");
        assert!(status(MAIN, path).await < 400, "{path}");
    }
    for path in ["/health", "/livez", "/readyz", "/openapi.json"] {
        assert_eq!(status(alone, path).await, 200, "{path}");
        assert_eq!(status(Door::Admin, path).await, 200, "{path}");
    }
    assert_eq!(status(Door::Admin, "/v1/auth/me").await, 404);
    let index = async |door| world.at(door, TestRequest::get().uri("/")).await.text;
    assert!(index(MAIN).await.contains("href=\"/docs\"") && !index(alone).await.contains("/docs"));
    let verbose = async |door| world.at(door, TestRequest::get().uri("/readyz?verbose")).await.text;
    assert!(verbose(Door::Admin).await.contains("[+] database (sqlite)"));
    assert_eq!(verbose(alone).await, "ok\n");
    assert!(SHARED_ROUTES.iter().chain(ADMIN_ROUTES).all(|route| route.open.is_some()));
}

#[actix_web::test]
async fn health_and_metrics_tell_how_the_node_is() {
    let world = World::new().await;
    let health = world.ask(Method::GET, "/health", None, None).await;
    assert_eq!(health.status, 200);
    let told = health.json();
    assert_eq!((&told["status"], &told["db"], &told["redis"]), (&json!("ok"), &json!("ok"), &Value::Null));
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert!(told.get("insecure").is_none());
    assert_eq!(world.ask(Method::HEAD, "/health", None, None).await.status, 200);
    world.services.node.drain(std::time::Duration::from_millis(10)).await;
    let draining = world.ask(Method::GET, "/health", None, None).await;
    assert_eq!((draining.status, &draining.json()["status"]), (503, &json!("down")));
    assert_eq!(world.ask(Method::GET, "/readyz", None, None).await.status, 503);
    assert_eq!(world.ask(Method::GET, "/livez", None, None).await.status, 200);
    let metrics = world.ask(Method::GET, "/metrics", None, None).await.text;
    assert!(metrics.contains("sotto_node_info{node=\"node\""), "{metrics}");
    assert!(
        metrics.contains("sotto_http_requests_total{method=\"GET\",route=\"/health\",status=\"503\"}"),
        "{metrics}"
    );
    assert!(metrics.contains("sotto_http_request_seconds_bucket{"), "{metrics}");
}

#[actix_web::test]
async fn the_docs_are_served_without_help_from_elsewhere() {
    let world = World::new().await;
    let page = world.ask(Method::GET, "/docs/index.html", None, None).await;
    assert!(page.text.contains("swagger-ui"), "{}", page.text);
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "{}", page.text);
    assert!(page.header("content-security-policy").contains("script-src 'self'"));
    let start = world.ask(Method::GET, "/docs/swagger-initializer.js", None, None).await;
    assert!(start.text.contains("/openapi.json"), "{}", start.text);
    assert_eq!(world.ask(Method::GET, "/docs/nothing.js", None, None).await.status, 404);
}

#[actix_web::test]
async fn a_message_goes_from_request_to_sync_and_never_again() {
    for world in World::both().await {
        let (anna, ben) = (world.register(1).await, world.register(2).await);
        let conversation = direct(&world, &anna, &ben).await;
        let again = world.post("/v1/conversations", &ben, json!({"type": "direct", "members": [anna.user]})).await;
        assert_eq!((again.status, again.json()["conversation_id"].as_str()), (200, Some(conversation.as_str())));

        let letter = message(&conversation, &ben);
        let sent = world.post("/v1/messages", &anna, letter.clone()).await;
        assert_eq!((sent.status, &sent.json()["seq"], &sent.json()["duplicate"]), (201, &json!(1), &json!(false)));
        assert_eq!(sent.header("ratelimit-policy"), "\"requests\";q=100;w=60");
        let repeated = world.post("/v1/messages", &anna, letter).await;
        assert_eq!(
            (repeated.status, &repeated.json()["seq"], &repeated.json()["duplicate"]),
            (200, &json!(1), &json!(true))
        );

        let is_message = |event: &&Value| event["t"] == "new_message";
        let page = world.get("/v1/sync", &ben).await.json();
        let twice = world.get("/v1/sync?limit=500", &ben).await.json();
        assert_eq!(page["events"], twice["events"], "asking twice gives the same");
        let event = page["events"].as_array().unwrap().iter().find(is_message).unwrap();
        assert_eq!(event["d"]["ciphertext"], "AAEC");
        assert!(Uuid::parse_str(page["epoch"].as_str().unwrap()).is_ok());
        let cursor = json!({"cursor": page["cursor"]});
        assert_eq!(world.post("/v1/sync/ack", &anna, cursor.clone()).await.code(), "cursor_unknown");
        assert_eq!(world.post("/v1/sync/ack", &ben, cursor.clone()).await.status, 204);
        assert_eq!(world.post("/v1/sync/ack", &ben, cursor).await.status, 204, "an older cursor changes nothing");
        let rest = world.get("/v1/sync", &ben).await.json();
        assert!(!rest["events"].as_array().unwrap().iter().any(|event| is_message(&event)), "{rest}");

        let history = world.get(&format!("/v1/conversations/{conversation}/messages"), &ben).await.json();
        assert_eq!((history["items"][0]["ciphertext"].as_str(), &history["next"]), (Some("AAEC"), &Value::Null));
        let read = world.put(&format!("/v1/conversations/{conversation}/read"), &ben, json!({"up_to": 1})).await;
        assert_eq!(read.status, 204, "{}", read.text);
        let too_far = world.put(&format!("/v1/conversations/{conversation}/read"), &ben, json!({"up_to": 9})).await;
        assert_eq!(too_far.code(), "validation_failed");
        let message_id = history["items"][0]["message_id"].as_str().unwrap();
        let by_message = world.ask(Method::PUT, &format!("/v1/messages/{message_id}/read"), Some(&ben), None).await;
        assert_eq!(by_message.status, 204, "{}", by_message.text);
    }
}

#[actix_web::test]
async fn strangers_and_nonsense_are_not_found_and_wrong_values_are_named() {
    let world = World::new().await;
    let (anna, ben, carl) = (world.register(1).await, world.register(2).await, world.register(3).await);
    let conversation = direct(&world, &anna, &ben).await;
    for path in [
        format!("/v1/conversations/{conversation}"),
        format!("/v1/conversations/{conversation}/messages"),
        "/v1/conversations/nonsense".to_owned(),
        format!("/v1/conversations/{}", Uuid::now_v7()),
    ] {
        let answer = world.get(&path, &carl).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    let stray = world.post("/v1/messages", &carl, message(&conversation, &ben)).await;
    assert_eq!((stray.status, stray.code().as_str()), (404, "not_found"));
    for (path, parameter) in [
        ("/v1/sync?limit=0", "limit"),
        ("/v1/sync?limit=501", "limit"),
        ("/v1/conversations?limit=201", "limit"),
        (&format!("/v1/conversations/{conversation}/messages?after_seq=x"), "after_seq"),
    ] {
        let answer = world.get(path, &anna).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["parameter"]), (422, &json!(parameter)), "{path}");
    }
    assert_eq!(world.get("/v1/conversations?after=nonsense", &anna).await.code(), "cursor_unknown");
    let negative = world.put(&format!("/v1/conversations/{conversation}/read"), &anna, json!({"up_to": -1})).await;
    assert_eq!((negative.status, &negative.json()["errors"][0]["pointer"]), (422, &json!("/up_to")));
}

#[actix_web::test]
async fn the_list_goes_on_where_the_page_ended() {
    for world in World::both().await {
        let anna = world.register(1).await;
        let mut made = Vec::new();
        for _ in 0..5 {
            let group =
                world.post("/v1/conversations", &anna, json!({"type": "group", "members": [], "name": "x"})).await;
            assert_eq!(group.status, 201, "{}", group.text);
            made.push(group.json()["conversation_id"].clone());
        }
        made.reverse();
        let mut seen = Vec::new();
        let mut path = "/v1/conversations?limit=2".to_owned();
        loop {
            let page = world.get(&path, &anna).await.json();
            seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["conversation_id"].clone()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/conversations?limit=2&after={next}");
        }
        assert_eq!(seen, made);
    }
}

#[actix_web::test]
async fn members_come_and_go() {
    for world in World::both().await {
        let (anna, ben) = (world.register(1).await, world.register(2).await);
        let group = world.post("/v1/conversations", &anna, json!({"type": "group", "members": []})).await.json();
        let path = format!("/v1/conversations/{}/members", group["conversation_id"].as_str().unwrap());
        let ben_only = json!({"user_ids": [ben.user]});
        assert_eq!(world.post(&path, &ben, ben_only.clone()).await.status, 404);
        assert_eq!(world.post(&path, &anna, ben_only.clone()).await.status, 204);
        let foreign = world.post(&path, &ben, json!({"user_ids": [Uuid::new_v4()]})).await;
        assert_eq!((foreign.status, foreign.code().as_str()), (403, "forbidden"));
        let left = world.ask(Method::DELETE, &path, Some(&ben), Some(ben_only)).await;
        assert_eq!(left.status, 204, "{}", left.text);
    }
}

#[actix_web::test]
async fn a_key_makes_two_requests_one() {
    for world in World::both().await {
        let anna = world.register(1).await;
        let ask = async |key: &str, name: &str| {
            let body = json!({"type": "group", "members": [], "name": name});
            let request = request(Method::POST, "/v1/conversations", Some(&anna), Some(body));
            world.at(MAIN, request.insert_header(("Idempotency-Key", key.to_owned()))).await
        };
        let first = ask("k-1", "one").await;
        let second = ask("k-1", "one").await;
        assert_eq!((first.status, second.status), (201, 201));
        assert_eq!(first.text, second.text);
        assert_eq!(ask("k-1", "two").await.code(), "idempotency_mismatch");
        assert_ne!(ask("k-2", "one").await.text, first.text);
        let bad = ask("k 1", "one").await;
        assert_eq!((bad.status, &bad.json()["errors"][0]["parameter"]), (422, &json!("Idempotency-Key")));
    }
}

#[actix_web::test]
async fn the_hundred_and_first_request_of_a_minute_is_refused() {
    let world = World::new().await;
    let anna = world.register(1).await;
    let app = init_service(app(&world.services, &world.config, MAIN)).await;
    let ask = async || {
        answer(app.call(request(Method::GET, "/v1/auth/me", Some(&anna), None).to_request()).await.unwrap()).await
    };
    for left in (0..100).rev() {
        let answer = ask().await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(
            answer.header("ratelimit").starts_with(&format!("\"requests\";r={left};t=")),
            "{}",
            answer.header("ratelimit")
        );
    }
    let refused = ask().await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 60);
    assert!(refused.header("ratelimit").starts_with("\"requests\";r=0;"), "{}", refused.header("ratelimit"));
}
