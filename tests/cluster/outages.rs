//! Redis is emptied, restarted, made to hang, failed over, or was never there: a steady stream goes on meanwhile, every
//! send is answered, and everything comes.

use super::across::comes_fast;
use super::{Ear, PATIENCE, SWEPT, becomes, cluster, counter, median, nodes_on, registrations};
use crate::delivery_append::group;
use crate::support::node::TestNode;
use crate::support::people::{Device, register, shared};
use crate::support::process::{free_port, signal};
use crate::support::redis::{RedisServer, SENTINEL_NAME, Sentinels};
use sotto_client::protocol::{ConversationId, MessageId, Seq};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// No send may wait for Redis longer than this, whatever the machine is doing.
const ANSWERED: Duration = Duration::from_millis(1500);

/// Somebody who sends at the first node all the time, and a reader at each of the others.
struct Stream {
    alice: Device,
    conversation: ConversationId,
    readers: Vec<Device>,
    ears: Vec<Ear>,
    goes_on: Arc<AtomicBool>,
    writing: tokio::task::JoinHandle<Vec<Sent>>,
}

struct Sent {
    seq: Seq,
    id: MessageId,
    asked: Instant,
    answered: Duration,
}

impl Stream {
    async fn begin(nodes: &[TestNode]) -> Self {
        let alice = register(&nodes[0], "alice").await;
        let mut readers = Vec::new();
        for _ in &nodes[1..] {
            readers.push(register(&nodes[0], "reader").await);
        }
        let conversation = group(&alice, &readers.iter().collect::<Vec<_>>()).await;
        let mut ears = Vec::new();
        for (reader, node) in readers.iter().zip(&nodes[1..]) {
            ears.push(Ear::ready(reader, node).await);
        }
        let goes_on = Arc::new(AtomicBool::new(true));
        let (rest, flag) = (alice.at(&nodes[0]), Arc::clone(&goes_on));
        let writing = tokio::spawn(async move {
            let mut sent = Vec::new();
            while flag.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let answer = rest.send_message(&shared(conversation, "steady"), None).await.expect("an answer");
                sent.push(Sent { seq: answer.seq, id: answer.message_id, asked, answered: asked.elapsed() });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            sent
        });
        Self { alice, conversation, readers, ears, goes_on, writing }
    }

    /// Whether each reader is registered, once.
    async fn is_registered(&self, redis: &RedisServer) -> bool {
        for reader in &self.readers {
            if registrations(redis, reader).await.len() != 1 {
                return false;
            }
        }
        true
    }

