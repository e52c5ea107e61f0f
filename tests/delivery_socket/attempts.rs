//! A device has one socket, and it is the one that it opened last (rule D7).

use super::Reader;
use crate::support::database::Kind;
use crate::support::lock::Held;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, pair, register, shared};
use crate::support::proxy::Proxy;
use crate::support::wire::PATIENCE;
use sotto_client::protocol::close;
use sotto_client::{Socket, SocketOptions};
use std::time::Duration;

fn hello(device: &Device, attempt: i64) -> SocketOptions {
    SocketOptions::hello(&device.tokens.access_token).attempt(attempt)
}

async fn open(device: &Device, attempt: i64) -> Socket {
    Socket::open(&device.url, &hello(device, attempt)).await.expect("an upgrade")
}

async fn is_welcome(socket: &mut Socket) {
    let frame = socket.next_frame_within(PATIENCE).await.expect("welcome");
    assert_eq!(frame.t, "welcome");
}

async fn lives(socket: &mut Socket) {
    let id = socket.request("ping", &serde_json::json!({ "t": 1 })).await.expect("sent");
    while socket.next_frame_within(PATIENCE).await.expect("the newest socket lives").re != Some(id) {}
}

async fn close_code(socket: &mut Socket) -> Option<u16> {
    socket.closed_within(PATIENCE).await.expect("it is closed")
}

/// A generator that a failing seed can be repeated with.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Opens sockets with the given numbers in a random order and rhythm: the highest lives, all others are
/// told that they were replaced.
async fn one_seed(device: &Device, first: i64, count: i64, seed: u64) {
    let mut random = Random(seed);
    let mut attempts: Vec<i64> = (first..first + count).collect();
    for place in (1..attempts.len()).rev() {
        let other = usize::try_from(random.below(u64::try_from(place).unwrap() + 1)).unwrap();
        attempts.swap(place, other);
    }
    let opening = attempts.into_iter().map(|attempt| {
        let wait = Duration::from_micros(random.below(4) * random.below(1500));
        async move {
            tokio::time::sleep(wait).await;
            (attempt, open(device, attempt).await)
        }
    });
    for (attempt, mut socket) in futures::future::join_all(opening).await {
        if attempt == first + count - 1 {
            let frame = socket.next_frame_within(PATIENCE).await;
            let frame = frame.unwrap_or_else(|error| panic!("seed {seed}: the highest attempt: {error}"));
            assert_eq!(frame.t, "welcome", "seed {seed}");
            lives(&mut socket).await;
        } else {
            let code = close_code(&mut socket).await;
            assert_eq!(code, Some(close::REPLACED), "seed {seed}: attempt {attempt} of {first}…");
        }
    }
}

on_both! {
    async fn the_higher_attempt_stays(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let mut first = open(&device, 5).await;
        is_welcome(&mut first).await;
        let mut second = open(&device, 6).await;
        is_welcome(&mut second).await;
        assert_eq!(close_code(&mut first).await, Some(close::REPLACED));
        for old in [5, 6, 1] {
            let mut late = open(&device, old).await;
            assert_eq!(close_code(&mut late).await, Some(close::REPLACED), "attempt {old} after 6");
        }
        lives(&mut second).await;
        // A number of the server's is the next one; the device's own count then goes on from any higher one.
        let mut unnumbered = Reader::open(&device).await;
        assert_eq!(close_code(&mut second).await, Some(close::DRAINING));
        unnumbered.lives().await;
        let mut higher = open(&device, 100).await;
        is_welcome(&mut higher).await;
        assert_eq!(unnumbered.close_code().await, Some(close::REPLACED));
        lives(&mut higher).await;
    }

    async fn without_attempt_the_later_hello_stays(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let mut before = Reader::open(&device).await;
        for _ in 0..20 {
            let mut next = Reader::open(&device).await;
            next.lives().await;
            assert_eq!(before.close_code().await, Some(close::DRAINING));
            before = next;
        }
        // All at once: whichever stays, no other is told to stop for good.
        for _ in 0..15 {
            let options = SocketOptions::hello(&device.tokens.access_token);
            let sockets = futures::future::join_all((0..4).map(|_| Socket::open(&device.url, &options))).await;
            let closing = sockets.into_iter().map(|socket| async {
                let mut socket = socket.expect("an upgrade");
                socket.closed_within(Duration::from_millis(700)).await.ok()
            });
            let codes = futures::future::join_all(closing).await;
            assert_eq!(codes.iter().filter(|code| code.is_none()).count(), 1, "one stays: {codes:?}");
            let closed = codes.iter().flatten();
            assert!(closed.clone().all(|code| *code == Some(close::DRAINING)), "{codes:?}");
        }
    }

    async fn the_highest_attempt_is_never_replaced_whatever_the_order(database) {
        let node = TestNode::start(database).await;
        let mut devices = Vec::new();
        for name in ["a", "b", "c", "d"] {
            devices.push(register(&node, name).await);
        }
        let runs = devices.iter().zip(1_u64..).map(|(device, lane)| async move {
            for round in 0..60_u64 {
                let first = 1 + 4 * i64::try_from(round).unwrap();
                one_seed(device, first, 4, lane * 1_000_000 + round).await;
            }
        });
        futures::future::join_all(runs).await;
    }

    async fn the_late_end_of_an_old_socket_harms_nobody(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let proxy = Proxy::to(&node.url).await;
        let (mut old, _) = Socket::connect(&proxy.url, &hello(&bob, 1)).await.expect("welcome");
        proxy.hold_up(true);
        proxy.hold_down(true);
        let mut new = open(&bob, 2).await;
        is_welcome(&mut new).await;
        // The server has given the old one up for dead long before it sees its end.
        proxy.cut();
        assert_eq!(old.closed_within(PATIENCE).await.unwrap(), None);
        for number in 1..=3 {
            alice.rest.send_message(&shared(conversation, "still there?"), None).await.unwrap();
            let (_, message) = crate::support::wire::next_message(&mut new).await;
            assert_eq!(message.seq, number);
        }
    }
}

/// The claims of two connections wait for the same row; the one that opened first is let through first, or last.
async fn claims_held_together(queue: [i64; 2]) {
    let node = TestNode::start(Kind::Postgres).await;
    let device = register(&node, "alice").await;
    let lock = format!("SELECT 1 FROM devices WHERE id = '{}' FOR UPDATE", device.device_id);
    for base in [0, 10, 20] {
        let held = Held::by(&node, &lock).await;
        let mut waiting = Vec::new();
        for (place, attempt) in (1..).zip(queue) {
            waiting.push((attempt, open(&device, base + attempt).await));
            held.blocks(place).await;
        }
        held.release().await;
        for (attempt, mut socket) in waiting {
            if attempt == 2 {
                is_welcome(&mut socket).await;
                lives(&mut socket).await;
            } else {
                assert_eq!(close_code(&mut socket).await, Some(close::REPLACED));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_held_before_the_newer_one_is_replaced_by_it() {
    claims_held_together([1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_held_past_the_newer_one_closes_itself() {
    claims_held_together([2, 1]).await;
}
