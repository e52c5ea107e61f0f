//! What codes may cost: countries, blocks of numbers, a budget over all nodes, a gateway that fails, and an attack.

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::register;
use reqwest::Url;
use serde_json::{Value, json};
use sotto_client::rest::RawAnswer;
use sotto_client::{HeaderMap, Method, Rest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers};

/// Asks for a code as somebody with an address of his own.
async fn ask(node: &TestNode, phone: &str, purpose: &str, address: &str) -> RawAnswer {
    let body = json!({"phone": phone, "purpose": purpose}).to_string().into_bytes();
    let headers = HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), address.parse().unwrap())]);
    let rest = Rest::new(&node.url).unwrap();
    rest.raw(Method::POST, "/v1/auth/verifications", headers, Some(body)).await.unwrap()
}

fn body(answer: &RawAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// The limit that an answer names; none when it was taken.
fn limit(answer: &RawAnswer) -> Option<String> {
    match answer.status {
        201 => None,
        429 => Some(body(answer)["limit"]["name"].as_str().unwrap().to_owned()),
        other => panic!("{other}: {}", body(answer)),
    }
}

/// The same of a server that may have more to do than it can: then it says so.
fn limit_or_busy(answer: &RawAnswer) -> Option<String> {
    if answer.status == 503 { Some("unavailable".to_owned()) } else { limit(answer) }
}

/// Addresses in networks of their own.
fn address(number: usize) -> String {
    format!("10.{}.{}.7", number / 256 % 256, number % 256)
}

const TRUST: (&str, &str) = ("SOTTO_HTTP__TRUSTED_PROXIES", "127.0.0.1");
/// A server that others reach through a proxy may use an outbox only if it is told that it may.
const PUBLIC: (&str, &str) = ("SOTTO_DEV__INSECURE", "true");

fn messages(node: &TestNode) -> usize {
    std::fs::read_to_string(node.folder.path().join("outbox.jsonl")).map_or(0, |text| text.lines().count())
}

on_both! {
    async fn only_the_countries_that_are_listed_are_served(database) {
        let node = TestNode::with(database, &[("SOTTO_SMS__COUNTRIES", "+41,+423")]).await;
        for (phone, purpose) in [("+4915112345678", "registration"), ("+14155550100", "login")] {
            let answer = ask(&node, phone, purpose, "").await;
            assert_eq!((answer.status, &body(&answer)["code"]), (422, &json!("validation_failed")));
            assert_eq!(body(&answer)["errors"], json!([{"pointer": "/phone", "code": "country_not_served"}]));
        }
        assert_eq!(messages(&node), 0);
        assert_eq!(limit(&ask(&node, "+4237912345", "registration", "").await), None);
        assert_eq!(messages(&node), 1);
    }

    async fn a_block_of_numbers_gets_so_many_codes_and_its_neighbour_is_free(database) {
        let node = TestNode::with(database, &[TRUST, PUBLIC, ("SOTTO_LIMITS__CODES_PER_BLOCK_PER_HOUR", "3")]).await;
        let other = node.sibling().await;
        for number in 0..3 {
            let from = if number == 1 { &other } else { &node };
            assert_eq!(limit(&ask(from, &format!("+4179555000{number}"), "registration", &address(number)).await), None);
        }
        for node in [&node, &other] {
            let refused = ask(node, "+41795559999", "registration", &address(9)).await;
            assert_eq!(limit(&refused).as_deref(), Some("code_block"));
            assert!(refused.headers.contains_key("retry-after"));
        }
        assert_eq!(limit(&ask(&node, "+41795560000", "registration", &address(9)).await), None);
    }

    async fn the_budget_is_kept_over_all_nodes_and_a_quarter_is_for_accounts(database) {
        let settings = [TRUST, PUBLIC, ("SOTTO_SMS__BUDGET_PER_HOUR", "40"), ("SOTTO_SMS__PRICES", "+882=9,+49=5")];
        let node = TestNode::with(database, &settings).await;
        let other = node.sibling().await;
        // One unit.
        let alice = register(&node, "alice").await;
        // Nine units a message: one range takes ten at most, so a second one is refused.
        assert_eq!(limit(&ask(&node, "+88216000001", "registration", &address(1)).await), None);
        assert_eq!(limit(&ask(&other, "+88216000002", "registration", &address(2)).await).as_deref(), Some("sms_range"));
        // Five each; strangers have thirty in all, of which ten are gone.
        for (number, at) in [(1, &node), (2, &other), (3, &node), (4, &other)] {
            let taken = ask(at, &format!("+49{number}5112345678"), "registration", &address(10 + number)).await;
            assert_eq!(limit(&taken), None, "{number}");
        }
        let sent = messages(&node);
        for at in [&node, &other] {
            let refused = ask(at, "+4955112345678", "phone_change", &address(20)).await;
            assert_eq!(limit(&refused).as_deref(), Some("sms_strangers"));
        }
        // What is refused costs nothing, and who has an account gets a code.
        assert_eq!(messages(&node), sent);
        assert_eq!(limit(&ask(&other, &alice.phone, "login", &address(30)).await), None);
        assert_eq!(messages(&node), sent + 1);
    }

    async fn a_spent_budget_tells_nothing_about_numbers(database) {
        let settings =
            [TRUST, PUBLIC, ("SOTTO_SMS__BUDGET_PER_HOUR", "16"), ("SOTTO_LIMITS__CODES_PER_NUMBER_PER_HOUR", "10")];
        let node = TestNode::with(database, &settings).await;
        let alice = register(&node, "alice").await;
        // No message goes to numbers without an account, and they spend as much: four units in a range.
        for (number, purpose) in ["login", "recovery", "second_factor", "device_link"].into_iter().enumerate() {
            assert_eq!(limit(&ask(&node, "+41785550000", purpose, &address(number)).await), None, "{purpose}");
            let known = limit(&ask(&node, &alice.phone, purpose, &address(40 + number)).await);
            // Her registration was the first of her range.
            assert_eq!(known.as_deref(), (number == 3).then_some("sms_range"), "{purpose}");
        }
        let unknown = ask(&node, "+41785550000", "account_deletion", &address(51)).await;
        assert_eq!(limit(&unknown).as_deref(), Some("sms_range"));
        assert_eq!(messages(&node), 4);
        // Eight are taken; of the sixteen strangers have fourteen, whichever numbers they ask for.
        for number in 0..6 {
            let phone = format!("+4{number}15112345678");
            assert_eq!(limit(&ask(&node, &phone, "login", &address(60 + number)).await), None, "{number}");
        }
        let refused = ask(&node, "+4915112345678", "login", &address(70)).await;
        assert_eq!(limit(&refused).as_deref(), Some("sms_unknown"));
    }
}

/// A gateway at Twilio's address, with the answers that a test wants.
async fn gateway(status: u16) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(matchers::any()).respond_with(ResponseTemplate::new(status)).mount(&server).await;
    server
}

