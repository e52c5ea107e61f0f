//! The actor RateLimit: sliding windows of what was done in the last minute or hour, per key.
//!
//! *Owns:* a shard of the keys, their windows, and their share of the limits of the cluster.
//! *When full:* refuses: a flood is what limits are for.
//! *On death:* the node ends in order; windows count from anew, those in Redis stand.
//!
//! A window of this node decides first. With Redis a permit of a lease is needed as well, see [`lease`]; while one is
//! fetched, those who ask for the same key wait in order. Redis is asked for all keys that need it in one call, one
//! call at a time. Without Redis the window here decides alone.

use crate::mailbox::{ask, tell};
use crate::tree::{Alarm, Vital};
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use lease::{Answer, Ask, Share};
use serde_json::json;
use sotto_protocol::{Problem, UserId};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

mod lease;
mod redis;

pub use redis::Leases;

/// Mailbox of one shard.
const CAPACITY: usize = 8192;
/// How often windows in which nothing is left are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// How often leases that have ended are looked for.
const ROUND: Duration = Duration::from_secs(1);
/// Keys of one call to Redis.
const AT_ONCE: usize = 128;
/// Most who wait for a lease of one key; more are refused.
const MOST_WAITING: usize = 256;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Messages of a user.
    Messages(UserId),
    /// REST requests of a user.
    Requests(UserId),
    /// New conversations of a user.
    Conversations(UserId),
    /// Read marks of a user.
    ReadMarks(UserId),
}

/// So much in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At most so many, at least 1.
    pub count: u32,
    /// Within this time.
    pub window: Duration,
}

/// The limits of the contract that count over time.
#[derive(Clone, Copy, Debug)]
pub struct LimitSettings {
    /// Off for load tests: everything is allowed.
    pub enabled: bool,
    /// Messages per user.
    pub messages: Limit,
    /// REST requests per user.
    pub requests: Limit,
    /// New conversations per user.
    pub conversations: Limit,
    /// Read marks per user.
    pub read_marks: Limit,
    /// Users that a user may notify an hour by changes of groups; counted in the database.
    pub notices_per_hour: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            enabled: true,
            messages: Limit { count: 20, window: minute },
            requests: Limit { count: 100, window: minute },
            conversations: Limit { count: 20, window: Duration::from_secs(3600) },
            read_marks: Limit { count: 300, window: minute },
            notices_per_hour: 20_000,
        }
    }
}

/// Whether something may be done, and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// It may be done, and was counted.
    pub allowed: bool,
    /// The limit.
    pub limit: u32,
    /// How many more now.
    pub remaining: u32,
    /// The window, in seconds.
    pub window_secs: u64,
    /// Seconds until the window is empty if nothing more comes.
    pub reset_secs: u64,
    /// When to try again; 0 if allowed.
    pub retry_after_ms: u64,
}

impl Decision {
    /// The refusal, which names its limit: `{name, quota, window}` with the window in seconds.
    #[must_use]
    pub fn refusal(&self, name: &str) -> Problem {
        let limit = json!({ "name": name, "quota": self.limit, "window": self.window_secs });
        Problem::rate_limited(self.retry_after_ms).with("limit", limit)
    }
}

/// Counts one, if the limit allows it.
#[derive(Message)]
#[rtype(result = "()")]
struct Count {
    subject: Subject,
    limit: Limit,
    reply: oneshot::Sender<Decision>,
}

/// Takes the newest count of a subject back: it turned out to be a repeat.
#[derive(Message)]
#[rtype(result = "()")]
struct Refund(Subject);

/// The node ends: Redis is to be told what was used of every lease. Answered when that is done.
#[derive(Message)]
#[rtype(result = "()")]
struct Settle(oneshot::Sender<()>);

/// One shard of the windows.
#[derive(Debug)]
pub struct RateLimit {
    windows: HashMap<Subject, Window>,
    cluster: Option<Cluster>,
    _life: Vital,
}

/// What a shard needs to count together with other nodes.
#[derive(Debug)]
struct Cluster {
    leases: Leases,
    /// Keys that Redis is to be asked or told about; each stands there once.
    queue: VecDeque<Subject>,
    /// When Redis is to be told of a key, soonest first.
    due: VecDeque<(Instant, Subject)>,
    busy: bool,
    settling: Vec<oneshot::Sender<()>>,
}

