//! Several nodes on one PostgreSQL with Redis between them. What is told at one is heard at the others, fast by the bus
//! and surely by the sweep; whatever becomes of Redis, nothing is lost.

mod across;
mod apart;
mod append;
mod early;
mod gate;
mod groups;
mod letters;
mod outages;
mod registrations;
mod replaced;
mod revoked;
mod stream;
mod sync;

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::people::Device;
use crate::support::redis::RedisServer;
use crate::support::wire::PATIENCE;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::{ConversationId, MessageId, Seq};
use sotto_client::socket::{Incoming, ServerFrame};
use sotto_client::{HeaderMap, Method, Rest, Socket, SocketOptions};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What the sweep may take, on a machine that has other things to do.
const SWEPT: Duration = Duration::from_secs(5);
/// What the bus takes is far less; the sweep alone needs half a second on the average.
const FAST: Duration = Duration::from_millis(100);

/// A node for each of these addresses of Redis, on one fresh database and with one set of keys.
async fn nodes_on(redis: &[String], more: &[(&str, &str)]) -> Vec<TestNode> {
    let mut nodes: Vec<TestNode> = Vec::new();
    for (place, url) in redis.iter().enumerate() {
        let name = format!("node-{place}");
        let mut settings = vec![
            ("SOTTO_LIMITS__ENABLED", "false"),
            ("SOTTO_CLUSTER__REDIS_URL", url.as_str()),
            ("SOTTO_CLUSTER__NODE_ID", name.as_str()),
        ];
        settings.extend(more);
        let node = match nodes.first() {
            None => TestNode::with(Kind::Postgres, &settings).await,
            Some(first) => {
                let (folder, store_url) = (Arc::clone(&first.folder), first.store_url.clone());
                TestNode::on(Kind::Postgres, folder, store_url, &settings, 0).await
            }
        };
        nodes.push(node);
    }
    nodes
}

/// So many nodes, and the Redis between them.
async fn cluster(count: usize) -> (Vec<TestNode>, RedisServer) {
    let redis = RedisServer::start().await;
    let nodes = nodes_on(&vec![redis.url(); count], &[]).await;
    (nodes, redis)
}

/// A counter of a node; one that was never raised is 0. Labels belong to the name.
async fn counter(node: &TestNode, name: &str) -> u64 {
    let rest = Rest::new(&node.url).expect("a URL");
    let answer = rest.raw(Method::GET, "/metrics", HeaderMap::new(), None).await.expect("metrics");
    let text = String::from_utf8(answer.body).expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a number"))
}

