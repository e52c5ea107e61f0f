//! A node: its store, its directories of actors, and what REST and sockets ask of them.

use crate::bus::seal::ClusterKeys;
use crate::bus::{Bus, RedisBus};
use crate::cluster::{self, Cluster, View};
use crate::conversation::{self, Conversation, MarksRaised, MembersMoved, ReadUpTo, Send, Wake as WakeConversation};
use crate::directory::Directory;
use crate::identity::Identity;
use crate::journal::{Journals, Marks, Raise};
use crate::mailbox::{Refused, tell};
use crate::pressure::Pressure;
use crate::rate_limit::{Leases, LimitSettings, Limits};
use crate::redis::{Redis, RedisSetting};
use crate::registry::local::LocalRegistry;
use crate::registry::{Incarnation, RedisRegistry, Registry};
use crate::reply::Reply;
use crate::session::{ReadAgain, Session};
use crate::sweep::Sweep;
use crate::threads::Threads;
use crate::tree::{Alarm, Vital};
use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use sotto_protocol::event::{ConversationChanged, DevicesChanged, Event};
use sotto_protocol::message::{Message as MessageView, OutgoingMessage, Sender, Sent};
use sotto_protocol::{ConversationId, DeviceId, ErrorCode, MessageId, Problem, Seq, Timestamp, UserId, limits};
use sotto_schema::append::{Raised, Wake};
use sotto_schema::{Store, StoreError};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uuid::Uuid;

mod conversations;
mod elsewhere;
mod life;

use conversations::view;

/// What a node needs to know besides its store.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Its name, in `welcome.node` and in metrics.
    pub node_id: String,
    /// Between pings.
    pub heartbeat: Duration,
    /// For `hello` to come.
    pub hello_timeout: Duration,
    /// Nothing acknowledged for so long while something is due: 4421.
    pub ack_timeout: Duration,
    /// Nothing read by the peer for so long while something waits: 4420.
    pub stall_timeout: Duration,
    /// Journals that write at the same time, 1 … 16; SQLite has one.
    pub journals: usize,
    /// Limits over time.
    pub limits: LimitSettings,
    /// Most sockets of this node.
    pub max_sockets: usize,
    /// Most sockets of one user.
    pub max_sockets_per_user: usize,
    /// How it meets other nodes; none: it is alone, or meets them in the database only.
    pub cluster: Option<ClusterSettings>,
}

/// How a node meets others.
#[derive(Clone)]
pub struct ClusterSettings {
    /// Redis, or its Sentinels; may hold a password.
    pub redis_url: String,
    /// What nodes tell each other is sealed with keys that are derived from these.
    pub keys: ClusterKeys,
    /// Keeps clusters on one Redis apart; letters and digits.
    pub namespace: String,
}

impl std::fmt::Debug for ClusterSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ClusterSettings({})", self.namespace)
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis is set to something that cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisSetting),
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            node_id: "node".to_owned(),
            heartbeat: Duration::from_secs(30),
            hello_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            journals: 2,
            limits: LimitSettings::default(),
            max_sockets: 50_000,
            max_sockets_per_user: 20,
            cluster: None,
        }
    }
}

struct Inner {
    incarnation: Incarnation,
    redis: Option<Redis>,
    store: Store,
    epoch: Uuid,
    settings: NodeSettings,
    identity: Arc<dyn Identity>,
    limits: Limits,
    alarm: Arc<Alarm>,
    registry: Registry,
    bus: Bus,
    journals: OnceLock<Arc<Journals>>,
    threads: Threads,
    pressure: Pressure,
    sweep: OnceLock<Addr<Sweep>>,
    cluster: OnceLock<Addr<Cluster>>,
    view: Mutex<Arc<View>>,
    conversations: Directory<ConversationId, Conversation>,
    sessions: Directory<UserId, Session>,
    /// What a full mailbox refused, for the sweep to tell again.
    repairs: Mutex<HashSet<ConversationId>>,
    account_repairs: Mutex<HashMap<UserId, i64>>,
    leaving: AtomicBool,
    draining: AtomicBool,
    started: Instant,
    /// Milliseconds after `started` when the wakes were last read.
    swept: AtomicU64,
    connections: AtomicUsize,
}

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