impl Cluster {
    fn enqueue(&mut self, subject: Subject, shared: &mut Shared) {
        if !std::mem::replace(&mut shared.is_queued, true) {
            self.queue.push_back(subject);
        }
    }

    fn tell_later(&mut self, subject: Subject, now: Instant) {
        self.due.push_back((now + lease::VALIDITY, subject));
    }
}

#[derive(Debug, Default)]
struct Window {
    moments: VecDeque<Instant>,
    length: Duration,
    shared: Option<Box<Shared>>,
}

/// What a window has beside it in a cluster.
#[derive(Debug)]
struct Shared {
    share: Share,
    limit: Limit,
    /// Who waits for a lease.
    waiting: VecDeque<oneshot::Sender<Decision>>,
    is_queued: bool,
    is_asking: bool,
}

impl Shared {
    fn new(limit: Limit) -> Self {
        Self { share: Share::default(), limit, waiting: VecDeque::new(), is_queued: false, is_asking: false }
    }
}

/// What became of a count in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Decided(Decision),
    /// Allowed without Redis, which is to be told of it later.
    Owed(Decision),
    /// A lease is needed first.
    Wanting,
}

impl Window {
    fn forget_before(&mut self, now: Instant) {
        while self.moments.front().is_some_and(|first| now.duration_since(*first) >= self.length) {
            self.moments.pop_front();
        }
    }

    /// How many more the window has room for.
    fn room(&mut self, limit: Limit, now: Instant) -> u32 {
        self.length = limit.window;
        self.forget_before(now);
        limit.count.saturating_sub(u32::try_from(self.moments.len()).unwrap_or(u32::MAX))
    }

    fn count(&mut self, limit: Limit, now: Instant) -> Decision {
        let room = self.room(limit, now);
        let allowed = room > 0;
        if allowed {
            self.moments.push_back(now);
        }
        let until = |moment: Option<&Instant>| {
            moment.map_or(Duration::ZERO, |moment| limit.window.saturating_sub(now.duration_since(*moment)))
        };
        let reset = until(self.moments.back());
        let retry = until(self.moments.front());
        Decision {
            allowed,
            limit: limit.count,
            remaining: room.saturating_sub(u32::from(allowed)),
            window_secs: limit.window.as_secs(),
            reset_secs: whole_secs(reset),
            retry_after_ms: if allowed { 0 } else { u64::try_from(retry.as_millis()).unwrap_or(u64::MAX).max(1) },
        }
    }

    /// Counts in a cluster: the window here and a permit are both needed. Without Redis the window is enough.
    fn count_shared(&mut self, limit: Limit, now: Instant, redis_answers: bool) -> Counted {
        if self.room(limit, now) == 0 {
            return Counted::Decided(self.count(limit, now));
        }
        let share = &mut self.shared.get_or_insert_with(|| Box::new(Shared::new(limit))).share;
        if share.take(now) {
            let left = share.left(now);
            let decision = self.count(limit, now);
            return Counted::Decided(Decision { remaining: decision.remaining.min(left), ..decision });
        }
        if !redis_answers {
            let is_new = share.owe(now);
            let decision = self.count(limit, now);
            return if is_new { Counted::Owed(decision) } else { Counted::Decided(decision) };
        }
        let Some(refused) = share.refused(now) else {
            return Counted::Wanting;
        };
        let retry = refused.retry_at.saturating_duration_since(now);
        let reset = refused.reset_at.saturating_duration_since(now).min(limit.window);
        Counted::Decided(Decision {
            allowed: false,
            limit: limit.count,
            remaining: 0,
            window_secs: limit.window.as_secs(),
            reset_secs: whole_secs(reset),
            retry_after_ms: u64::try_from(retry.as_millis()).unwrap_or(u64::MAX).max(1),
        })
    }

    /// How many permits to fetch: twice what was used just now, so that little is gone with a node that is killed.
    fn portion(&mut self, limit: Limit, now: Instant) -> u32 {
        let room = self.room(limit, now);
        let is_recent = |moment: &&Instant| now.saturating_duration_since(**moment) < lease::VALIDITY;
        let recent = self.moments.iter().rev().take_while(is_recent).count();
        let waiting = self.shared.as_ref().map_or(0, |shared| shared.waiting.len());
        let wanted = u32::try_from((recent * 2).max(waiting).max(1)).unwrap_or(u32::MAX);
        wanted.min((limit.count / 4).max(1)).min(room)
    }

