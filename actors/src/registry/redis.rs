//! The registry in Redis: for each user a hash with a field per device, so that one look finds all his nodes.
//!
//! The actor Registrar. *Owns:* what waits to be written, and when each registration was written last. *When full:*
//! the registration is written with the next round of rewriting. *On death:* the node ends in order.
//!
//! A field is `incarnation:connection:number:second`, each of a fixed width, so that a script compares numbers of 64
//! bits as text. Each registration is written again every few seconds (rule D3); one that was gone, or named another
//! connection, may have cost events, and that user's backlogs are read again. A key that changes with every loss of
//! Redis' memory makes that sooner.

use super::local::LocalRegistry;
use super::{Incarnation, Registration, is_counted};
use crate::bus::event::{Event, Parcel, Receivers, Replaced};
use crate::mailbox::{ask, tell};
use crate::node::Node;
use crate::redis::{Away, Redis};
use crate::session::ReadAgain;
use crate::tree::Vital;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use redis::Script;
use sotto_protocol::{DeviceId, SessionId, UserId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uuid::Uuid;

/// Mailbox: registrations that may wait.
const CAPACITY: usize = 16_384;
/// Registrations of one script.
const AT_ONCE: usize = 256;
/// How often the round looks what is due.
const ROUND: Duration = Duration::from_secs(1);
/// A registration is written again after so long; with the round, at most every 10 s.
const AGAIN_AFTER: Duration = Duration::from_secs(8);
/// Users nobody writes again are forgotten after so long.
const LIFE: Duration = Duration::from_secs(60);

/// Writes registrations. For each: `-` a newer one stands there, `+` there was none, `=` it stood there, or what it
/// has replaced. Fields that nobody has written for half a minute are of nodes that died.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local now = tonumber(redis.call('TIME')[1])
        local verdicts = {}
        for i, key in ipairs(KEYS) do
            local device, mine = ARGV[2 * i], ARGV[2 * i + 1]
            local fields = redis.call('HGETALL', key)
            local old = nil
            for f = 1, #fields, 2 do
                if now - tonumber(string.sub(fields[f + 1], 96)) > 30 then
                    redis.call('HDEL', key, fields[f])
                elseif fields[f] == device then
                    old = fields[f + 1]
                end
            end
            if old and string.sub(old, 75, 94) > string.sub(mine, 75, 94) then
                verdicts[i] = '-'
            else
                redis.call('HSET', key, device, mine .. ':' .. now)
                redis.call('PEXPIRE', key, ARGV[1])
                if not old then
                    verdicts[i] = '+'
                elseif string.sub(old, 1, 73) == string.sub(mine, 1, 73) then
                    verdicts[i] = '='
                else
                    verdicts[i] = string.sub(old, 1, 73)
                end
            end
        end
        return verdicts",
    )
});

/// Removes registrations that still name their connection.
static ERASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for i, key in ipairs(KEYS) do
            local old = redis.call('HGET', key, ARGV[2 * i - 1])
            if old and string.sub(old, 38, 73) == ARGV[2 * i] then
                redis.call('HDEL', key, ARGV[2 * i - 1])
            end
        end",
    )
});

/// What a registration found in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Newer,
    Absent,
    Same,
    Replaced(Incarnation, SessionId),
    Unreadable,
}

impl Verdict {
    fn read(text: &str) -> Self {
        match text {
            "-" => Self::Newer,
            "+" => Self::Absent,
            "=" => Self::Same,
            other => {
                let node = other.get(..36).and_then(|node| Uuid::try_parse(node).ok());
                let connection = other.get(37..73).and_then(SessionId::parse);
                match (node, connection) {
                    (Some(node), Some(connection)) => Self::Replaced(Incarnation(node), connection),
                    _ => Self::Unreadable,
                }
            }
        }
    }
}

/// The registry of one node of several. Cheap to clone.
#[derive(Clone)]
pub struct RedisRegistry(Arc<Inner>);