fn twilio(url: &str) -> [(&str, &str); 6] {
    [
        ("SOTTO_SMS__SENDER", "twilio"),
        ("SOTTO_SMS__TWILIO__ACCOUNT_SID", "AC1"),
        ("SOTTO_SMS__TWILIO__AUTH_TOKEN", "token"),
        ("SOTTO_SMS__TWILIO__FROM", "+15550000000"),
        ("SOTTO_SMS__TWILIO__BASE_URL", url),
        ("SOTTO_DEV__INSECURE", "true"),
    ]
}

/// Numbers and codes that the gateway was given.
async fn delivered(server: &MockServer) -> Vec<(String, String)> {
    let message = |request: Request| {
        let query = String::from_utf8(request.body).unwrap();
        let form: Vec<(String, String)> =
            Url::parse(&format!("http://form/?{query}")).unwrap().query_pairs().into_owned().collect();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).unwrap().1.clone();
        let digits = field("Body").chars().filter(char::is_ascii_digit).take(6).collect();
        (field("To"), digits)
    };
    server.received_requests().await.unwrap().into_iter().map(message).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_gateway_fails_nobody_waits_for_a_code() {
    let server = gateway(503).await;
    let url = server.uri();
    let mut node = TestNode::with(Kind::Sqlite, &twilio(&url)).await;
    node.expect_log("the gateway for text messages fails");
    assert_eq!(ask(&node, "+41795550000", "registration", "").await.status, 201);
    let begun = Instant::now();
    let refused = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "codes are still taken");
        let answer = ask(&node, "+41795560000", "login", "").await;
        if answer.status == 503 {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let problem = body(&refused);
    assert_eq!((&problem["code"], &problem["retryable"]), (&json!("unavailable"), &json!(true)));
    assert!((1..=60_000).contains(&problem["retry_after_ms"].as_u64().unwrap()), "{problem}");
    let metrics = Rest::new(&node.url).unwrap();
    let metrics = metrics.raw(Method::GET, "/metrics", HeaderMap::new(), None).await.unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics.lines().any(|line| line.starts_with("sotto_sms_gateway_down") && line.ends_with(" 1")),
        "{metrics}"
    );
    let calls = delivered(&server).await.len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(delivered(&server).await.len(), calls, "in the pause nobody calls");
    // It works again: what was taken is delivered, and codes are taken.
    server.reset().await;
    Mock::given(matchers::any()).respond_with(ResponseTemplate::new(201)).mount(&server).await;
    while ask(&node, "+41795570000", "registration", "").await.status != 201 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    while !delivered(&server).await.iter().any(|(to, _)| to == "+41795570000") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An attack on codes: from a thousand networks, to numbers of two ranges whose owner earns by each message.