    /// What to ask of Redis; `is_wanting`: for a portion too.
    fn ask(&mut self, is_wanting: bool, now: Instant) -> Option<Ask> {
        let limit = self.shared.as_ref()?.limit;
        let portion = if is_wanting { self.portion(limit, now) } else { 0 };
        self.shared.as_mut()?.share.ask(portion, limit, now)
    }

    /// Takes the newest count back. `true`: Redis is to be told.
    fn refund(&mut self) -> bool {
        let is_counted = self.moments.pop_back().is_some();
        is_counted && self.shared.as_mut().is_some_and(|shared| shared.share.refund())
    }

    /// Forgets what counts no more. `true`: nothing is left.
    fn forget(&mut self, now: Instant) -> bool {
        self.forget_before(now);
        let is_idle = self.shared.as_mut().is_none_or(|shared| {
            let limit = shared.limit;
            shared.share.forget(limit, now) && shared.waiting.is_empty() && !shared.is_queued && !shared.is_asking
        });
        self.moments.is_empty() && is_idle
    }
}

fn whole_secs(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

impl RateLimit {
    /// Counts for one who asks now; `None`: he has to wait for a lease.
    fn decide(&mut self, subject: Subject, limit: Limit, redis_answers: bool) -> Option<Decision> {
        let now = Instant::now();
        let window = self.windows.entry(subject).or_default();
        let Some(cluster) = &mut self.cluster else {
            return Some(window.count(limit, now));
        };
        match window.count_shared(limit, now, redis_answers) {
            Counted::Decided(decision) => Some(decision),
            Counted::Owed(decision) => {
                cluster.tell_later(subject, now);
                Some(decision)
            }
            Counted::Wanting => None,
        }
    }

    /// Decides for those who wait, in order, as far as it goes now.
    fn serve(&mut self, subject: Subject, redis_answers: bool) {
        loop {
            let Some(shared) = self.windows.get_mut(&subject).and_then(|window| window.shared.as_mut()) else {
                return;
            };
            if shared.waiting.is_empty() {
                return;
            }
            let limit = shared.limit;
            let decision = self.decide(subject, limit, redis_answers);
            let Some(shared) = self.windows.get_mut(&subject).and_then(|window| window.shared.as_mut()) else {
                return;
            };
            match (decision, &mut self.cluster) {
                (Some(decision), _) => {
                    if let Some(reply) = shared.waiting.pop_front() {
                        // Who asked may have gone away; its request still counts.
                        let _ = reply.send(decision);
                    }
                }
                (None, Some(cluster)) => return cluster.enqueue(subject, shared),
                (None, None) => return,
            }
        }
    }

    /// Asks Redis for what the queue holds, unless it is being asked.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| !cluster.busy) else {
            return;
        };
        if cluster.queue.is_empty() {
            for settled in cluster.settling.drain(..) {
                // Who drains may have lost patience.
                let _ = settled.send(());
            }
            return;
        }
        let mut asks = Vec::new();
        for subject in cluster.queue.drain(..cluster.queue.len().min(AT_ONCE)) {
            let Some(window) = self.windows.get_mut(&subject) else {
                continue;
            };
            let is_wanting = window.shared.as_ref().is_some_and(|shared| !shared.waiting.is_empty());
            let ask = window.ask(is_wanting, now);
            if let Some(shared) = &mut window.shared {
                shared.is_queued = false;
                if let Some(ask) = ask {
                    shared.is_asking = true;
                    asks.push((subject, shared.limit, ask));
                }
            }
        }
        if asks.is_empty() {
            return self.advance(ctx);
        }
        cluster.busy = true;
        let leases = cluster.leases.clone();
        let work = async move {
            let answers = leases.ask(&asks).await;
            (asks, answers)
        };
        ctx.spawn(work.into_actor(self).map(|(asks, answers), actor, ctx| {
            if let Some(cluster) = &mut actor.cluster {
                cluster.busy = false;
            }
            let mut answers = answers.map(Vec::into_iter);
            for (subject, _, ask) in asks {
                let answer = answers.as_mut().ok().and_then(Iterator::next);
                actor.answered(subject, &ask, answer);
            }
            actor.advance(ctx);
        }));
    }

    /// Redis has answered, or is away.
    fn answered(&mut self, subject: Subject, ask: &Ask, answer: Option<Answer>) {
        let now = Instant::now();
        let shared = self.windows.get_mut(&subject).and_then(|window| window.shared.as_mut());
        let (Some(shared), Some(cluster)) = (shared, &mut self.cluster) else {
            return;
        };
        shared.is_asking = false;
        match answer {
            Some(answer) => {
                if let Some(ends) = shared.share.answered(ask, answer, now) {
                    cluster.due.push_back((ends, subject));
                }
            }
            None => {
                shared.share.unanswered(ask);
                cluster.tell_later(subject, now);
            }
        }
        self.serve(subject, answer.is_some());
    }
}

