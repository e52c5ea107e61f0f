//! Requests and frames that were right, changed at random: never a 5xx, never silence, never a dead server.

use super::cases::{Case, cases, frames, hello};
use super::room::{BOUND, Room, check, problem};
use crate::support::on_both;
use futures::StreamExt as _;
use serde_json::{Value, json};
use sotto_client::socket::Incoming;
use sotto_client::{HeaderMap, Method, Socket, SocketOptions};
use std::time::{Duration, Instant};

/// What is tried at most, of each kind, and how long.
const TRIES: u64 = 2_000;
const TIME: Duration = Duration::from_secs(9);
/// Frames that one connection gets at most.
const FRAMES: usize = 20;

/// Chance, the same in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// A value of any kind; ids that exist come up often.
fn value(chance: &mut Chance, ids: &[Value]) -> Value {
    match chance.below(14) {
        0 => Value::Null,
        1 => json!(chance.one_in(2)),
        2 => json!([]),
        3 => json!({}),
        4 => json!(*chance.pick(&[0, 1, -1, 255, 256, 16_384, i64::MAX, i64::MIN, (1 << 53) + 1])),
        5 => json!(*chance.pick(&[0.5, -0.0, 1e300, 5e-324])),
        6 => json!(u64::MAX),
        7 => json!(*chance.pick(&[
            "",
            " ",
            "\u{0}",
            "\u{7f}",
            "x",
            "+15550000001",
            "💩",
            "\u{202e}",
            "'; --",
            "{}",
            "direct",
            "group",
            "text"
        ])),
        8 => json!("A".repeat(chance.below(3000))),
        9 => json!(uuid::Uuid::from_u128(u128::from(chance.next()))),
        10 => json!([chance.pick(ids), chance.pick(ids)]),
        _ => chance.pick(ids).clone(),
    }
}

