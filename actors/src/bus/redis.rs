//! The bus on Redis: one channel per node, and an actor that sends whatever has gathered.
//!
//! The actor Courier. *Owns:* the events that wait to be sent. *When full:* drops them, the sweep brings their content.
//! *On death:* the node ends in order.
//!
//! As in the Journal there is no timer: a lone event goes out at once, and while a letter is on its way the next one
//! gathers. First is asked where the users are, after the commit and never from memory (rule D3); then each node that
//! has any of them gets one letter.

use super::event::{Parcel, Receivers, Written};
use super::seal::{ClusterKeys, Opener, Sealer, sender_of};
use crate::mailbox::tell;
use crate::node::Node;
use crate::redis::Redis;
use crate::registry::{Incarnation, RedisRegistry};
use crate::tree::Vital;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture};
use futures::StreamExt;
use sotto_protocol::UserId;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Mailbox: events that may wait to be taken over.
const CAPACITY: usize = 16_384;
/// Most bytes that may wait, about.
const MAX_WAITING: usize = 32 << 20;
/// Most bytes of one round, about.
const MAX_ROUND: usize = 4 << 20;
/// A letter is cut at about this size.
const MAX_LETTER: usize = 1 << 20;
/// How often the subscription is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Silence for so long is loss.
const SILENCE: Duration = Duration::from_secs(3);
/// Whoever has written a letter is there for so long at least: canaries come more often.
const COMPANY: Duration = Duration::from_secs(15);
/// Between attempts to subscribe, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The bus of one node.
pub struct RedisBus {
    redis: Redis,
    registry: RedisRegistry,
    keys: ClusterKeys,
    channels: String,
    own: Incarnation,
    courier: OnceLock<Addr<Courier>>,
    hears: Arc<AtomicBool>,
    peers: AtomicUsize,
    company: Company,
}

/// When another node's letter has come.
#[derive(Clone, Default)]
struct Company(Arc<Mutex<Option<Instant>>>);

impl Company {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_there(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < COMPANY)
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RedisBus({}, hears: {})", self.own.0, self.hears())
    }
}

impl RedisBus {
    /// A bus that does nothing until it is started. `namespace` keeps clusters on one Redis apart.
    #[must_use]
    pub fn new(redis: Redis, registry: RedisRegistry, keys: ClusterKeys, namespace: &str, own: Incarnation) -> Self {
        Self {
            redis,
            registry,
            keys,
            channels: format!("sotto:{namespace}:to:"),
            own,
            courier: OnceLock::new(),
            hears: Arc::default(),
            peers: AtomicUsize::new(1),
            company: Company::default(),
        }
    }

    /// Starts the Courier and listens, on the calling arbiter. Returns when the subscription stands, or after 2 s
    /// without it: it is then tried again for ever.
    pub async fn start(&self, node: &Node) {
        let courier = Courier {
            node: node.clone(),
            redis: self.redis.clone(),
            registry: self.registry.clone(),
            sealer: Some(Sealer::new(&self.keys, self.own)),
            channels: self.channels.clone(),
            own: self.own,
            waiting: Vec::new(),
            bytes: 0,
            _life: node.vital("courier"),
        };
        // Set once: nobody else has the node yet.
        let _ = self.courier.set(courier.start());
        let listener = Listener {
            node: node.clone(),
            redis: self.redis.clone(),
            channel: format!("{}{}", self.channels, self.own.0),
            own: self.own,
            opener: Opener::new(self.keys.clone(), self.own),
            hears: Arc::clone(&self.hears),
            company: self.company.clone(),
        };
        let (ready, stands) = tokio::sync::oneshot::channel();
        actix_rt::spawn(listener.run(ready));
        let _ = tokio::time::timeout(Duration::from_secs(2), stands).await;
    }

    pub(super) fn post(&self, parcel: Parcel) {
        let Some(courier) = self.courier.get() else {
            return;
        };
        if tell(courier, parcel).is_err() {
            dropped("full", 1);
        }
    }