struct Inner {
    redis: Redis,
    here: LocalRegistry,
    own: Incarnation,
    prefix: String,
    registrar: OnceLock<Addr<Registrar>>,
}

impl fmt::Debug for RedisRegistry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RedisRegistry({})", self.0.own.0)
    }
}

impl RedisRegistry {
    /// A registry that knows only this node until it is started. `namespace` keeps clusters on one Redis apart.
    #[must_use]
    pub fn new(redis: Redis, namespace: &str, own: Incarnation) -> Self {
        Self(Arc::new(Inner {
            redis,
            here: LocalRegistry::default(),
            own,
            prefix: format!("sotto:{namespace}:"),
            registrar: OnceLock::new(),
        }))
    }

    pub(super) fn here(&self) -> &LocalRegistry {
        &self.0.here
    }

    pub(super) fn start(&self, node: &Node) {
        let registrar = Registrar {
            node: node.clone(),
            registry: self.clone(),
            waiting: Vec::new(),
            leaving: Vec::new(),
            settling: Vec::new(),
            written: HashMap::new(),
            epoch: None,
            busy: false,
            round_due: false,
            _life: node.vital("registrar"),
        };
        // Set once: nobody else has the node yet.
        let _ = self.0.registrar.set(registrar.start());
    }

    pub(super) async fn announce(&self, registration: Registration) {
        let (reply, done) = oneshot::channel();
        if let Some(registrar) = self.0.registrar.get()
            && tell(registrar, Announce { registration, reply }).is_ok()
        {
            // Without an answer it is written with the next round.
            let _ = tokio::time::timeout(Duration::from_secs(1), done).await;
        }
    }

    pub(super) fn withdraw(&self, registration: Registration) {
        if let Some(registrar) = self.0.registrar.get() {
            // What stays behind leads nowhere, and ends by itself.
            let _ = tell(registrar, Withdraw(registration));
        }
    }

    pub(super) fn renew(&self) {
        if let Some(registrar) = self.0.registrar.get() {
            // A full mailbox: the rounds do the same within ten seconds.
            let _ = tell(registrar, Renew);
        }
    }

    /// Waits until nothing waits to be written or withdrawn.
    pub(super) async fn settle(&self) {
        if let Some(registrar) = self.0.registrar.get() {
            // Without an answer, registrations end by themselves.
            let _ = ask(registrar, Settle).await;
        }
    }

    /// Writes a registration of a user and device that nobody is, and looks it up.
    pub(super) async fn canary(&self, number: u64) -> Result<bool, Away> {
        let own = self.0.own.0;
        let attempt = i64::try_from(number).unwrap_or(i64::MAX);
        let entry = Registration { user: UserId(own), device: DeviceId(own), connection: SessionId(own), attempt };
        self.write(&[entry]).await?;
        Ok(self.nodes_of(&[entry.user]).await?.get(&entry.user).is_some_and(|nodes| nodes.contains(&self.0.own)))
    }

    /// The nodes where each of these users has a device, as far as Redis knows.
    ///
    /// # Errors
    /// Redis is away.
    pub(crate) async fn nodes_of(&self, users: &[UserId]) -> Result<HashMap<UserId, Vec<Incarnation>>, Away> {
        if users.is_empty() {
            return Ok(HashMap::new());
        }
        let found: Vec<Vec<String>> = self
            .0
            .redis
            .run(async |connection| {
                let mut pipeline = redis::pipe();
                for user in users {
                    pipeline.cmd("HVALS").arg(self.key(*user));
                }
                pipeline.query_async(connection).await
            })
            .await?;
        let node = |field: &String| field.get(..36).and_then(|node| Uuid::try_parse(node).ok()).map(Incarnation);
        let places = users.iter().zip(found).map(|(user, fields)| {
            let mut nodes: Vec<Incarnation> = fields.iter().filter_map(node).collect();
            nodes.sort_unstable();
            nodes.dedup();
            (*user, nodes)
        });
        Ok(places.collect())
    }

    fn key(&self, user: UserId) -> String {
        format!("{}at:{user}", self.0.prefix)
    }