/// Changes one place somewhere in a value.
fn change(chance: &mut Chance, tree: &mut Value, ids: &[Value]) {
    let deeper = !chance.one_in(4);
    match tree {
        Value::Object(members) if deeper && !members.is_empty() => {
            let names: Vec<String> = members.keys().cloned().collect();
            let name = chance.pick(&names);
            match chance.below(8) {
                0 => drop(members.remove(name)),
                1 => drop(members.insert(format!("{name}x"), value(chance, ids))),
                _ => change(chance, &mut members[name], ids),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let place = chance.below(items.len());
            match chance.below(8) {
                0 => drop(items.remove(place)),
                1 => items.extend(vec![items[place].clone(); chance.below(5)]),
                _ => change(chance, &mut items[place], ids),
            }
        }
        tree => *tree = value(chance, ids),
    }
}

/// Changes bytes, now and then.
fn scramble(chance: &mut Chance, text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    if !chance.one_in(5) || bytes.is_empty() {
        return bytes;
    }
    for _ in 0..=chance.below(3) {
        let place = chance.below(bytes.len());
        match chance.below(4) {
            0 => bytes.truncate(place + 1),
            1 => bytes.insert(place, *chance.pick(b"\"\\{}[],:0-\0\xff")),
            2 => bytes[place] = *chance.pick(b"\"\\{}[],:0-\0\xff"),
            _ => drop(bytes.remove(place)),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

fn ids(room: &Room) -> Vec<Value> {
    vec![
        json!(room.alice.user_id),
        json!(room.bob.user_id),
        json!(room.carol.user_id),
        json!(room.alice.device_id),
        json!(room.bob.device_id),
        json!(room.tablet.device_id),
        json!(room.direct),
        json!(room.group),
        json!(room.theirs),
        json!(room.message),
        json!(room.their_message),
    ]
}

/// A request of the table, changed.
fn request(chance: &mut Chance, case: &Case, ids: &[Value]) -> (Method, String, HeaderMap, Option<Vec<u8>>) {
    let mut path = case.path.clone();
    if chance.one_in(4) {
        let id = chance.pick(ids).as_str().unwrap();
        path = path.split('/').map(|part| if part.len() == 36 { id } else { part }).collect::<Vec<_>>().join("/");
    }
    if chance.one_in(3) {
        let name = *chance.pick(&["limit", "after", "after_seq", "before_seq", "device_id", "claim", "x"]);
        let value = *chance.pick(&["0", "1", "500", "-1", "9223372036854775807", "%00", "%ff", "AAAA", "true", ""]);
        path.push_str(&format!("?{name}={value}"));
    }
    let mut headers = HeaderMap::new();
    if chance.one_in(8) {
        let name = *chance.pick(&[
            "idempotency-key",
            "content-type",
            "content-encoding",
            "accept-encoding",
            "x-request-id",
            "range",
            "if-match",
            "expect",
            "x-forwarded-for",
            "x-http-method-override",
        ]);
        let value = *chance.pick(&[
            "k",
            "",
            "gzip",
            "text/plain",
            "application/json",
            "*",
            "bytes=0-1",
            "1.2.3.4, x",
            "DELETE",
        ]);
        headers.insert(name, value.parse().unwrap());
    }
    let mut body = case.body.clone();
    if let Some(body) = &mut body {
        for _ in 0..=chance.below(2) {
            change(chance, body, ids);
        }
    }
    // Removing devices would end the test.
    let method = if chance.one_in(12) && !path.starts_with("/v1/devices") {
        chance.pick(&[Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS]).clone()
    } else {
        case.method.clone()
    };
    (method, path, headers, body.map(|body| scramble(chance, body.to_string())))
}

async fn one_request(room: &Room, seed: u64, cases: &[Case], ids: &[Value]) {
    let mut chance = Chance(seed);
    let case = chance.pick(cases);
    let (method, path, headers, body) = request(&mut chance, case, ids);
    let shown = body.as_ref().map(|body| String::from_utf8_lossy(body).chars().take(600).collect::<String>());
    let asked = format!("seed {seed}: {method} {path} {headers:?} {shown:?}");
    let answer = room.ask(&room.alice.rest, &method, &path, headers, body).await;
    assert!(answer.status < 500, "{asked}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    // An answer to HEAD or a success has no problem; everything else has.
    if answer.status >= 400 {
        problem(&answer, &asked);
    }
}

/// Says changed frames on one connection until it ends; `true`: all was well to the end.
async fn one_socket(room: &Room, seed: u64, ids: &[Value]) {
    let mut chance = Chance(seed);
    let mut said: Vec<(&str, Value)> = frames(room).into_iter().map(|said| (said.t, said.d)).collect();
    said.push(("ping", json!({"t": 1})));
    let mut hello = json!({"t": "hello", "id": 1, "d": hello(room).d});
    hello["d"]["attempt"].take();
    if chance.one_in(4) {
        change(&mut chance, &mut hello, ids);
    }
    let mut socket = Socket::open(&room.node.url, &SocketOptions::default()).await.unwrap();
    socket.send_text(hello.to_string()).await.unwrap();
    let mut told = Vec::new();
    for id in 2..2 + FRAMES {
        let (t, d) = chance.pick(&said);
        let mut frame = json!({"t": t, "id": id, "d": d});
        change(&mut chance, &mut frame, ids);
        let text = scramble(&mut chance, frame.to_string());
        let text = String::from_utf8_lossy(&text).into_owned();
        told.push(text.clone());
        if socket.send_text(text).await.is_err() {
            break;
        }
    }
    let shown = || format!("seed {seed}: {}", told.join("\n").chars().take(4000).collect::<String>());
    // The last word is answered, or the connection was closed before with a code of the contract.
    let _ = socket.send("ping", &json!({"t": "the end"})).await;
    let end = Instant::now() + BOUND;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let next = tokio::time::timeout(left, socket.next()).await;
        match next.unwrap_or_else(|_| panic!("the server is silent: {}", shown())) {
            Ok(Incoming::Frame(frame)) if frame.t == "err" => check(&frame.data().unwrap(), &shown()),
            Ok(Incoming::Frame(frame)) if frame.t == "pong" && frame.d.contains("the end") => return,
            Ok(Incoming::Frame(_) | Incoming::Alive) => {}
            Ok(Incoming::Closed { code, reason }) => {
                let known = code.is_none_or(|code| [1000, 1009, 4000, 4500, 4501, 4505].contains(&code));
                assert!(known, "closed with {code:?} {reason}: {}", shown());
                return;
            }
            Err(error) => panic!("{error}: {}", shown()),
        }
    }
}

on_both! {
    async fn changed_requests_break_nothing(database) {
        let room = Room::open(database).await;
        // Signing out and removing devices work whatever comes with them, and would end the test.
        let ends = |case: &Case| {
            case.route == "/v1/auth/logout" || case.method == Method::DELETE && case.route.starts_with("/v1/devices")
        };
        let cases: Vec<Case> = cases(&room).into_iter().filter(|case| !ends(case)).collect();
        let (begun, ids) = (Instant::now(), ids(&room));
        let tries = futures::stream::iter(0..TRIES).take_while(|_| std::future::ready(begun.elapsed() < TIME));
        tries.for_each_concurrent(8, |seed| one_request(&room, seed, &cases, &ids)).await;
        room.view().await;
        room.close().await;
    }

    async fn changed_frames_break_nothing(database) {
        let room = Room::open(database).await;
        let (begun, ids) = (Instant::now(), ids(&room));
        for seed in 0..TRIES {
            if begun.elapsed() > TIME {
                break;
            }
            one_socket(&room, seed, &ids).await;
        }
        room.view().await;
        room.close().await;
    }
}