    /// Everything was answered and has come, in time and in order. Tells the slowest arrival.
    async fn end(self) -> (Duration, Device, Vec<Ear>) {
        self.goes_on.store(false, Ordering::Relaxed);
        let sent = self.writing.await.expect("every send was answered");
        let waits: Vec<Duration> = sent.iter().map(|sent| sent.answered).collect();
        let longest = waits.iter().max().copied().unwrap_or_default();
        assert!(longest < ANSWERED, "a send waited {longest:?}; {:?} in the middle", median(&waits));
        let expected: Vec<(Seq, MessageId)> = sent.iter().map(|sent| (sent.seq, sent.id)).collect();
        let mut slowest = Duration::ZERO;
        for ear in &self.ears {
            ear.within(SWEPT, "everything", |heard| heard.messages.len() >= sent.len()).await;
            assert_eq!(ear.messages(self.conversation), expected);
            ear.look(|heard| {
                for (sent, came) in sent.iter().zip(&heard.messages) {
                    slowest = slowest.max(came.at.saturating_duration_since(sent.asked));
                }
            });
            assert!(ear.is_open());
        }
        assert!(slowest < SWEPT, "a message took {slowest:?}");
        (slowest, self.alice, self.ears)
    }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// The bus is heard again and the readers are registered, so that it is fast.
async fn recovers(alice: &Device, conversation: ConversationId, ears: &[Ear]) {
    for ear in ears {
        comes_fast(alice, conversation, ear).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_emptied() {
    let (nodes, redis) = cluster(3).await;
    let stream = Stream::begin(&nodes).await;
    let conversation = stream.conversation;
    for _ in 0..3 {
        pause(700).await;
        redis.flush_all().await;
    }
    // The key that went with the rest shows it within two rounds.
    becomes("registered again", Duration::from_secs(4), async || stream.is_registered(&redis).await).await;
    let (_, alice, ears) = stream.end().await;
    recovers(&alice, conversation, &ears).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_comes_back_empty() {
    let (nodes, mut redis) = cluster(3).await;
    let stream = Stream::begin(&nodes).await;
    let conversation = stream.conversation;
    for dead in [50, 2500] {
        pause(600).await;
        redis.kill();
        pause(dead).await;
        redis.restart().await;
        let channels = async || redis.command(&["PUBSUB", "CHANNELS", "sotto:*"]).await.unwrap_or_default();
        becomes("heard again", PATIENCE, async || channels().await.lines().count() == 3).await;
    }
    becomes("registered again", PATIENCE, async || stream.is_registered(&redis).await).await;
    let (_, alice, ears) = stream.end().await;
    recovers(&alice, conversation, &ears).await;
}

/// Commands get no answer at all. Nobody waits for it: not who sends, not who comes, not who reads by REST.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_hangs() {
    let (nodes, redis) = cluster(3).await;
    let stream = Stream::begin(&nodes).await;
    let conversation = stream.conversation;
    let late = register(&nodes[1], "late").await;
    pause(300).await;
    signal("STOP", &[redis.pid()]);
    let hung = Instant::now();
    for node in &nodes {
        let begun = Instant::now();
        let ear = Ear::ready(&late, node).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "welcome and backlog took {:?}", begun.elapsed());
        drop(ear);
    }
    let begun = Instant::now();
    let page = late.at(&nodes[2]).sync(None).await.expect("a page");
    late.at(&nodes[2]).sync_ack(&page.cursor).await.expect("204");
    assert!(begun.elapsed() < ANSWERED, "REST took {:?}", begun.elapsed());
    pause(10_000_u64.saturating_sub(u64::try_from(hung.elapsed().as_millis()).unwrap())).await;
    signal("CONT", &[redis.pid()]);
    let channels = async || redis.command(&["PUBSUB", "CHANNELS", "sotto:*"]).await.unwrap_or_default();
    becomes("heard again", PATIENCE, async || channels().await.lines().count() == 3).await;
    pause(1500).await;
    let (_, alice, ears) = stream.end().await;
    recovers(&alice, conversation, &ears).await;
}

/// The port is wrong. The nodes start, say so, and deliver by the sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_was_never_there() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let nodes = nodes_on(&[url.clone(), url.clone(), url], &[]).await;
    for node in &nodes {
        assert!(node.log().contains("Redis does not answer"), "{}", node.log());
        assert_eq!(counter(node, "sotto_redis_up").await, 0);
    }
    let stream = Stream::begin(&nodes).await;
    pause(3500).await;
    stream.end().await;
    for node in &nodes {
        assert_eq!(counter(node, "sotto_bus_events_total").await, 0, "nothing came over a bus");
        // Once, and not with every message.
        let said = node.log().lines().filter(|line| line.contains("Redis does not answer")).count();
        assert!(said < 5, "{said} lines about it");
    }
}

/// Sentinels make the replica the primary while the stream runs; later the old one comes back as a replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_fail_over() {
    let mut set = Sentinels::start().await;
    let url = format!("redis+sentinel://{}/{SENTINEL_NAME}", set.addresses().join(","));
    let nodes = nodes_on(&[url.clone(), url.clone(), url], &[]).await;
    let stream = Stream::begin(&nodes).await;
    let conversation = stream.conversation;
    let old = set.current().await.port;
    pause(500).await;
    set.failover().await;
    let set_ref = &set;
    let heard = async || {
        let primary = set_ref.current().await;
        let channels = primary.command(&["PUBSUB", "CHANNELS", "sotto:*"]).await.unwrap_or_default();
        primary.port != old && channels.lines().count() == 3 && stream.is_registered(primary).await
    };
    becomes("heard and registered at the new primary", PATIENCE, heard).await;
    let (_, alice, ears) = stream.end().await;
    recovers(&alice, conversation, &ears).await;
    set.restore().await;
    assert_ne!(set.current().await.port, old, "the old one is a replica");
    recovers(&alice, conversation, &ears).await;
}