impl std::fmt::Debug for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Node({})", self.0.settings.node_id)
    }
}

/// A failure of the store as its caller may see it. It is logged here, once.
#[must_use]
pub fn store_problem(error: StoreError) -> Problem {
    if error.is_unavailable() {
        tracing::warn!(%error, "the database is not available");
        Problem::unavailable("the database does not answer; try again")
    } else {
        tracing::error!(%error, "the store failed");
        Problem::new(ErrorCode::Internal, "the server could not do this; it is in its log")
    }
}

/// Too many messages wait: nothing was done.
pub(crate) fn overloaded() -> Problem {
    Problem::unavailable("too many messages wait to be stored; send again").retry_after(1000)
}

fn busy() -> Problem {
    Problem::unavailable("too much to do; try again")
}

impl Node {
    /// Starts the permanent actors on the calling arbiter: limits, Journals, Sweep, and what meets other nodes. The
    /// schema must be up.
    ///
    /// # Errors
    /// The database does not answer; Redis is set to something that cannot be used.
    pub async fn start(store: Store, identity: Arc<dyn Identity>, settings: NodeSettings) -> Result<Self, StartError> {
        let incarnation = Incarnation::fresh();
        let (redis, registry, bus) = match &settings.cluster {
            None => (None, Registry::Local(LocalRegistry::default()), Bus::Local),
            Some(cluster) => {
                let redis = Redis::open(&cluster.redis_url)?;
                redis.check().await?;
                let registry = RedisRegistry::new(redis.clone(), &cluster.namespace, incarnation);
                let bus = RedisBus::new(
                    redis.clone(),
                    registry.clone(),
                    cluster.keys.clone(),
                    &cluster.namespace,
                    incarnation,
                );
                (Some(redis), Registry::Redis(registry), Bus::Redis(bus))
            }
        };
        let epoch = store.epoch().await?;
        let position = store.wakes_position().await?;
        let alarm = Arc::new(Alarm::default());
        let cluster = redis.as_ref().zip(settings.cluster.as_ref());
        let leases = cluster.map(|(redis, cluster)| Leases::new(redis.clone(), &cluster.namespace));
        let journals = store.journals(settings.journals.max(1));
        let node = Self(Arc::new(Inner {
            epoch,
            identity,
            limits: Limits::start(settings.limits, leases, &alarm),
            alarm,
            incarnation,
            redis,
            registry,
            bus,
            journals: OnceLock::new(),
            threads: Threads::default(),
            pressure: Pressure::new(journals),
            sweep: OnceLock::new(),
            cluster: OnceLock::new(),
            view: Mutex::default(),
            conversations: Directory::default(),
            sessions: Directory::default(),
            repairs: Mutex::default(),
            account_repairs: Mutex::default(),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            started: Instant::now(),
            swept: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            settings,
            store,
        }));
        // Set once: nobody else has the node yet.
        let _ = node.0.journals.set(Arc::new(Journals::start(&node, journals)));
        let _ = node.0.sweep.set(Sweep::new(node.clone(), position).start());
        let rows = cluster::join(&node).await?;
        // Heard first, then registered: what is told to a registration must find an ear (rule D3).
        node.0.bus.start(&node).await;
        node.0.registry.start(&node);
        let _ = node.0.cluster.set(Cluster::new(node.clone(), rows).start());
        Ok(node)
    }

