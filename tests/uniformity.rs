//! Known and unknown numbers take the same time, as far as statistics can tell: pairs of requests in random order, held
//! against each other by the test of Mann, Whitney and Wilcoxon. That their answers are alike, `bad_input/leaks.rs` tests.

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{fresh_phone, register};
use serde_json::{Value, json};
use sotto_client::rest::RawAnswer;
use sotto_client::{HeaderMap, Method, Rest};
use std::time::{Duration, Instant};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

/// Pairs per route. With so many, a difference of a quarter of the spread is found nearly always.
const PAIRS: usize = 400;
/// Standard deviations that chance does not reach: once in some millions of runs.
pub const CHANCE: f64 = 5.0;

/// How far the ranks of two samples are from what chance makes of equal ones, in standard deviations (Mann and Whitney 1947,
/// normal approximation; times are never tied).
pub fn distance(one: &[f64], other: &[f64]) -> f64 {
    let wins = one.iter().map(|a| other.iter().filter(|b| a > b).count()).sum::<usize>();
    let (m, n) = (one.len() as f64, other.len() as f64);
    (wins as f64 - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt()
}

pub fn median(sample: &[f64]) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Noise with a long tail, the same at each run.
fn noise(count: usize, mut seed: u64) -> Vec<f64> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / f64::from(1_u32 << 31)
    };
    (0..count).map(|_| 1.0 + next() + if next() > 0.97 { 20.0 * next() } else { 0.0 }).collect()
}

#[test]
fn the_statistic_finds_what_is_there_and_nothing_else() {
    let (one, other) = (noise(PAIRS, 1), noise(PAIRS, 2));
    assert!(distance(&one, &other).abs() < 3.0);
    let slower: Vec<f64> = other.iter().map(|time| time + 0.15).collect();
    assert!(distance(&slower, &one) > CHANCE, "a tenth more");
}

struct Prober {
    rest: Rest,
}

impl Prober {
    async fn post(&self, path: &str, body: &Value) -> (RawAnswer, Duration) {
        let body = Some(body.to_string().into_bytes());
        let begun = Instant::now();
        let answer = self.rest.raw(Method::POST, path, HeaderMap::new(), body).await.unwrap();
        (answer, begun.elapsed())
    }

    async fn verify(&self, phone: &str, purpose: &str) -> (Value, Duration) {
        let (answer, took) = self.post("/v1/auth/verifications", &json!({"phone": phone, "purpose": purpose})).await;
        assert_eq!(answer.status, 201);
        (serde_json::from_slice(&answer.body).unwrap(), took)
    }

    /// Asks for a code and shows a wrong one: how long both took.
    async fn round(&self, phone: &str, purpose: &str, path: &str, sign_in: &Value) -> [f64; 2] {
        let (verification, asked) = self.verify(phone, purpose).await;
        let mut request = sign_in.clone();
        request["verification_id"] = verification["verification_id"].clone();
        let (answer, tried) = self.post(path, &request).await;
        assert_eq!(answer.status, 401);
        [asked.as_secs_f64(), tried.as_secs_f64()]
    }
}

async fn compare(node: &TestNode, known: &[String], purpose: &str, path: &str) {
    let prober = Prober { rest: Rest::new(&node.url).unwrap() };
    let mut sign_in = crate::bad_input::cases::sign_in();
    sign_in["code"] = json!("x00000");
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    for pair in 0..PAIRS + 20 {
        // By a coin, so that neither is always the one that comes after the other.
        let known_first = uuid::Uuid::new_v4().as_bytes()[0] & 1 == 1;
        for is_known in [known_first, !known_first] {
            let phone = if is_known { known[pair % known.len()].clone() } else { fresh_phone() };
            let took = prober.round(&phone, purpose, path, &sign_in).await;
            // The first ones warm caches up.
            if pair >= 20 {
                for (what, time) in took.into_iter().enumerate() {
                    times[what][usize::from(is_known)].push(time);
                }
            }
        }
    }
    for (what, [unknown, known]) in ["asking for a code", "a wrong code"].into_iter().zip(&times) {
        let (far, medians) = (distance(known, unknown), (median(known) * 1e6, median(unknown) * 1e6));
        println!(
            "{purpose}, {what}: known {:.0} µs, unknown {:.0} µs, {far:+.1} standard deviations",
            medians.0, medians.1
        );
        assert!(far.abs() < CHANCE, "{purpose}, {what}: {far:+.1} standard deviations apart, medians {medians:?} µs");
    }
}

on_both! {
    async fn known_and_unknown_numbers_take_the_same_time(database) {
        timed(database).await;
    }
}

async fn timed(database: Kind) {
    let server = MockServer::start().await;
    Mock::given(matchers::any()).respond_with(ResponseTemplate::new(201)).mount(&server).await;
    let first = TestNode::start(database).await;
    let mut known = Vec::new();
    for _ in 0..20 {
        known.push(register(&first, "known").await.phone);
    }
    // With a gateway as in production: the senders for development write to the disk before they answer.
    let url = server.uri();
    let settings = [
        ("SOTTO_LIMITS__ENABLED", "false"),
        ("SOTTO_SMS__SENDER", "twilio"),
        ("SOTTO_SMS__TWILIO__ACCOUNT_SID", "AC1"),
        ("SOTTO_SMS__TWILIO__AUTH_TOKEN", "token"),
        ("SOTTO_SMS__TWILIO__FROM", "+15550000000"),
        ("SOTTO_SMS__TWILIO__BASE_URL", url.as_str()),
    ];
    let folder = std::sync::Arc::clone(&first.folder);
    let node = TestNode::on(database, folder, first.store_url.clone(), &settings, 0).await;
    for (purpose, path) in [("login", "/v1/auth/login"), ("recovery", "/v1/auth/login")] {
        compare(&node, &known, purpose, path).await;
    }
}