    async fn write(&self, entries: &[Registration]) -> Result<Vec<Verdict>, Away> {
        let mut call = WRITE.prepare_invoke();
        call.arg(LIFE.as_millis().to_string());
        for entry in entries {
            let mine = format!("{}:{}:{:020}", self.0.own.0, entry.connection, entry.attempt.max(0));
            call.key(self.key(entry.user)).arg(entry.device.to_string()).arg(mine);
        }
        let verdicts: Vec<String> = self.0.redis.run(async |connection| call.invoke_async(connection).await).await?;
        Ok(verdicts.iter().map(|text| Verdict::read(text)).collect())
    }

    async fn erase(&self, entries: &[Registration]) -> Result<(), Away> {
        let mut call = ERASE.prepare_invoke();
        for entry in entries {
            call.key(self.key(entry.user)).arg(entry.device.to_string()).arg(entry.connection.to_string());
        }
        self.0.redis.run(async |connection| call.invoke_async(connection).await).await
    }

    /// The name of Redis' present memory; made if there is none.
    async fn epoch(&self) -> Result<String, Away> {
        let key = format!("{}epoch", self.0.prefix);
        let fresh = Uuid::new_v4().to_string();
        let (epoch,): (String,) = self
            .0
            .redis
            .run(async |connection| {
                let mut pipeline = redis::pipe();
                pipeline.cmd("SET").arg(&key).arg(&fresh).arg("NX").ignore().cmd("GET").arg(&key);
                pipeline.query_async(connection).await
            })
            .await?;
        Ok(epoch)
    }
}

/// A connection is here; answered when that is written.
#[derive(Message)]
#[rtype(result = "()")]
struct Announce {
    registration: Registration,
    reply: oneshot::Sender<()>,
}

/// A connection is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct Withdraw(Registration);

/// Everything is to be written again.
#[derive(Message)]
#[rtype(result = "()")]
struct Renew;

/// Answered when nothing waits.
#[derive(Message)]
#[rtype(result = "()")]
struct Settle(oneshot::Sender<()>);

/// Writes what is here into Redis, and again and again.
struct Registrar {
    node: Node,
    registry: RedisRegistry,
    waiting: Vec<Announce>,
    leaving: Vec<Registration>,
    settling: Vec<oneshot::Sender<()>>,
    written: HashMap<DeviceId, Instant>,
    epoch: Option<String>,
    busy: bool,
    round_due: bool,
    _life: Vital,
}

/// What a step has done.
struct Done {
    written: Vec<(Registration, Verdict)>,
    /// Whether this was the round, and not the first writing.
    again: bool,
    epoch: Option<String>,
}

impl Registrar {
    /// First what is new, then what is gone, then the round.
    fn step(&mut self, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        if !self.waiting.is_empty() {
            let batch: Vec<Announce> = self.waiting.drain(..self.waiting.len().min(AT_ONCE)).collect();
            let registry = self.registry.clone();
            return self.work(ctx, async move {
                let entries: Vec<Registration> = batch.iter().map(|announce| announce.registration).collect();
                let verdicts = registry.write(&entries).await.unwrap_or_default();
                for announce in batch {
                    // Whoever waited may have gone away.
                    let _ = announce.reply.send(());
                }
                Done { written: entries.into_iter().zip(verdicts).collect(), again: false, epoch: None }
            });
        }
        if !self.leaving.is_empty() {
            let batch: Vec<Registration> = self.leaving.drain(..self.leaving.len().min(AT_ONCE)).collect();
            let registry = self.registry.clone();
            return self.work(ctx, async move {
                // What stays behind leads nowhere, and ends by itself.
                let _ = registry.erase(&batch).await;
                Done { written: Vec::new(), again: false, epoch: None }
            });
        }
        for reply in self.settling.drain(..) {
            // Whoever waited may have gone away.
            let _ = reply.send(());
        }
        if std::mem::take(&mut self.round_due) {
            self.round(ctx);
        }
    }