/// Waits for something that comes by itself.
async fn becomes(what: &str, within: Duration, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// The registrations of a user as Redis has them: each value begins with the incarnation of its node and the connection.
async fn registrations(redis: &RedisServer, device: &Device) -> Vec<String> {
    let mut values = Vec::new();
    for key in redis.keys(&format!("sotto:*:at:{}", device.user_id)).await {
        let answer = redis.command(&["HVALS", &key]).await.unwrap_or_default();
        values.extend(answer.lines().filter(|line| !line.is_empty()).map(str::to_owned));
    }
    values
}

/// A message as it came.
#[derive(Clone, Debug)]
struct Arrival {
    conversation: ConversationId,
    seq: Seq,
    id: MessageId,
    at: Instant,
}

/// What an [`Ear`] has heard so far.
#[derive(Default)]
struct Heard {
    messages: Vec<Arrival>,
    /// Everything else but answers, acknowledgements' confirmations and messages.
    frames: Vec<(ServerFrame, Instant)>,
    /// The highest number that was confirmed.
    acked: u64,
    n: u64,
    drained: bool,
    /// The end of the socket, with its code.
    closed: Option<Option<u16>>,
    chain: HashMap<ConversationId, Seq>,
    /// What should never have come.
    wrong: Vec<String>,
}

/// A device that listens in the background: it acknowledges whatever comes, checks that every number follows the one
/// before it, and notes when each message came.
struct Ear {
    heard: Arc<Mutex<Heard>>,
    say: mpsc::UnboundedSender<(&'static str, serde_json::Value)>,
    /// The connection's name in the registry.
    connection: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Ear {
    /// Without a word to the server.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ear {
    /// Of a device that has no number of its own.
    async fn open(device: &Device, node: &TestNode) -> Self {
        Self::with(&SocketOptions::hello(&device.tokens.access_token), &node.url, true).await
    }

    /// One that has heard what waited for it.
    async fn ready(device: &Device, node: &TestNode) -> Self {
        let ear = Self::open(device, node).await;
        ear.until("drained", |heard| heard.drained).await;
        ear
    }

    /// With a number of the device's own.
    async fn attempt(device: &Device, node: &TestNode, attempt: i64) -> Self {
        Self::with(&SocketOptions::hello(&device.tokens.access_token).attempt(attempt), &node.url, true).await
    }

    async fn with(options: &SocketOptions, url: &str, acks: bool) -> Self {
        let (socket, welcome) = Socket::connect(url, options).await.expect("welcome");
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (say, said) = mpsc::unbounded_channel();
        let task = tokio::spawn(listen(socket, Arc::clone(&heard), said, acks));
        Self { heard, say, connection: welcome.session_id.to_string(), task }
    }

    /// Off without a word to the server; whatever was acknowledged is in what is returned.
    async fn leave(mut self) -> Heard {
        self.task.abort();
        let _ = (&mut self.task).await;
        std::mem::take(&mut *self.heard.lock().expect("what was heard"))
    }

    fn look<T>(&self, what: impl FnOnce(&Heard) -> T) -> T {
        what(&self.heard.lock().expect("what was heard"))
    }

    /// Waits until enough was heard.
    async fn until(&self, what: &str, is_so: impl Fn(&Heard) -> bool) {
        self.within(PATIENCE, what, is_so).await;
    }

    async fn within(&self, wait: Duration, what: &str, is_so: impl Fn(&Heard) -> bool) -> Duration {
        let begun = Instant::now();
        while !self.look(&is_so) {
            let state = || {
                self.look(|heard| {
                    let last = heard.messages.last().map(|message| message.seq);
                    format!("{} messages, the last {last:?}, closed {:?}", heard.messages.len(), heard.closed)
                })
            };
            assert!(begun.elapsed() < wait, "{what}: not within {wait:?}; {}", state());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.is_in_order();
        begun.elapsed()
    }

    /// When a message came.
    async fn came(&self, id: MessageId) -> Instant {
        self.until("a message", |heard| heard.messages.iter().any(|message| message.id == id)).await;
        self.look(|heard| heard.messages.iter().find(|message| message.id == id).expect("it came").at)
    }

    /// The messages of a conversation in the order in which they came.
    fn messages(&self, conversation: ConversationId) -> Vec<(Seq, MessageId)> {
        self.look(|heard| {
            let of = heard.messages.iter().filter(|message| message.conversation == conversation);
            of.map(|message| (message.seq, message.id)).collect()
        })
    }

    fn is_in_order(&self) {
        self.look(|heard| assert!(heard.wrong.is_empty(), "{:?}", heard.wrong));
    }

    /// Waits for the first durable event of a kind that says yes, and tells when it came.
    async fn event(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Instant {
        let found = |heard: &Heard| {
            let mut frames = heard.frames.iter();
            frames.find(|(frame, _)| frame.event().ok().flatten().is_some_and(|event| is_it(&event))).map(|(_, at)| *at)
        };
        self.until(what, |heard| found(heard).is_some()).await;
        self.look(|heard| found(heard).expect("it came"))
    }

    fn say(&self, t: &'static str, d: serde_json::Value) {
        self.say.send((t, d)).expect("the socket is open");
    }

    async fn close_code(&self, wait: Duration) -> Option<u16> {
        self.within(wait, "the end of the socket", |heard| heard.closed.is_some()).await;
        self.look(|heard| heard.closed.expect("closed"))
    }

    fn is_open(&self) -> bool {
        self.look(|heard| heard.closed.is_none())
    }
}

async fn listen(
    mut socket: Socket,
    heard: Arc<Mutex<Heard>>,
    mut said: mpsc::UnboundedReceiver<(&'static str, serde_json::Value)>,
    acks: bool,
) {
    let mut is_said = true;
    loop {
        let incoming = tokio::select! {
            incoming = socket.next() => incoming,
            word = said.recv(), if is_said => {
                match word {
                    Some((t, d)) => drop(socket.request(t, &d).await),
                    None => is_said = false,
                }
                continue;
            }
        };
        let frame = match incoming {
            Ok(Incoming::Frame(frame)) => frame,
            Ok(Incoming::Alive) => continue,
            Ok(Incoming::Closed { code, .. }) => {
                heard.lock().expect("what was heard").closed = Some(code);
                return;
            }
            Err(error) => {
                heard.lock().expect("what was heard").wrong.push(error.to_string());
                return;
            }
        };
        let n = frame.n;
        note(&mut heard.lock().expect("what was heard"), frame);
        if let (Some(n), true) = (n, acks) {
            drop(socket.ack(n).await);
        }
    }
}

fn note(heard: &mut Heard, frame: ServerFrame) {
    let at = Instant::now();
    if let Some(n) = frame.n {
        if n != heard.n + 1 {
            heard.wrong.push(format!("{} has number {n} after {}", frame.t, heard.n));
        }
        heard.n = n;
    }
    match frame.event() {
        Ok(Some(Event::NewMessage(message))) => {
            let (conversation, seq, after) = (message.conversation_id, message.seq, message.after_seq);
            let before = heard.chain.insert(conversation, seq);
            if before.is_some() && before != after {
                heard.wrong.push(format!("{seq} comes after {after:?} and not after {before:?}"));
            }
            heard.messages.push(Arrival { conversation, seq, id: message.message_id, at });
        }
        Ok(_) if frame.t == "acked" => {
            let n = frame.data::<serde_json::Value>().ok().and_then(|data| data["n"].as_u64());
            heard.acked = heard.acked.max(n.unwrap_or(0));
        }
        Ok(_) if frame.t == "drained" => heard.drained = true,
        Ok(_) if frame.re.is_some() => {}
        Ok(_) => heard.frames.push((frame, at)),
        Err(error) => heard.wrong.push(error.to_string()),
    }
}