impl Actor for RateLimit {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CAPACITY);
        ctx.run_interval(FORGET_EVERY, |actor, _| {
            let now = Instant::now();
            actor.windows.retain(|_, window| !window.forget(now));
        });
        if self.cluster.is_none() {
            return;
        }
        ctx.run_interval(ROUND, |actor, ctx| {
            let now = Instant::now();
            let Some(cluster) = &mut actor.cluster else {
                return;
            };
            while let Some((_, subject)) = cluster.due.pop_front_if(|(due, _)| *due <= now) {
                if let Some(shared) = actor.windows.get_mut(&subject).and_then(|window| window.shared.as_mut()) {
                    cluster.enqueue(subject, shared);
                }
            }
            actor.advance(ctx);
        });
    }
}

impl Handler<Count> for RateLimit {
    type Result = ();

    fn handle(&mut self, message: Count, ctx: &mut Self::Context) {
        let Count { subject, limit, reply } = message;
        let redis_answers = self.cluster.as_ref().is_some_and(|cluster| cluster.leases.answers());
        let waits = |window: &Window| window.shared.as_ref().is_some_and(|shared| !shared.waiting.is_empty());
        // Nobody overtakes those who wait.
        let must_wait = self.cluster.is_some() && self.windows.get(&subject).is_some_and(waits);
        if !must_wait && let Some(decision) = self.decide(subject, limit, redis_answers) {
            // Who asked may have gone away; its request still counts.
            let _ = reply.send(decision);
            return;
        }
        let shared = self.windows.get_mut(&subject).and_then(|window| window.shared.as_mut());
        if let (Some(shared), Some(cluster)) = (shared, &mut self.cluster)
            && shared.waiting.len() < MOST_WAITING
        {
            shared.waiting.push_back(reply);
            if !shared.is_asking {
                cluster.enqueue(subject, shared);
            }
            self.advance(ctx);
        }
        // Dropped, the reply is a refusal.
    }
}

impl Handler<Refund> for RateLimit {
    type Result = ();

    fn handle(&mut self, message: Refund, ctx: &mut Self::Context) {
        let Some(window) = self.windows.get_mut(&message.0) else {
            return;
        };
        if window.refund()
            && let (Some(shared), Some(cluster)) = (&mut window.shared, &mut self.cluster)
        {
            cluster.enqueue(message.0, shared);
            self.advance(ctx);
        }
    }
}

impl Handler<Settle> for RateLimit {
    type Result = ();

    fn handle(&mut self, settle: Settle, ctx: &mut Self::Context) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        for (subject, window) in &mut self.windows {
            if let Some(shared) = &mut window.shared {
                shared.share.close();
                cluster.enqueue(*subject, shared);
            }
        }
        cluster.settling.push(settle.0);
        self.advance(ctx);
    }
}

/// All shards, and the limits they hold.
#[derive(Debug)]
pub struct Limits {
    settings: LimitSettings,
    shards: Vec<Addr<RateLimit>>,
    hasher: RandomState,
}

