//! The actor RateLimit: sliding windows of what was done in the last minute or hour, per key.
//!
//! *Owns:* a shard of the keys and their windows.
//! *When full:* refuses: a flood is what limits are for.
//! *On death:* the node ends in order; windows count from anew.

use crate::mailbox::{ask, tell};
use crate::tree::{Alarm, Vital};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use serde_json::json;
use sotto_protocol::{Problem, UserId};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Mailbox of one shard.
const CAPACITY: usize = 8192;
/// How often windows in which nothing is left are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Messages of a user.
    Messages(UserId),
    /// REST requests of a user.
    Requests(UserId),
    /// New conversations of a user.
    Conversations(UserId),
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
}

impl Default for LimitSettings {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            enabled: true,
            messages: Limit { count: 20, window: minute },
            requests: Limit { count: 100, window: minute },
            conversations: Limit { count: 20, window: Duration::from_secs(3600) },
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

/// One shard of the windows.
#[derive(Debug)]
pub struct RateLimit {
    windows: HashMap<Subject, Window>,
    _life: Vital,
}

#[derive(Debug, Default)]
struct Window {
    moments: VecDeque<Instant>,
    length: Duration,
}

impl Window {
    fn forget_before(&mut self, now: Instant) {
        while self.moments.front().is_some_and(|first| now.duration_since(*first) >= self.length) {
            self.moments.pop_front();
        }
    }

    fn count(&mut self, limit: Limit, now: Instant) -> Decision {
        self.length = limit.window;
        self.forget_before(now);
        let used = u32::try_from(self.moments.len()).unwrap_or(u32::MAX);
        let allowed = used < limit.count;
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
            remaining: limit.count.saturating_sub(used).saturating_sub(u32::from(allowed)),
            window_secs: limit.window.as_secs(),
            reset_secs: reset.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
            retry_after_ms: if allowed { 0 } else { u64::try_from(retry.as_millis()).unwrap_or(u64::MAX).max(1) },
        }
    }
}

impl Actor for RateLimit {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CAPACITY);
        ctx.run_interval(FORGET_EVERY, |actor, _| {
            let now = Instant::now();
            actor.windows.retain(|_, window| {
                window.forget_before(now);
                !window.moments.is_empty()
            });
        });
    }
}

impl Handler<Count> for RateLimit {
    type Result = ();

    fn handle(&mut self, message: Count, _: &mut Self::Context) {
        let window = self.windows.entry(message.subject).or_default();
        // Who asked may have gone away; its request still counts.
        let _ = message.reply.send(window.count(message.limit, Instant::now()));
    }
}

impl Handler<Refund> for RateLimit {
    type Result = ();

    fn handle(&mut self, message: Refund, _: &mut Self::Context) {
        if let Some(window) = self.windows.get_mut(&message.0) {
            window.moments.pop_back();
        }
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
    /// Starts the shards on the calling arbiter.
    #[must_use]
    pub fn start(settings: LimitSettings, alarm: &Arc<Alarm>) -> Self {
        let shard = || RateLimit { windows: HashMap::new(), _life: Vital::new("rate limit", Arc::clone(alarm)) };
        Self { settings, shards: (0..4).map(|_| shard().start()).collect(), hasher: RandomState::new() }
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