    fn round(&mut self, ctx: &mut Context<Self>) {
        let here = self.registry.here().all();
        if self.written.len() > here.len() + AT_ONCE {
            let present: HashSet<DeviceId> = here.iter().map(|entry| entry.device).collect();
            self.written.retain(|device, _| present.contains(device));
        }
        let is_due =
            |entry: &Registration| self.written.get(&entry.device).is_none_or(|at| at.elapsed() >= AGAIN_AFTER);
        let all: Vec<Registration> = here;
        let due: Vec<Registration> = all.iter().copied().filter(is_due).collect();
        let registry = self.registry.clone();
        let known = self.epoch.clone();
        self.work(ctx, async move {
            let epoch = registry.epoch().await.ok();
            // Redis has lost its memory: everything is due.
            let due = if epoch.is_some() && known.is_some() && epoch != known { all } else { due };
            let mut written = Vec::new();
            for batch in due.chunks(AT_ONCE) {
                let Ok(verdicts) = registry.write(batch).await else {
                    break;
                };
                written.extend(batch.iter().copied().zip(verdicts));
            }
            Done { written, again: true, epoch }
        });
    }

    fn work(&mut self, ctx: &mut Context<Self>, work: impl Future<Output = Done> + 'static) {
        self.busy = true;
        ctx.spawn(work.into_actor(self).map(|done, registrar, ctx| {
            registrar.busy = false;
            registrar.done(done);
            registrar.step(ctx);
        }));
    }

    fn done(&mut self, done: Done) {
        if done.epoch.is_some() {
            self.epoch = done.epoch;
        }
        let now = Instant::now();
        let mut lost = HashSet::new();
        for (entry, verdict) in done.written {
            if !self.registry.here().holds(entry.device, entry.connection) {
                // It went while it was being written.
                self.leaving.push(entry);
                continue;
            }
            self.written.insert(entry.device, now);
            match verdict {
                // The database knows which is the newer; whoever is the older hears it from there.
                Verdict::Newer | Verdict::Unreadable | Verdict::Same => continue,
                Verdict::Absent => {}
                Verdict::Replaced(node, connection) => {
                    if node != self.registry.0.own {
                        let explicit = is_counted(entry.attempt);
                        let replaced = Replaced { user: entry.user, connection, explicit };
                        let event = Event::Replaced(replaced);
                        self.node.bus().tell_node(Parcel { to: Receivers::Node(node), event });
                    }
                }
            }
            if done.again {
                lost.insert(entry.user);
            }
        }
        if !lost.is_empty() {
            let count = u64::try_from(lost.len()).unwrap_or(u64::MAX);
            metrics::counter!("sotto_registrations_lost_total").increment(count);
            tracing::info!(users = count, "registrations were lost; their backlogs are read again");
        }
        for user in lost {
            if let Some(session) = self.node.sessions().get(&user) {
                // One that is full reads again when it is told of anything.
                let _ = tell(&session, ReadAgain);
            }
        }
    }
}

impl Actor for Registrar {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CAPACITY);
        ctx.run_interval(ROUND, |registrar, ctx| {
            registrar.round_due = true;
            registrar.step(ctx);
        });
    }
}

impl Handler<Announce> for Registrar {
    type Result = ();

    fn handle(&mut self, announce: Announce, ctx: &mut Self::Context) {
        self.waiting.push(announce);
        self.step(ctx);
    }
}

impl Handler<Withdraw> for Registrar {
    type Result = ();

    fn handle(&mut self, withdraw: Withdraw, ctx: &mut Self::Context) {
        self.leaving.push(withdraw.0);
        self.step(ctx);
    }
}

impl Handler<Settle> for Registrar {
    type Result = ();

    fn handle(&mut self, settle: Settle, ctx: &mut Self::Context) {
        self.settling.push(settle.0);
        self.step(ctx);
    }
}

impl Handler<Renew> for Registrar {
    type Result = ();

    fn handle(&mut self, _: Renew, ctx: &mut Self::Context) {
        self.written.clear();
        self.round_due = true;
        self.step(ctx);
    }
}
