//! Letters between nodes are taken only from nodes of this cluster, once, and in the one version that is known.

use super::{Ear, SWEPT, becomes, cluster, counter, nodes_on};
use crate::support::node::TestNode;
use crate::support::people::{Device, pair, shared};
use crate::support::redis::RedisServer;
use sotto::identity::secret_key::SecretKeys;
use sotto_actors::bus::seal::{ClusterKeys, Sealer, VERSION};
use sotto_actors::registry::Incarnation;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Words to Redis as they are, bytes and all.
async fn say(stream: &mut TcpStream, words: &[&[u8]]) {
    let mut text = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        text.extend_from_slice(word);
        text.extend_from_slice(b"\r\n");
    }
    stream.write_all(&text).await.expect("Redis reads");
}

/// One line without its end.
async fn line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.expect("Redis answers"));
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).expect("text")
}

/// A list of words, as Redis tells what was published.
async fn words(stream: &mut TcpStream) -> Vec<Vec<u8>> {
    let count = line(stream).await;
    let count = count.strip_prefix('*').expect("a list").parse().expect("a number");
    let mut words = Vec::new();
    for _ in 0..count {
        let head = line(stream).await;
        let mut word = Vec::new();
        if let Some(length) = head.strip_prefix('$') {
            word = vec![0; length.parse::<usize>().expect("a number") + 2];
            stream.read_exact(&mut word).await.expect("Redis answers");
            word.truncate(word.len() - 2);
        }
        words.push(word);
    }
    words
}

/// Everything that is published between nodes from now on: channel and letter.
async fn overhear(redis: &RedisServer) -> (mpsc::UnboundedReceiver<(String, Vec<u8>)>, AbortHandle) {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).await.expect("Redis");
    say(&mut stream, &[b"PSUBSCRIBE", b"sotto:*"]).await;
    words(&mut stream).await;
    let (found, letters) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        loop {
            let mut told = words(&mut stream).await;
            let (letter, channel) = (told.pop().expect("a letter"), told.pop().expect("a channel"));
            if found.send((String::from_utf8(channel).expect("text"), letter)).is_err() {
                return;
            }
        }
    });
    (letters, task.abort_handle())
}

/// How many heard it.
async fn publish(redis: &RedisServer, channel: &str, letter: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).await.expect("Redis");
    say(&mut stream, &[b"PUBLISH", channel.as_bytes(), letter]).await;
    line(&mut stream).await
}

async fn refused(node: &TestNode, reason: &str) -> u64 {
    counter(node, &format!("sotto_bus_refused_total{{reason=\"{reason}\"}}")).await
}

/// Warnings of a node about letters; what was in them stands in none.
fn warnings(node: &TestNode) -> Vec<String> {
    let log = node.log();
    let about = log.lines().filter(|line| line.contains("a letter between nodes"));
    about.map(str::to_owned).collect()
}

struct World {
    nodes: Vec<TestNode>,
    redis: RedisServer,
    alice: Device,
    bobs: Ear,
    /// The channel of Bob's node, and the newest letter to it, which tells of a message.
    channel: String,
    letter: Vec<u8>,
    conversation: sotto_client::protocol::ConversationId,
}

async fn world() -> World {
    let (nodes, redis) = cluster(2).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let bobs = Ear::ready(&bob, &nodes[1]).await;
    let (mut letters, eavesdropper) = overhear(&redis).await;
    let sent = alice.rest.send_message(&shared(conversation, "between-the-lines"), None).await.unwrap();
    bobs.came(sent.message_id).await;
    let (mut channel, mut letter) = (String::new(), Vec::new());
    // The message and its acknowledgement go opposite ways; the larger letter is the message.
    while let Ok(Some((to, found))) = tokio::time::timeout(Duration::from_millis(600), letters.recv()).await {
        let text = String::from_utf8_lossy(&found).into_owned();
        assert!(!text.contains("between-the-lines"), "a letter shows its content");
        if found.len() > letter.len() {
            (channel, letter) = (to, found);
        }
    }
    eavesdropper.abort();
    assert_eq!(letter[0], VERSION);
    World { nodes, redis, alice, bobs, channel, letter, conversation }
}

impl World {
    fn own_keys(&self) -> ClusterKeys {
        let keys = SecretKeys::open(&self.nodes[0].folder.path().join("secret.key")).expect("the nodes' keys");
        ClusterKeys::new(keys.all().map(|set| *set.cluster().expose()).collect())
    }

    fn receiver(&self) -> Incarnation {
        Incarnation(self.channel.rsplit_once(':').expect("a channel").1.parse().expect("an incarnation"))
    }

