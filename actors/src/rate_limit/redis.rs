//! Limits over the cluster: the script that grants leases, and the way to it.
//!
//! A subject is a hash with a field per lease: `permits:until:out`, the second in milliseconds of Redis' clock, the
//! third 1 as long as the node may be using it. Many subjects go in one call.

use super::lease::{Answer, Ask, VALIDITY};
use super::{Limit, Subject};
use crate::redis::{Away, Redis};
use redis::{Script, ScriptInvocation};
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// For each key first what was used, then what counts, then the grant. A negative time means Redis' own.
///
/// An entry that would count for longer than a fresh one is from before the clock was put back.
static GRANT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local now, validity = tonumber(ARGV[1]), tonumber(ARGV[2])
        if now < 0 then
            local time = redis.call('TIME')
            now = time[1] * 1000 + math.floor(time[2] / 1000)
        end
        local at = 2
        local function word() at = at + 1 return ARGV[at] end
        local function number() return tonumber(word()) end
        local function entry(count, till, out) return string.format('%.0f:%.0f:%d', count, till, out) end
        local answers = {}
        for i, key in ipairs(KEYS) do
            local lease, portion, limit, window, told = word(), number(), number(), number(), number()
            for _ = 1, told do
                local id, used, age = word(), number(), number()
                if used > 0 and age <= window then
                    redis.call('HSET', key, id, entry(used, now - age + window, 0))
                else
                    redis.call('HDEL', key, id)
                end
            end
            local longest = now + validity + window
            local sum, free, last = 0, longest, now
            local fields = redis.call('HGETALL', key)
            for f = 1, #fields, 2 do
                local count, till, out = string.match(fields[f + 1], '^(%d+):(%d+):(%d)$')
                count, till = tonumber(count or 0), tonumber(till or -1)
                if till < now then
                    redis.call('HDEL', key, fields[f])
                else
                    if till > longest then
                        till = longest
                        redis.call('HSET', key, fields[f], entry(count, till, out))
                    end
                    sum = sum + count
                    last = math.max(last, till)
                    if out == '1' and till - window > now then
                        till = till - window
                    end
                    free = math.min(free, till)
                end
            end
            local granted = math.max(0, math.min(portion, limit - sum))
            if granted > 0 then
                redis.call('HSET', key, lease, entry(granted, longest, 1))
            end
            if sum + granted > 0 then
                redis.call('PEXPIRE', key, validity + window + 1)
            end
            answers[i] = { granted, math.max(0, limit - sum - granted), free - now + 1, last - now }
        end
        return answers",
    )
});

/// What the script says of one key: granted, left, and two times in milliseconds.
type Row = (u32, u32, u64, u64);

/// Where leases come from. Cheap to clone.
#[derive(Clone)]
pub struct Leases(Arc<Inner>);

struct Inner {
    redis: Redis,
    prefix: String,
}

impl fmt::Debug for Leases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Leases({})", self.0.prefix)
    }
}

impl Leases {
    /// Leases from this Redis; `namespace` keeps clusters on it apart.
    #[must_use]
    pub fn new(redis: Redis, namespace: &str) -> Self {
        Self(Arc::new(Inner { redis, prefix: format!("sotto:{namespace}:limit:") }))
    }

    /// Whether Redis has answered last time.
    pub(super) fn answers(&self) -> bool {
        self.0.redis.answers()
    }

    /// Brings the script to Redis, so that the first who asks does not wait for it.
    pub(super) async fn warm(&self) {
        // Whoever asks later finds out by himself.
        let _ = self.0.redis.run(async |connection| GRANT.load_async(connection).await).await;
    }

    /// Asks for all of them in one call.
    ///
    /// # Errors
    /// Redis is away; some or all may have been granted all the same.
    pub(super) async fn ask(&self, asks: &[(Subject, Limit, Ask)]) -> Result<Vec<Answer>, Away> {
        let call = invocation(&self.0.prefix, asks, None);
        let rows: Vec<Row> = self.0.redis.run(async |connection| call.invoke_async(connection).await).await?;
        Ok(rows.into_iter().map(read).collect())
    }
}

/// The call; `time` in milliseconds replaces Redis' clock.
fn invocation(prefix: &str, asks: &[(Subject, Limit, Ask)], time: Option<u64>) -> ScriptInvocation<'static> {
    let mut call = GRANT.prepare_invoke();
    call.arg(time.map_or_else(|| "-1".to_owned(), |time| time.to_string())).arg(millis(VALIDITY));
    for (subject, limit, ask) in asks {
        let (kind, user) = match subject {
            Subject::Messages(user) => ("messages", user),
            Subject::Requests(user) => ("requests", user),
            Subject::Conversations(user) => ("conversations", user),
        };
        call.key(format!("{prefix}{kind}:{user}"));
        call.arg(ask.id.as_simple().to_string()).arg(ask.portion).arg(limit.count).arg(millis(limit.window));
        call.arg(ask.told.len());
        for told in &ask.told {
            call.arg(told.id.as_simple().to_string()).arg(told.used).arg(millis(told.age));
        }
    }
    call
}

fn read((granted, left, retry, reset): Row) -> Answer {
    Answer { granted, left, retry: Duration::from_millis(retry), reset: Duration::from_millis(reset) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
