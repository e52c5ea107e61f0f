//! Registrations that go astray (test 3): messages come by the sweep, and the registration comes back by itself.

use super::across::comes_fast;
use super::{Ear, SWEPT, becomes, cluster, counter, registrations};
use crate::delivery_append::group;
use crate::support::node::TestNode;
use crate::support::people::{Device, register, shared};
use crate::support::redis::RedisServer;
use sotto_client::protocol::ConversationId;
use std::time::{Duration, Instant};

/// Each registration is written again at most every ten seconds.
const AGAIN: Duration = Duration::from_millis(10_500);

struct World {
    nodes: Vec<TestNode>,
    redis: RedisServer,
    alice: Device,
    bob: Device,
    conversation: ConversationId,
    ears: [Ear; 2],
}

/// Bob and Carol listen, each at a node of their own.
async fn world() -> World {
    let (nodes, redis) = cluster(3).await;
    let (alice, bob) = (register(&nodes[0], "alice").await, register(&nodes[0], "bob").await);
    let carol = register(&nodes[0], "carol").await;
    let conversation = group(&alice, &[&bob, &carol]).await;
    let ears = [Ear::ready(&bob, &nodes[1]).await, Ear::ready(&carol, &nodes[2]).await];
    for device in [&bob, &carol] {
        becomes("registered", SWEPT, async || registrations(&redis, device).await.len() == 1).await;
    }
    comes_fast(&alice, conversation, &ears[0]).await;
    World { nodes, redis, alice, bob, conversation, ears }
}

impl World {
    /// Messages until the device is registered again: every one comes, the last one too, without a registration.
    async fn comes_without(&self) {
        let begun = Instant::now();
        let mut slowest = Duration::ZERO;
        while registrations(&self.redis, &self.bob).await.is_empty() {
            assert!(begun.elapsed() < AGAIN, "not registered again after {:?}", begun.elapsed());
            let asked = Instant::now();
            let sent = self.alice.rest.send_message(&shared(self.conversation, "lost?"), None).await.unwrap();
            // One at a time: no later message shows that one is missing.
            let came = self.ears[0].came(sent.message_id).await;
            slowest = slowest.max(came.saturating_duration_since(asked));
            assert!(slowest < SWEPT, "a message took {slowest:?}");
        }
        let is_gapless = |ear: &Ear| {
            let seqs: Vec<i64> = ear.messages(self.conversation).into_iter().map(|(seq, _)| seq).collect();
            assert_eq!(seqs, (1..=i64::try_from(seqs.len()).unwrap()).collect::<Vec<_>>());
        };
        self.ears.iter().for_each(is_gapless);
        assert!(slowest > Duration::from_millis(50), "the sweep brought something: {slowest:?}");
        comes_fast(&self.alice, self.conversation, &self.ears[0]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_registration_is_deleted_by_hand() {
    let world = world().await;
    let keys = world.redis.keys(&format!("sotto:*:at:{}", world.bob.user_id)).await;
    assert_eq!(keys.len(), 1);
    let lost = counter(&world.nodes[1], "sotto_registrations_lost_total").await;
    assert_eq!(world.redis.command(&["DEL", &keys[0]]).await.as_deref(), Ok("1"));
    world.comes_without().await;
    assert_eq!(counter(&world.nodes[1], "sotto_registrations_lost_total").await, lost + 1);
    assert!(world.ears.iter().all(Ear::is_open));
}

/// Redis loses everything but the key by which nodes would see at once that it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_registrations_are_lost_and_the_epoch_stays() {
    let world = world().await;
    becomes("the epoch's key", SWEPT, async || !world.redis.keys("sotto:*:epoch").await.is_empty()).await;
    // Each node must have seen it, or the next look is its first.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let epoch = world.redis.keys("sotto:*:epoch").await.pop().expect("the epoch's key");
    let script =
        "local e = redis.call('GET', KEYS[1]); redis.call('FLUSHALL'); redis.call('SET', KEYS[1], e); return e";
    world.redis.command(&["EVAL", script, "1", &epoch]).await.expect("flushed");
    assert!(registrations(&world.redis, &world.bob).await.is_empty(), "gone");
    world.comes_without().await;
}

/// A registration that names a connection of long ago, at a node that is no more, is written over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_names_another_connection_is_written_over() {
    let world = world().await;
    let key = world.redis.keys(&format!("sotto:*:at:{}", world.bob.user_id)).await.pop().expect("bob's key");
    let own = registrations(&world.redis, &world.bob).await.pop().expect("bob's registration");
    let strange =
        format!("{}:{}", "00000000-0000-4000-8000-000000000000:00000000-0000-4000-8000-000000000001", &own[74..]);
    let device = world.bob.device_id.to_string();
    world.redis.command(&["HSET", &key, &device, &strange]).await.expect("written");
    // It leads to nobody: what comes, comes by the sweep.
    let begun = Instant::now();
    let is_back = async || registrations(&world.redis, &world.bob).await.iter().all(|value| value[..73] == own[..73]);
    while !is_back().await {
        assert!(begun.elapsed() < AGAIN, "still {strange}");
        let sent = world.alice.rest.send_message(&shared(world.conversation, "lost?"), None).await.unwrap();
        world.ears[0].came(sent.message_id).await;
    }
    assert!(world.ears.iter().all(Ear::is_open));
    comes_fast(&world.alice, world.conversation, &world.ears[0]).await;
}
