//! The disk of the database runs full: sends are refused with an answer that says "later", reads go on, nothing that was
//! acknowledged is lost, and when there is room again sends work without a restart.
//!
//! The node's own files (keys, name, outbox) lie on the same disk, as on a machine that has one.

use crate::support::database::{self, Kind};
use crate::support::disk::{Disk, granted};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, pair, shared};
use crate::support::postgres::PostgresServer;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::{OutgoingMessage, Sent};
use sotto_client::protocol::{ConversationId, ErrorCode, MessageId, Seq};
use sotto_client::rest::HistoryRange;
use sotto_client::{Error, HeaderMap, Method, Rest, Socket};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Within this everything is answered, and sends work again when there is room.
const SOON: Duration = Duration::from_secs(5);
/// What a send carries: it fills a small disk soon.
const LENGTH: usize = 48 * 1024;

/// A node and its database on one small disk. Fields end in this order.
struct Stage {
    node: TestNode,
    server: Option<PostgresServer>,
    alice: Device,
    bob: Device,
    conversation: ConversationId,
    /// Acknowledged sends by their number, with the length of their text.
    kept: BTreeMap<Seq, (MessageId, usize)>,
    composed: usize,
    disk: Disk,
}

impl Stage {
    async fn set(kind: Kind) -> Self {
        let (disk, server, url);
        match kind {
            Kind::Sqlite => {
                disk = Disk::new(96);
                server = None;
                url = format!("sqlite:{}", disk.path().join("sotto.db").display());
            }
            Kind::Postgres => {
                disk = Disk::new(256);
                let running = PostgresServer::on("127.0.0.1", Some(disk.path())).await;
                url = running.database("sotto").await;
                server = Some(running);
            }
        }
        let folder = tempfile::Builder::new().prefix("node").tempdir_in(disk.path()).expect("a folder");
        let settings = [("SOTTO_LIMITS__ENABLED", "false")];
        let mut node = TestNode::on(kind, Arc::new(folder), url, &settings, 0).await;
        node.expect_log("the outbox cannot be written");
        let (alice, bob, conversation) = pair(&node).await;
        Self { node, server, alice, bob, conversation, kept: BTreeMap::new(), composed: 0, disk }
    }

    fn compose(&mut self, length: usize) -> OutgoingMessage {
        self.composed += 1;
        shared(self.conversation, &format!("{:>length$}", self.composed))
    }

    fn keep(&mut self, sent: &Sent, length: usize) {
        assert!(self.kept.insert(sent.seq, (sent.message_id, length)).is_none(), "{} twice", sent.seq);
    }

    /// Sends once; whatever comes, comes soon.
    async fn send(&mut self, length: usize) -> Result<Sent, Error> {
        let message = self.compose(length);
        let answer = tokio::time::timeout(SOON + Duration::from_secs(1), self.alice.rest.send_message(&message, None));
        let answer = answer.await.expect("an answer soon");
        if let Ok(sent) = &answer {
            self.keep(sent, length);
        }
        answer
    }