    /// The messages on their way into the database.
    #[must_use]
    pub fn pressure(&self) -> &Pressure {
        &self.0.pressure
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The node's name.
    #[must_use]
    pub fn node_id(&self) -> &str {
        &self.0.settings.node_id
    }

    /// The store's generation.
    #[must_use]
    pub fn epoch(&self) -> Uuid {
        self.0.epoch
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &NodeSettings {
        &self.0.settings
    }

    /// Limits over time.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// What a permanent actor of this node holds.
    pub(crate) fn vital(&self, what: &'static str) -> Vital {
        Vital::new(what, Arc::clone(&self.0.alarm))
    }

    /// Waits until an actor dies that the node cannot live without, and names it.
    pub async fn failed(&self) -> &'static str {
        self.0.alarm.heard().await
    }

    /// Checks of identity.
    #[must_use]
    pub fn identity(&self) -> &dyn Identity {
        &*self.0.identity
    }

    /// This life of the node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// Redis, where the node has one.
    #[must_use]
    pub fn redis(&self) -> Option<&Redis> {
        self.0.redis.as_ref()
    }

    /// Node to node.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// Who is where.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Conversations active here.
    #[must_use]
    pub fn conversations(&self) -> &Directory<ConversationId, Conversation> {
        &self.0.conversations
    }

    /// Users with a socket here.
    #[must_use]
    pub fn sessions(&self) -> &Directory<UserId, Session> {
        &self.0.sessions
    }

    /// The session of a user; it starts on the calling arbiter if there is none.
    #[must_use]
    pub fn session(&self, user: UserId) -> Addr<Session> {
        self.0.sessions.get_or_start(user, || Session::new(user, self.clone()).start())
    }

    /// The threads among which conversations are parted: those that serve connections join them.
    #[must_use]
    pub fn threads(&self) -> &Threads {
        &self.0.threads
    }

    /// Tells a conversation something; if it is not active, it starts on the thread that its id falls to.
    ///
    /// # Errors
    /// Its mailbox is full or it has just stopped.
    pub fn tell_conversation<M>(&self, id: ConversationId, message: M) -> Result<(), Refused>
    where
        Conversation: Handler<M>,
        <Conversation as Actor>::Context: ToEnvelope<Conversation, M>,
        M: Message + std::marker::Send + 'static,
        M::Result: std::marker::Send,
    {
        let journals = self.0.journals.get().ok_or(Refused::Closed)?;
        let start = || {
            let (node, journals) = (self.clone(), Arc::clone(journals));
            let make = move || {
                let route = journals.route(&node, id);
                Conversation::new(id, node, route)
            };
            self.0.threads.start(id.as_bytes(), conversation::CAPACITY, make)
        };
        tell(&self.0.conversations.get_or_start(id, start), message)
    }

    // ---- wakes -------------------------------------------------------------------------------------

    /// Raises heads here: of conversations by their actors, of account logs by their sessions.
    pub fn wake(&self, wake: &Wake, again: bool) {
        for (id, seq, receipts) in &wake.conversations {
            let message = WakeConversation { seq: *seq, receipts: *receipts, again };
            // A conversation that is not active here is woken only if somebody may read it here.
            if (self.0.conversations.get(id).is_some() || !self.0.sessions.is_empty())
                && self.tell_conversation(*id, message).is_err()
            {
                self.repair_conversation(*id);
            }
        }
        for (user, seq) in &wake.users {
            self.account_head_moved(*user, *seq);
        }
    }

    /// Tells a conversation that its members have changed, wherever that was done.
    pub fn members_moved(&self, id: ConversationId, seq: Seq) {
        if (self.0.conversations.get(&id).is_some() || !self.0.sessions.is_empty())
            && self.tell_conversation(id, MembersMoved { seq }).is_err()
        {
            self.repair_conversation(id);
        }
    }

    /// Notes that somebody could not be told of a conversation; the sweep tells everybody again.
    pub fn repair_conversation(&self, id: ConversationId) {
        self.0.repairs.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        metrics::counter!("sotto_mailbox_refused_total").increment(1);
    }

    /// Tells again what a full mailbox has refused.
    pub(crate) fn repair(&self) {
        let refused = std::mem::take(&mut *self.0.repairs.lock().unwrap_or_else(PoisonError::into_inner));
        for id in refused {
            let node = self.clone();
            actix_rt::spawn(async move {
                let Ok(Some(state)) = node.store().conversation_state(id).await else {
                    return node.repair_conversation(id);
                };
                let head = state.conversation;
                let wake = Wake { conversations: vec![(id, head.last_seq, head.receipts_version)], users: Vec::new() };
                node.wake(&wake, true);
            });
        }
        let users = std::mem::take(&mut *self.0.account_repairs.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake(&Wake::of_users(users.into_iter().collect()), false);
    }

    pub(crate) fn read_all_again(&self) {
        for (_, session) in self.0.sessions.all() {
            // One that is full reads again when it is told of anything.
            let _ = tell(&session, ReadAgain);
        }
    }

    /// Tells conversations of marks that were committed.
    pub(crate) fn tell_raised(&self, raised: Vec<Raised>) {
        let mut by_conversation: BTreeMap<ConversationId, Vec<Raised>> = BTreeMap::new();
        for mark in raised {
            by_conversation.entry(mark.conversation_id).or_default().push(mark);
        }
        for (id, marks) in by_conversation {
            if self.tell_conversation(id, MarksRaised(marks)).is_err() {
                self.repair_conversation(id);
            }
        }
    }

    /// Hands marks to the Journals that care for them; `true` when all are durable.
    pub async fn raise(&self, marks: Marks) -> bool {
        let mut parts: HashMap<usize, Marks> = HashMap::new();
        let Some(journals) = self.0.journals.get() else {
            return false;
        };
        for mark in marks.delivered {
            parts.entry(journals.place_of(mark.conversation_id.as_bytes())).or_default().delivered.push(mark);
        }
        for mark in marks.reads {
            parts.entry(journals.place_of(mark.conversation_id.as_bytes())).or_default().reads.push(mark);
        }
        for mark in marks.accounts {
            parts.entry(journals.place_of(mark.device_id.as_bytes())).or_default().accounts.push(mark);
        }
        let mut answers = Vec::new();
        for (place, marks) in parts {
            let (reply, answer) = oneshot::channel();
            if tell(journals.home(place), Raise { marks, reply }).is_err() {
                return false;
            }
            answers.push(answer);
        }
        for answer in answers {
            if answer.await != Ok(true) {
                return false;
            }
        }
        true
    }

    // ---- messages ----------------------------------------------------------------------------------

    /// Appends a message and answers when it is durable.
    ///
    /// # Errors
    /// Whatever the contract says of a send; `unavailable`: unknown outcome, repeat with the same id.
    pub async fn send(&self, sender: Sender, message: OutgoingMessage) -> Result<Sent, Problem> {
        message.check(sender.device_id)?;
        // Before the limit is asked: who is refused here has used nothing of it.
        let permit = self.pressure().enter().ok_or_else(overloaded)?;
        let decision = self.limits().message(sender.user_id).await;
        let limited = (!decision.allowed).then_some(decision);
        let id = message.conversation_id;
        let (reply, answer) = oneshot::channel();
        let send = Send { sender, message, limited, permit, reply: Reply::Once(reply) };
        self.tell_conversation(id, send).map_err(|_| busy())?;
        match tokio::time::timeout(Duration::from_millis(4800), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => {
                Err(Problem::unavailable("the message could not be confirmed; send it again with the same id"))
            }
        }
    }

    /// Raises a read mark and answers when it is durable.
    ///
    /// # Errors
    /// 404, 403, 422 `above_last_seq`, 429, `unavailable`.
    pub async fn mark_read(
        &self,
        user: UserId,
        device: DeviceId,
        id: ConversationId,
        up_to: Seq,
    ) -> Result<(), Problem> {
        if up_to < 0 {
            return Err(Problem::field("/up_to", "out_of_range"));
        }
        let decision = self.limits().read_mark(user).await;
        if !decision.allowed {
            return Err(decision.refusal("read_marks"));
        }
        let (reply, answer) = oneshot::channel();
        self.tell_conversation(id, ReadUpTo { user, device, up_to, reply }).map_err(|_| busy())?;
        match tokio::time::timeout(Duration::from_millis(4800), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// The same by a message's id.
    ///
    /// # Errors
    /// 404 when the caller has no such message, 409 when several conversations of his hold the id.
    pub async fn mark_message_read(
        &self,
        user: UserId,
        device: DeviceId,
        message: MessageId,
        conversation: Option<ConversationId>,
    ) -> Result<(), Problem> {
        let homes = self.store().homes_of_message(user, message).await.map_err(store_problem)?;
        let home = match (conversation, homes.as_slice()) {
            (Some(wanted), homes) => homes.iter().find(|(id, _)| *id == wanted).copied(),
            (None, [home]) => Some(*home),
            (None, []) => None,
            (None, _) => {
                let detail = "several of your conversations hold this id; name one";
                return Err(Problem::new(ErrorCode::Conflict, detail));
            }
        };
        let (id, seq) = home.ok_or_else(Problem::not_found)?;
        self.mark_read(user, device, id, seq).await
    }

    /// A page of history, ascending, at most 1 MiB and never below one item; `true` if more follows.
    ///
    /// # Errors
    /// 404 when the caller never was a member.
    pub async fn history(
        &self,
        user: UserId,
        device: DeviceId,
        id: ConversationId,
        after: Option<Seq>,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<(Vec<MessageView>, bool), Problem> {
        if self.store().is_member(id, user).await.map_err(store_problem)?.is_none() {
            return Err(Problem::not_found());
        }
        let backward = after.is_none() && before.is_some();
        let one_more = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
        let mut rows = self.store().history(id, user, after, before, one_more).await.map_err(store_problem)?;
        let mut more = rows.len() > limit;
        if backward {
            rows.reverse();
        }
        rows.truncate(limit);
        let mut bytes = 0;
        let fits = rows
            .iter()
            .take_while(|row| {
                bytes += row.wire_size();
                bytes <= limits::MAX_PAGE_BYTES
            })
            .count()
            .max(1);
        more |= rows.len() > fits;
        rows.truncate(fits);
        if backward {
            rows.reverse();
        }
        let now = Timestamp::now();
        Ok((rows.iter().map(|row| row.for_device(device, now)).collect(), more))
    }

    // ---- accounts ----------------------------------------------------------------------------------

    /// A user's account events after a number as they are sent; `None` where nothing is left to tell.
    ///
    /// # Errors
    /// The database failed.
    pub async fn account_events(
        &self,
        user: UserId,
        device: DeviceId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Option<Event>)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.store().account_events_after(user, after, limit).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let event = match row.kind.as_str() {
                "devices_changed" => serde_json::from_value::<DevicesChanged>(row.body).ok().map(Event::DevicesChanged),
                "conversation_changed" => self
                    .store()
                    .shown_conversation(row.object.into(), user)
                    .await?
                    .map(view)
                    .map(|conversation| Event::ConversationChanged(ConversationChanged { conversation })),
                "device_updated" => serde_json::from_value(row.body).ok().map(Event::DeviceUpdated),
                "phone_changed" => serde_json::from_value(row.body).ok().map(Event::PhoneChanged),
                "account_deletion" => serde_json::from_value(row.body).ok().map(Event::AccountDeletion),
                // Not to the device itself: it has just been heard of.
                "device_expiring" if device != row.object.into() => {
                    serde_json::from_value(row.body).ok().map(Event::DeviceExpiring)
                }
                _ => None,
            };
            events.push((row.seq, event));
        }
        Ok(events)
    }
}