async fn attack(requests: usize) {
    const SOURCES: usize = 1000;
    const BUDGET: usize = 200;
    let server = gateway(201).await;
    let (url, budget) = (server.uri(), BUDGET.to_string());
    let first = TestNode::with(Kind::Postgres, &[]).await;
    let honest = register(&first, "honest").await;
    let mut settings = twilio(&url).to_vec();
    settings.extend([TRUST, PUBLIC, ("SOTTO_SMS__BUDGET_PER_HOUR", budget.as_str())]);
    let node = TestNode::on(Kind::Postgres, Arc::clone(&first.folder), first.store_url.clone(), &settings, 0).await;
    let node = Arc::new(node);
    let (mut taken, mut refused) = (0_usize, BTreeMap::<String, usize>::new());
    let mut wave = JoinSet::new();
    for number in 0..requests {
        if wave.len() >= 64 {
            let answer: RawAnswer = wave.join_next().await.unwrap().unwrap();
            match limit_or_busy(&answer) {
                None => taken += 1,
                Some(name) => *refused.entry(name).or_default() += 1,
            }
        }
        let node = Arc::clone(&node);
        wave.spawn(async move {
            let range = if number % 2 == 0 { "+88213" } else { "+25270" };
            // Every third asks in the name of somebody who might have an account.
            let purpose = if number % 3 == 0 { "login" } else { "registration" };
            ask(&node, &format!("{range}{:06}", number * 7919 % 1_000_000), purpose, &address(number % SOURCES)).await
        });
    }
    while let Some(answer) = wave.join_next().await {
        match limit_or_busy(&answer.unwrap()) {
            None => taken += 1,
            Some(name) => *refused.entry(name).or_default() += 1,
        }
    }
    let sent = delivered(&server).await.len();
    println!("{requests} requests from {SOURCES} networks: {taken} taken, {sent} sent, refused {refused:?}");
    assert!(sent <= BUDGET / 4 * 3, "{sent} messages went out");
    // As people do, from where nobody attacks: one has an account, the other wants one.
    for (phone, purpose) in [(honest.phone.as_str(), "login"), ("+33612345678", "registration")] {
        assert_eq!(ask(&node, phone, purpose, "198.51.100.9").await.status, 201, "{purpose}");
        while !delivered(&server).await.iter().any(|(to, _)| to == phone) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attack_stays_within_the_budget_and_honest_people_get_codes() {
    attack(3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a hundred thousand requests take minutes"]
async fn an_attack_of_a_hundred_thousand_requests() {
    attack(100_000).await;
}