    pub(super) fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }

    /// Whether any other node may be there: one is counted, or has just written and is not counted yet.
    pub(super) fn has_peers(&self) -> bool {
        self.peers.load(Ordering::Relaxed) > 0 || self.company.is_there()
    }

    /// How many other nodes there are: with none, nobody is looked for.
    pub fn set_peers(&self, count: usize) {
        self.peers.store(count, Ordering::Relaxed);
    }
}

fn dropped(reason: &'static str, count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    metrics::counter!("sotto_bus_dropped_total", "reason" => reason).increment(count);
}

/// Sends what has gathered.
pub struct Courier {
    node: Node,
    redis: Redis,
    registry: RedisRegistry,
    /// Away while a round is on its way.
    sealer: Option<Sealer>,
    channels: String,
    own: Incarnation,
    waiting: Vec<Parcel>,
    bytes: usize,
    _life: Vital,
}

impl Courier {
    fn send(&mut self, ctx: &mut Context<Self>) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(mut sealer) = self.sealer.take() else {
            return;
        };
        let mut size = 0;
        let mut fits = |parcel: &Parcel| {
            size += parcel.size();
            size <= MAX_ROUND
        };
        let count = self.waiting.iter().map_while(|parcel| fits(parcel).then_some(())).count().max(1);
        let round: Vec<Parcel> = self.waiting.drain(..count).collect();
        self.bytes = self.bytes.saturating_sub(round.iter().map(Parcel::size).sum());
        let (redis, registry, own) = (self.redis.clone(), self.registry.clone(), self.own);
        let channels = self.channels.clone();
        let work = async move {
            let sent = deliver(&redis, &registry, &mut sealer, &channels, own, round).await;
            (sealer, sent)
        };
        ctx.spawn(work.into_actor(self).map(|(sealer, sent), courier, ctx| {
            courier.sealer = Some(sealer);
            if let Err(lost) = sent {
                dropped("redis", lost);
            }
            courier.send(ctx);
        }));
    }
}

impl Actor for Courier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CAPACITY);
        tracing::debug!(node = self.node.node_id(), "the courier is ready");
    }
}

impl Handler<Parcel> for Courier {
    type Result = ();

    fn handle(&mut self, parcel: Parcel, ctx: &mut Self::Context) {
        let size = parcel.size();
        if self.bytes + size > MAX_WAITING {
            return dropped("full", 1);
        }
        self.bytes += size;
        self.waiting.push(parcel);
        self.send(ctx);
    }
}