impl Limits {
    /// Starts the shards on the calling arbiter. With leases the limits hold over all nodes of the cluster.
    #[must_use]
    pub fn start(settings: LimitSettings, leases: Option<Leases>, alarm: &Arc<Alarm>) -> Self {
        let cluster = |leases| Cluster {
            leases,
            queue: VecDeque::new(),
            due: VecDeque::new(),
            busy: false,
            settling: Vec::new(),
        };
        let shard = || RateLimit {
            windows: HashMap::new(),
            cluster: leases.clone().map(cluster),
            _life: Vital::new("rate limit", Arc::clone(alarm)),
        };
        let shards = (0..4).map(|_| shard().start()).collect();
        if let Some(leases) = leases.filter(|_| settings.enabled) {
            actix_rt::spawn(async move { leases.warm().await });
        }
        Self { settings, shards, hasher: RandomState::new() }
    }

    /// Whether anything is limited.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        self.settings.enabled
    }

    fn shard(&self, subject: Subject) -> Option<&Addr<RateLimit>> {
        let index = usize::try_from(self.hasher.hash_one(subject) % 4).unwrap_or(0);
        self.shards.get(index)
    }

    async fn count(&self, subject: Subject, limit: Limit) -> Decision {
        let free = Decision {
            allowed: true,
            limit: limit.count,
            remaining: limit.count,
            window_secs: limit.window.as_secs(),
            reset_secs: 0,
            retry_after_ms: 0,
        };
        if !self.settings.enabled {
            return free;
        }
        let Some(shard) = self.shard(subject) else {
            return free;
        };
        ask(shard, |reply| Count { subject, limit, reply }).await.unwrap_or(Decision {
            allowed: false,
            remaining: 0,
            retry_after_ms: 1000,
            ..free
        })
    }

    /// One message of a user.
    pub async fn message(&self, user: UserId) -> Decision {
        self.count(Subject::Messages(user), self.settings.messages).await
    }

    /// One REST request of a user.
    pub async fn request(&self, user: UserId) -> Decision {
        self.count(Subject::Requests(user), self.settings.requests).await
    }

    /// One new conversation of a user.
    pub async fn conversation(&self, user: UserId) -> Decision {
        self.count(Subject::Conversations(user), self.settings.conversations).await
    }

    /// One read mark of a user.
    pub async fn read_mark(&self, user: UserId) -> Decision {
        self.count(Subject::ReadMarks(user), self.settings.read_marks).await
    }

    /// How many users a user may notify an hour; none: no limit.
    #[must_use]
    pub fn notices_per_hour(&self) -> Option<u32> {
        self.settings.enabled.then_some(self.settings.notices_per_hour)
    }

    /// Gives back what this node has leased and not used, when it ends: others may use it at once.
    pub async fn settle(&self) {
        for shard in &self.shards {
            // What is not told counts for a minute and a little more.
            let _ = tokio::time::timeout(Duration::from_secs(1), ask(shard, Settle)).await;
        }
    }

    /// Takes the newest message of a user back, because it was a repeat.
    pub fn refund_message(&self, user: UserId) {
        let subject = Subject::Messages(user);
        if self.settings.enabled
            && let Some(shard) = self.shard(subject)
        {
            // A refund that does not arrive costs the user one message of a minute.
            let _ = tell(shard, Refund(subject));
        }
    }
}

#[cfg(test)]
mod death {
    use super::{Actor, Context, Handler, Limits, Message, RateLimit, Subject, UserId, tell};

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for RateLimit {
        type Result = ();

        #[allow(clippy::panic, reason = "what it is for")]
        fn handle(&mut self, _: Panic, _: &mut <Self as Actor>::Context) {
            let _: Option<Context<Self>> = None;
            panic!("on purpose");
        }
    }

    impl Limits {
        pub(crate) fn panic_for_test(&self, user: UserId) {
            if let Some(shard) = self.shard(Subject::Messages(user)) {
                let _ = tell(shard, Panic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides() {
        let limit = Limit { count: 2, window: Duration::from_secs(60) };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::default();
        assert!(window.count(limit, at(0)).allowed);
        let second = window.count(limit, at(30));
        assert_eq!((second.allowed, second.remaining), (true, 0));
        let third = window.count(limit, at(40));
        assert_eq!((third.allowed, third.retry_after_ms), (false, 20_000));
        assert!(window.count(limit, at(60)).allowed);
        assert!(!window.count(limit, at(89)).allowed);
        assert!(window.count(limit, at(90)).allowed);
    }
}