    /// Publishes a letter to Bob's node; it is refused for this reason, and nothing else happens.
    async fn is_refused(&self, letter: &[u8], reason: &str) {
        let node = &self.nodes[1];
        let before = refused(node, reason).await;
        let (heard, said) = (self.bobs.look(|heard| (heard.n, heard.frames.len())), warnings(node).len());
        assert_eq!(publish(&self.redis, &self.channel, letter).await, ":1", "one node listens there, and nobody else");
        becomes(reason, SWEPT, async || refused(node, reason).await == before + 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(self.bobs.look(|heard| (heard.n, heard.frames.len())), heard, "{reason}: nothing is delivered");
        assert_eq!(warnings(node).len(), said + 1, "it is said once:\n{}", node.log());
    }

    /// Letters of the nodes themselves are taken as before.
    async fn goes_on(&self) {
        let node = &self.nodes[1];
        let taken = counter(node, "sotto_bus_events_total").await;
        let sent = self.alice.rest.send_message(&shared(self.conversation, "goes on"), None).await.unwrap();
        self.bobs.came(sent.message_id).await;
        becomes("a letter", SWEPT, async || counter(node, "sotto_bus_events_total").await > taken).await;
        for line in warnings(node) {
            assert!(!line.contains("between-the-lines") && line.len() < 300, "{line}");
        }
        assert!(self.bobs.is_open());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_letter_is_refused() {
    let world = world().await;
    world.is_refused(&world.letter, "repeated").await;
    world.goes_on().await;
    // An older one than the newest is as old, whenever it comes.
    world.is_refused(&world.letter, "repeated").await;
    // The same letter posted to the node that wrote it was not addressed to it.
    let channels = world.redis.command(&["PUBSUB", "CHANNELS", "sotto:*"]).await.unwrap();
    let other = channels.lines().find(|channel| *channel != world.channel).expect("the other node's channel");
    let before = refused(&world.nodes[0], "forged").await;
    publish(&world.redis, other, &world.letter).await;
    becomes("turned to another", SWEPT, async || refused(&world.nodes[0], "forged").await == before + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_letter_is_refused() {
    let world = world().await;
    let to = world.receiver();
    // Somebody who knows how letters are made and not the key.
    let mut stranger = Sealer::new(&ClusterKeys::new(vec![[9; 32]]), Incarnation::fresh());
    world.is_refused(&stranger.seal(to, vec![0; 64]).expect("sealed"), "forged").await;
    // Somebody who takes the name of a node that is there.
    let known = Incarnation(uuid::Uuid::from_slice(&world.letter[1..17]).expect("the sender"));
    let mut pretender = Sealer::new(&ClusterKeys::new(vec![[9; 32]]), known);
    world.is_refused(&pretender.seal(to, vec![0; 64]).expect("sealed"), "forged").await;
    // A true letter of which one bit was changed: in its number, and in what it says.
    for place in [24, world.letter.len() / 2] {
        let mut altered = world.letter.clone();
        altered[place] ^= 1;
        world.is_refused(&altered, "forged").await;
    }
    for noise in [&[][..], &[VERSION], b"\x01 too short to be one"] {
        world.is_refused(noise, "forged").await;
    }
    // A node of the cluster that has lost its mind.
    let mut mad = Sealer::new(&world.own_keys(), Incarnation::fresh());
    world.is_refused(&mad.seal(to, vec![0xff; 64]).expect("sealed"), "unreadable").await;
    world.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_of_another_version_is_refused_and_not_guessed() {
    let world = world().await;
    for version in [0, VERSION + 1, 255] {
        let mut letter = world.letter.clone();
        letter[0] = version;
        world.is_refused(&letter, "version").await;
    }
    world.goes_on().await;
}

/// Two clusters with keys and databases of their own use one Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_on_one_redis_do_not_hear_each_other() {
    let ours = world().await;
    let theirs = nodes_on(&[ours.redis.url(), ours.redis.url()], &[]).await;
    let (carol, dave, talk) = pair(&theirs[0]).await;
    let daves = Ear::ready(&dave, &theirs[1]).await;
    for _ in 0..20 {
        let mine = ours.alice.rest.send_message(&shared(ours.conversation, "ours"), None).await.unwrap();
        let other = carol.rest.send_message(&shared(talk, "theirs"), None).await.unwrap();
        ours.bobs.came(mine.message_id).await;
        daves.came(other.message_id).await;
    }
    assert_eq!(daves.look(|heard| heard.messages.len()), 20);
    assert_eq!(ours.bobs.look(|heard| heard.messages.len()), 21);
    let channels = ours.redis.command(&["PUBSUB", "CHANNELS", "sotto:*:to:*"]).await.unwrap();
    let mut names: Vec<&str> = channels.lines().filter_map(|channel| channel.split(':').nth(1)).collect();
    assert_eq!(names.len(), 4, "{channels}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 2, "a name for each cluster: {channels}");
    for node in ours.nodes.iter().chain(&theirs) {
        assert!(warnings(node).is_empty(), "{:?}", warnings(node));
    }
    // A true letter of the one is a forged one at the other.
    let channel = channels.lines().find(|channel| channel.split(':').nth(1) != ours.channel.split(':').nth(1)).unwrap();
    publish(&ours.redis, channel, &ours.letter).await;
    let refusals = async || refused(&theirs[0], "forged").await + refused(&theirs[1], "forged").await;
    becomes("refused", SWEPT, async || refusals().await == 1).await;
}