/// Where each parcel goes, and one letter or a few for each node. Err: so many events were lost.
async fn deliver(
    redis: &Redis,
    registry: &RedisRegistry,
    sealer: &mut Sealer,
    channels: &str,
    own: Incarnation,
    round: Vec<Parcel>,
) -> Result<(), usize> {
    let events = round.len();
    let asked: HashSet<UserId> = round
        .iter()
        .filter_map(|parcel| if let Receivers::Users(users) = &parcel.to { Some(users) } else { None })
        .flatten()
        .copied()
        .collect();
    let asked: Vec<UserId> = asked.into_iter().collect();
    let places = registry.nodes_of(&asked).await.map_err(|_| events)?;
    let mut letters: HashMap<Incarnation, Vec<Written>> = HashMap::new();
    for parcel in &round {
        match &parcel.to {
            Receivers::Node(node) => {
                letters.entry(*node).or_default().push(Written::of(Vec::new(), &parcel.event));
            }
            Receivers::Users(users) => {
                let mut here: HashMap<Incarnation, Vec<UserId>> = HashMap::new();
                for user in users {
                    for node in places.get(user).into_iter().flatten().filter(|node| **node != own) {
                        here.entry(*node).or_default().push(*user);
                    }
                }
                for (node, users) in here {
                    letters.entry(node).or_default().push(Written::of(users, &parcel.event));
                }
            }
        }
    }
    let mut sealed = Vec::new();
    for (node, events) in letters {
        for content in written(&events) {
            if let Some(letter) = sealer.seal(node, content) {
                sealed.push((format!("{channels}{}", node.0), letter));
            }
        }
    }
    if sealed.is_empty() {
        return Ok(());
    }
    metrics::counter!("sotto_bus_letters_total").increment(u64::try_from(sealed.len()).unwrap_or(u64::MAX));
    metrics::histogram!("sotto_bus_round_size").record(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
    let sent = redis
        .run(async |connection| {
            let mut pipeline = redis::pipe();
            for (channel, letter) in &sealed {
                pipeline.cmd("PUBLISH").arg(channel).arg(letter.as_slice()).ignore();
            }
            pipeline.query_async::<()>(connection).await
        })
        .await;
    sent.map_err(|_| events)
}

/// Events as letters of a bounded size.
fn written(events: &[Written]) -> Vec<Vec<u8>> {
    let mut letters = Vec::new();
    let mut letter = Vec::new();
    for event in events {
        let Ok(bytes) = postcard::to_stdvec(event) else {
            continue;
        };
        if !letter.is_empty() && letter.len() + bytes.len() > MAX_LETTER {
            letters.push(std::mem::take(&mut letter));
        }
        letter.extend_from_slice(&bytes);
    }
    if !letter.is_empty() {
        letters.push(letter);
    }
    letters
}

fn read(mut content: &[u8]) -> Option<Vec<Written>> {
    let mut events = Vec::new();
    while !content.is_empty() {
        let (event, rest) = postcard::take_from_bytes(content).ok()?;
        events.push(event);
        content = rest;
    }
    Some(events)
}

/// Takes in what other nodes send.
struct Listener {
    node: Node,
    redis: Redis,
    channel: String,
    own: Incarnation,
    opener: Opener,
    hears: Arc<AtomicBool>,
    company: Company,
}

impl Listener {
    /// Subscribes again and again. After each time but the first, what was missed is read (rule D3).
    async fn run(mut self, ready: tokio::sync::oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut pause = RETRY.0;
        loop {
            if let Ok(subscription) = self.redis.listen(&self.channel).await {
                self.hears.store(true, Ordering::Relaxed);
                pause = RETRY.0;
                match ready.take() {
                    // Whoever starts the node may have lost patience.
                    Some(ready) => drop(ready.send(())),
                    None => {
                        tracing::info!("subscribed again: registrations are renewed and backlogs are read");
                        self.node.registry().renew();
                        self.node.read_all_again();
                    }
                }
                self.listen(subscription).await;
                self.hears.store(false, Ordering::Relaxed);
                tracing::warn!("the subscription is lost; until it stands again the sweep delivers alone");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Until silence.
    async fn listen(&mut self, subscription: redis::aio::PubSub) {
        let (mut sink, mut letters) = subscription.split();
        let pings = async move {
            loop {
                tokio::time::sleep(PING_EVERY).await;
                // A connection can die without a word at a failover.
                let alive = tokio::time::timeout(SILENCE, sink.ping::<redis::Value>()).await;
                if !matches!(alive, Ok(Ok(_))) {
                    return;
                }
            }
        };
        let hears = async {
            while let Some(letter) = letters.next().await {
                self.letter(letter.get_payload_bytes());
            }
        };
        tokio::select! {
            () = pings => {}
            () = hears => {}
        }
    }

    fn letter(&mut self, letter: &[u8]) {
        let content = match self.opener.open(letter) {
            Ok(content) => content,
            Err(refusal) => {
                metrics::counter!("sotto_bus_refused_total", "reason" => refusal.as_str()).increment(1);
                tracing::warn!(reason = refusal.as_str(), "a letter between nodes was refused");
                return;
            }
        };
        let Some(events) = read(&content) else {
            metrics::counter!("sotto_bus_refused_total", "reason" => "unreadable").increment(1);
            tracing::warn!("a letter between nodes cannot be read");
            return;
        };
        metrics::counter!("sotto_bus_events_total").increment(u64::try_from(events.len()).unwrap_or(u64::MAX));
        if sender_of(letter) != Some(self.own) {
            self.company.note();
        }
        for event in events {
            let (users, event) = event.read();
            self.node.receive(&users, event);
        }
    }
}