    /// Takes all room, and sends until nothing goes any more: ten refusals one after the other.
    async fn run_full(&mut self) {
        let (begun, mut refused) = (Instant::now(), 0);
        while refused < 10 {
            self.disk.fill(0);
            match self.send(LENGTH).await {
                Ok(_) => refused = 0,
                Err(error) => {
                    assert_later("a send", &error);
                    refused += 1;
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the disk never runs full");
        }
    }

    /// Everything that was acknowledged is in the log of the other, in its place.
    async fn read_everything(&self, rest: &Rest) {
        self.read_patiently(rest, Duration::ZERO).await;
    }

    /// The same where the database itself was away: connections that it has left are found dead one by one, and each says
    /// "later" once.
    async fn read_patiently(&self, rest: &Rest, patience: Duration) {
        let begun = Instant::now();
        let (mut after, mut log) = (0, BTreeMap::new());
        loop {
            let range = HistoryRange { after_seq: Some(after), before_seq: None, limit: Some(100) };
            let page = match rest.history(self.conversation, range).await {
                Ok(page) => page,
                Err(error) if begun.elapsed() < patience => {
                    assert_later("a page of history", &error);
                    continue;
                }
                Err(error) => panic!("history is read on a full disk: {error}"),
            };
            for message in page.items {
                assert_eq!(message.seq, after + 1, "no gap");
                after = message.seq;
                log.insert(message.seq, (message.message_id, message.ciphertext.map_or(0, |bytes| bytes.0.len())));
            }
            if page.next.is_none() {
                break;
            }
        }
        for (seq, kept) in &self.kept {
            assert_eq!(log.get(seq), Some(kept), "the acknowledged message {seq}");
        }
    }

    /// Status of a path, soon.
    async fn status(&self, path: &str) -> u16 {
        let rest = Rest::new(&self.node.url).expect("a URL");
        let answer = rest.raw(Method::GET, path, HeaderMap::new(), None);
        tokio::time::timeout(SOON, answer).await.expect("an answer soon").expect("an answer").status
    }

    /// Gives room back; sends work soon after, by REST and by the socket. PostgreSQL may have ended itself for want of
    /// room: then whoever watches over it has started it again.
    async fn heal(&mut self, socket: &mut Socket) -> Duration {
        self.disk.make_room();
        if let Some(server) = self.server.as_mut() {
            if !server.is_alive() {
                server.restart().await;
            }
            // What it takes to recover is its own.
            while tokio_postgres::connect(&self.node.store_url, tokio_postgres::NoTls).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let begun = Instant::now();
        while let Err(error) = self.send(100).await {
            assert_later("a send", &error);
            assert!(begun.elapsed() < SOON, "sends do not work again: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let healed = begun.elapsed();
        let sent = send_by(socket, &self.compose(100)).await.expect("the socket lives on");
        self.keep(&sent, 100);
        healed
    }
}

fn assert_later(what: &str, error: &Error) {
    let Error::Problem(problem) = error else { panic!("{what}: {error}") };
    assert_eq!(
        (problem.code, problem.status, problem.retryable),
        (ErrorCode::Unavailable, 503, true),
        "{what}: {problem:?}"
    );
}

/// Sends on a socket and waits for the answer; events are passed over.
async fn send_by(socket: &mut Socket, message: &OutgoingMessage) -> Result<Sent, Error> {
    let id = socket.request("send_message", message).await.expect("an open socket");
    loop {
        let frame = socket.next_frame_within(SOON + Duration::from_secs(1)).await.expect("an answer soon");
        if frame.re == Some(id) {
            return frame.answer::<Sent>();
        }
    }
}

on_both! {
    async fn a_full_disk_refuses_sends_and_nothing_else(database) {
        if !granted("a_full_disk_refuses_sends_and_nothing_else") {
            return;
        }
        let mut stage = Stage::set(database).await;
        // A reader who acknowledges nothing yet: more waits for him than a window holds.
        let (mut reader, _) = stage.bob.socket().await;
        for _ in 0..300 {
            stage.send(200).await.expect("room");
        }
        let (mut sender, _) = stage.alice.socket().await;
        stage.run_full().await;

        // Sends: refused on both ways, and nothing hangs.
        let message = stage.compose(LENGTH);
        let error = send_by(&mut sender, &message).await.expect_err("no room");
        assert_later("a send by the socket", &error);

        // Reads go on: history, sync, and a socket whose backlog is longer than its window.
        stage.read_everything(&stage.bob.rest).await;
        let page = stage.bob.rest.sync(Some(50)).await.expect("sync is read on a full disk");
        assert!(page.has_more && page.events.len() == 50);
        let (mut got, mut last, most) = (0, 0, *stage.kept.keys().last().expect("sends"));
        while got < most {
            let frame = reader.next_frame_within(SOON).await.expect("the backlog comes");
            if let Ok(Some(Event::NewMessage(message))) = frame.event() {
                got = message.seq;
            }
            last = frame.n.unwrap_or(last);
            reader.ack(last).await.expect("an open socket");
        }

        // Health tells the truth, soon.
        assert_eq!(stage.status("/livez").await, 200);
        assert_eq!((stage.status("/health").await, stage.status("/readyz").await), (503, 503));

        // Whoever asks for a code gets one, where a little still fits, or is told to come later.
        let begun = Instant::now();
        let rest = Rest::new(&stage.node.url).expect("a URL");
        if let Err(error) = rest.verify(&fresh_phone(), Purpose::Registration).await {
            assert_later("a sign-in", &error);
        }
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());

        let healed = stage.heal(&mut sender).await;
        println!("{database:?}: sends work {healed:?} after there was room, {} kept", stage.kept.len());
        let begun = Instant::now();
        while stage.status("/readyz").await != 200 {
            assert!(begun.elapsed() < SOON, "readiness does not come back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        rest.verify(&fresh_phone(), Purpose::Registration).await.expect("sign-in works again");
        stage.read_everything(&stage.bob.rest).await;

        // And all of it is on the disk.
        stage.node.kill();
        stage.node.restart().await;
        stage.read_everything(&stage.bob.at(&stage.node)).await;
        stage.send(100).await.expect("a send after the restart");
    }
}

/// PostgreSQL's log of changes on a disk of its own that is full: it cannot go on, ends all connections, and tries to
/// recover for as long as there is no room. The node lives through that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_gives_up_for_want_of_room_is_survived() {
    if !granted("a_database_that_gives_up_for_want_of_room_is_survived") {
        return;
    }
    let mut stage = Stage::set(Kind::Postgres).await;
    let (mut sender, _) = stage.alice.socket().await;
    stage.send(200).await.expect("room");
    let looker = database::connect(&stage.node.store_url).await;
    stage.disk.fill(0);
    let begun = Instant::now();
    let mut gone = false;
    while !gone {
        // A message of the log without a row anywhere.
        gone = looker.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))", &[]).await.is_err();
        assert!(begun.elapsed() < Duration::from_secs(60), "the log never runs full");
    }
    for _ in 0..10 {
        let error = stage.send(LENGTH).await.expect_err("nothing is stored");
        assert_later("a send", &error);
        let message = stage.compose(LENGTH);
        assert_later("a send by the socket", &send_by(&mut sender, &message).await.expect_err("nothing is stored"));
    }
    assert_eq!((stage.status("/livez").await, stage.status("/readyz").await), (200, 503));
    let error = Rest::new(&stage.node.url).expect("a URL").verify(&fresh_phone(), Purpose::Registration).await;
    assert_later("a sign-in", &error.expect_err("no database"));
    let server = stage.server.as_ref().expect("PostgreSQL");
    assert!(server.log().contains("PANIC"), "PostgreSQL gave up:\n{}", server.log());
    let healed = stage.heal(&mut sender).await;
    println!("sends work {healed:?} after there was room");
    stage.read_patiently(&stage.bob.rest, SOON).await;
}
