//! Codes that strangers ask for: they keep no owner from his own, and spend no more than their part.

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, register};
use serde_json::{Value, json};
use sotto_client::protocol::auth::{LoginRequest, Purpose};
use sotto_client::protocol::challenge::{solve, zero_bits};
use sotto_client::rest::RawAnswer;
use sotto_client::{DeviceKeys, HeaderMap, Method, Rest};
use sotto_schema::{Store, StoreSettings, inspect};
use std::time::Duration;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

const TRUST: (&str, &str) = ("SOTTO_HTTP__TRUSTED_PROXIES", "127.0.0.1");
/// With a proxy the main listener counts as public; codes go to a file all the same.
const PUBLIC: (&str, &str) = ("SOTTO_DEV__INSECURE", "true");
/// In the network that everybody registers from here.
const HOME: &str = "127.0.0.77";
/// Networks that an attacker has.
const NETWORKS: usize = 200;

async fn post(rest: &Rest, body: &Value, address: &str) -> RawAnswer {
    let headers = HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), address.parse().unwrap())]);
    rest.raw(Method::POST, "/v1/auth/verifications", headers, Some(body.to_string().into_bytes())).await.unwrap()
}

async fn ask(node: &TestNode, phone: &str, purpose: &str, address: &str) -> RawAnswer {
    post(&Rest::new(&node.url).unwrap(), &json!({"phone": phone, "purpose": purpose}), address).await
}

/// The same as a signed-in device.
async fn ask_as(device: &Device, phone: &str, purpose: &str, address: &str) -> RawAnswer {
    post(&device.rest, &json!({"phone": phone, "purpose": purpose}), address).await
}

async fn answered(node: &TestNode, phone: &str, address: &str, response: &Value) -> RawAnswer {
    let body = json!({"phone": phone, "purpose": "login", "challenge_response": response});
    post(&Rest::new(&node.url).unwrap(), &body, address).await
}

fn body(answer: &RawAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// The limit that refused; none when it was taken.
fn limit(answer: &RawAnswer) -> Option<String> {
    match answer.status {
        201 => None,
        429 => Some(body(answer)["limit"]["name"].as_str().unwrap().to_owned()),
        other => panic!("{other}: {}", body(answer)),
    }
}

/// Addresses in wide networks of their own.
fn far(number: usize) -> String {
    format!("11.{}.{}.7", number % 256, number / 256)
}

/// All of an answer but what is another each time.
fn shape(answer: &RawAnswer) -> (u16, Vec<String>, Value) {
    let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
    names.sort();
    let mut body = body(answer);
    for name in ["verification_id", "expires_at", "resend_at", "request_id", "retry_after_ms"] {
        if let Some(value) = body.get_mut(name) {
            *value = json!(null);
        }
    }
    (answer.status, names, body)
}

/// Another number of the same ten thousand.
fn neighbour(phone: &str, number: usize) -> String {
    format!("{}{:04}", &phone[..phone.len() - 4], 9_000 + number)
}

/// Her device and her home get codes.
async fn owner_is_served(node: &TestNode, alice: &Device) {
    assert_eq!(limit(&ask(node, &alice.phone, "login", HOME).await), None, "from where she signed in before");
    assert_eq!(limit(&ask_as(alice, &alice.phone, "login", &far(250)).await), None, "her device, from anywhere");
}

on_both! {
    async fn requests_for_a_number_do_not_keep_its_owner_from_codes(database) {
        let node = TestNode::with(database, &[TRUST, PUBLIC]).await;
        let alice = register(&node, "alice").await;
        let nobody = fresh_phone();
        // Her registration was one of the three, so that both have been asked for as often.
        assert_eq!(limit(&ask(&node, &nobody, "registration", &far(240)).await), None);
        for number in 0..NETWORKS {
            let purpose = ["login", "recovery", "second_factor"][number % 3];
            let known = ask(&node, &alice.phone, purpose, &far(number)).await;
            let unknown = ask(&node, &nobody, purpose, &far(number)).await;
            assert_eq!(shape(&known), shape(&unknown), "{number}");
            assert_eq!(limit(&known).is_some(), number >= 2, "{number}");
        }
        // From her own network it is a number without an account that is refused.
        assert_eq!(limit(&ask(&node, &nobody, "login", HOME).await).as_deref(), Some("code_number"));
        owner_is_served(&node, &alice).await;
        // Her own budgets have bounds of their own: the same purpose waits a minute, and no more than three an hour.
        assert_eq!(limit(&ask(&node, &alice.phone, "login", HOME).await).as_deref(), Some("code_resend_known"));
        for purpose in ["recovery", "second_factor"] {
            assert_eq!(limit(&ask(&node, &alice.phone, purpose, HOME).await), None);
        }
        let refused = ask(&node, &alice.phone, "device_link", HOME).await;
        assert_eq!(limit(&refused).as_deref(), Some("code_number_known"));
        let refused = ask_as(&alice, &alice.phone, "login", HOME).await;
        assert_eq!(limit(&refused).as_deref(), Some("code_resend_account"));
        // A number that she wants to have, whoever else asks for it.
        assert_eq!(limit(&ask_as(&alice, &nobody, "phone_change", &far(1)).await), None);
        // What is no token of hers is as none.
        let bob = register(&node, "bob").await;
        assert_eq!(limit(&ask_as(&bob, &alice.phone, "device_link", &far(1)).await).as_deref(), Some("code_number"));
        let rest = Rest::new(&node.url).unwrap().with_token("not.a.token");
        let refused = post(&rest, &json!({"phone": alice.phone, "purpose": "device_link"}), &far(1)).await;
        assert_eq!(limit(&refused).as_deref(), Some("code_number"));
    }

    async fn an_account_knows_sixteen_networks_for_ninety_days(database) {
        let settings = [TRUST, PUBLIC, ("SOTTO_LIMITS__CODES_PER_NUMBER_PER_HOUR", "2")];
        let node = TestNode::with(database, &settings).await;
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let count = async || inspect::texts(&store, "SELECT 'x' AS text FROM known_networks").await.unwrap().len();
        let alice = register(&node, "alice").await;
        assert_eq!(count().await, 1);
        // Strangers have one more.
        assert_eq!(limit(&ask(&node, &alice.phone, "recovery", &far(1)).await), None);
        inspect::execute(&store, "UPDATE known_networks SET expires_at = created_at").await.unwrap();
        assert_eq!(limit(&ask(&node, &alice.phone, "recovery", HOME).await).as_deref(), Some("code_number"));
        for number in 0..40 {
            let network = if database == Kind::Sqlite { format!("x'{number:04}'") } else { format!("'\\x{number:04}'") };
            let row = format!(
                "INSERT INTO known_networks SELECT user_id, {network}, expires_at, created_at, created_at FROM known_networks \
                 WHERE updated_at = (SELECT MAX(updated_at) FROM known_networks) LIMIT 1"
            );
            inspect::execute(&store, &row).await.unwrap();
        }
        assert_eq!(count().await, 41);
        // Her device may ask; the next sign-in from home is one of sixteen, and counts again.
        let asked = body(&ask_as(&alice, &alice.phone, "login", HOME).await);
        let mut keys = DeviceKeys::generate();
        let request = LoginRequest {
            verification_id: serde_json::from_value(asked["verification_id"].clone()).unwrap(),
            code: node.code_for(&alice.phone),
            device: info("tablet"),
            keys: keys.sign_in_keys(1).unwrap(),
            device_proof: None,
            totp: None,
            backup_code: None,
            pin: None,
        };
        Rest::new(&node.url).unwrap().login(&request).await.unwrap();
        assert_eq!(count().await, 16);
        assert_eq!(limit(&ask(&node, &alice.phone, "recovery", HOME).await), None);
    }

    async fn requests_for_a_block_do_not_keep_its_owners_from_codes(database) {
        let node = TestNode::with(database, &[TRUST, PUBLIC, ("SOTTO_LIMITS__CODES_PER_BLOCK_PER_HOUR", "10")]).await;
        let alice = register(&node, "alice").await;
        let mut taken = 0;
        for number in 0..NETWORKS {
            let answer = ask(&node, &neighbour(&alice.phone, number), "registration", &far(number)).await;
            match limit(&answer).as_deref() {
                None => taken += 1,
                other => assert_eq!(other, Some("code_block")),
            }
        }
        assert_eq!(taken, 9, "beside her registration");
        assert_eq!(limit(&ask(&node, &alice.phone, "login", &far(201)).await).as_deref(), Some("code_block"));
        owner_is_served(&node, &alice).await;
    }

    async fn a_spent_budget_leaves_owners_their_part(database) {
        let settings =
            [TRUST, PUBLIC, ("SOTTO_SMS__BUDGET_PER_HOUR", "40"), ("SOTTO_LIMITS__CODES_PER_NODE_PER_HOUR", "40")];
        let node = TestNode::with(database, &settings).await;
        let alice = register(&node, "alice").await;
        let mut taken = 1;
        for number in 0..NETWORKS {
            // Each in a range of its own, with and without need of an account.
            let purpose = ["login", "registration"][number % 2];
            let answer = ask(&node, &format!("+{}12345678", 2_000 + number), purpose, &far(number)).await;
            taken += usize::from(limit(&answer).is_none());
        }
        assert_eq!(taken, 35, "an eighth is out of their reach");
        owner_is_served(&node, &alice).await;
    }

    async fn few_networks_get_few_codes(database) {
        let settings = [
            TRUST, PUBLIC,
            ("SOTTO_LIMITS__CODES_PER_HOST_PER_HOUR", "2"),
            ("SOTTO_LIMITS__CODES_PER_ADDRESS_PER_HOUR", "4"),
            ("SOTTO_LIMITS__CODES_PER_REGION_PER_HOUR", "8"),
        ];
        let node = TestNode::with(database, &settings).await;
        let mut asked = 0;
        for (addresses, most, name) in [
            (["192.0.2.1"; 12].map(str::to_owned), 2, "code_host"),
            (std::array::from_fn(|number| format!("192.1.2.{number}")), 4, "code_address"),
            (std::array::from_fn(|number| format!("192.2.{number}.1")), 8, "code_region"),
            (std::array::from_fn(|number| format!("2001:db8:1:1::{number:x}")), 2, "code_host"),
            (std::array::from_fn(|number| format!("2001:db9:1:{number:x}::1")), 4, "code_address"),
            (std::array::from_fn(|number| format!("2001:dba:{number:x}::1")), 8, "code_region"),
        ] {
            let mut taken = 0;
            for address in addresses {
                asked += 1;
                match limit(&ask(&node, &format!("+{}12345678", 3_000 + asked), "registration", &address).await) {
                    None => taken += 1,
                    Some(limit) => assert_eq!(limit, name, "{address}"),
                }
            }
            assert_eq!(taken, most, "{name}");
        }
    }

    async fn a_challenge_is_demanded_above_half_and_its_answer_serves_once(database) {
        let settings = [
            TRUST, PUBLIC,
            ("SOTTO_AUTH__RESEND_DELAY", "0"),
            ("SOTTO_CHALLENGE__KIND", "proof_of_work"),
            ("SOTTO_CHALLENGE__DIFFICULTY", "8"),
            ("SOTTO_LIMITS__CODES_PER_HOST_PER_HOUR", "4"),
        ];
        let node = TestNode::with(database, &settings).await;
        let other = node.sibling().await;
        let alice = register(&node, "alice").await;
        let phone = fresh_phone();
        for _ in 0..2 {
            assert_eq!(limit(&ask(&node, &fresh_phone(), "login", &far(1)).await), None);
        }
        // Alike for both.
        let (known, unknown) = (ask(&node, &alice.phone, "login", &far(1)).await, ask(&node, &phone, "login", &far(1)).await);
        let (one, another) = (body(&known), body(&unknown));
        for (answer, problem) in [(&known, &one), (&unknown, &another)] {
            assert_eq!((answer.status, &problem["code"]), (401, &json!("challenge_required")));
            assert_eq!(problem["challenge"]["kind"], "proof_of_work");
            assert_eq!(problem["challenge"]["difficulty"], 10);
        }
        let text = another["challenge"]["challenge"].as_str().unwrap();
        let solution = solve(text, 10).unwrap();
        let wrong = (0..).map(|n| n.to_string()).find(|solution| zero_bits(text, solution) < 10).unwrap();
        let right = json!({"challenge": text, "solution": solution});
        // Wrong, foreign, or not ours.
        for (phone, response) in [
            (&phone, json!({"challenge": text, "solution": wrong})),
            (&phone, json!({"challenge": format!("{text}A"), "solution": solution})),
            (&phone, json!({"solution": solution})),
            (&alice.phone, right.clone()),
        ] {
            assert_eq!(answered(&node, phone, &far(1), &response).await.status, 401, "{response}");
        }
        assert_eq!(answered(&other, &phone, &far(1), &right).await.status, 201, "at any node");
        assert_eq!(answered(&node, &phone, &far(1), &right).await.status, 401, "it has served");
        // Who has been here before, or is signed in, is asked for nothing.
        let hers = Rest::new(&node.url).unwrap();
        for _ in 0..3 {
            assert_eq!(limit(&ask(&node, &alice.phone, "login", HOME).await), None);
            assert_eq!(limit(&ask_as(&alice, &alice.phone, "login", &far(1)).await), None);
        }
        // The client library answers by itself: this host has asked once.
        for _ in 0..3 {
            hers.verify(&fresh_phone(), Purpose::Registration).await.unwrap();
        }
        let refused = hers.verify(&fresh_phone(), Purpose::Registration).await.unwrap_err();
        assert_eq!(refused.problem().unwrap().more["limit"]["name"], "code_host");
    }

    async fn a_challenge_ends(database) {
        let settings = [
            TRUST, PUBLIC,
            ("SOTTO_CHALLENGE__KIND", "proof_of_work"),
            ("SOTTO_CHALLENGE__DIFFICULTY", "1"),
            ("SOTTO_CHALLENGE__VALID_FOR", "1"),
            ("SOTTO_SMS__BUDGET_PER_HOUR", "8"),
        ];
        let node = TestNode::with(database, &settings).await;
        // The whole budget fills, from networks that have not asked before.
        for number in 0..3 {
            assert_eq!(limit(&ask(&node, &format!("+{}12345678", 4_000 + number), "registration", &far(number)).await), None);
        }
        let phone = "+412012345678";
        let challenge = body(&ask(&node, phone, "login", &far(9)).await)["challenge"].clone();
        let (text, difficulty) = (challenge["challenge"].as_str().unwrap(), challenge["difficulty"].as_u64().unwrap());
        let response = json!({"challenge": text, "solution": solve(text, u32::try_from(difficulty).unwrap()).unwrap()});
        let ends: sotto_client::protocol::Timestamp = serde_json::from_value(challenge["expires_at"].clone()).unwrap();
        while sotto_client::protocol::Timestamp::now() <= ends.plus(Duration::from_millis(1)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(answered(&node, phone, &far(9), &response).await.status, 401);
    }
}

/// A captcha service that gives one answer.
async fn service(status: u16, success: bool) -> MockServer {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(status).set_body_json(json!({"success": success}));
    Mock::given(matchers::any()).respond_with(answer).mount(&server).await;
    server
}

async fn with_captcha(server: &MockServer) -> TestNode {
    let url = server.uri();
    let settings = [
        TRUST,
        PUBLIC,
        ("SOTTO_CHALLENGE__KIND", "captcha"),
        ("SOTTO_CHALLENGE__CAPTCHA_URL", url.as_str()),
        ("SOTTO_CHALLENGE__CAPTCHA_SECRET", "hidden"),
        ("SOTTO_CHALLENGE__CAPTCHA_SITE_KEY", "site"),
        ("SOTTO_LIMITS__CODES_PER_HOST_PER_HOUR", "2"),
    ];
    TestNode::with(Kind::Sqlite, &settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captcha_is_confirmed_by_its_service_where_one_is_due() {
    for (status, success, expected) in [(200, true, 201), (200, false, 401), (500, true, 503)] {
        let server = service(status, success).await;
        let node = with_captcha(&server).await;
        let response = json!({"solution": "from the widget"});
        assert_eq!(answered(&node, &fresh_phone(), &far(1), &response).await.status, 201, "none is due");
        assert!(server.received_requests().await.unwrap().is_empty());
        let demanded = body(&ask(&node, &fresh_phone(), "login", &far(1)).await);
        assert_eq!(demanded["challenge"], json!({"kind": "captcha", "site_key": "site"}));
        assert_eq!(answered(&node, &fresh_phone(), &far(1), &response).await.status, expected);
        let request = server.received_requests().await.unwrap().remove(0);
        let sent = format!("secret=hidden&response=from+the+widget&remoteip={}", far(1));
        assert_eq!(String::from_utf8(request.body).unwrap(), sent);
        if expected == 201 {
            assert_eq!(answered(&node, &fresh_phone(), &far(2), &response).await.status, 201, "none is due");
            assert_eq!(answered(&node, &fresh_phone(), &far(2), &response).await.status, 401, "it has served");
        }
    }
}
