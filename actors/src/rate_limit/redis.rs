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
            Subject::ReadMarks(user) => ("read_marks", user),
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

#[cfg(test)]
mod tests {
    use super::super::{Counted, Decision, Window};
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{TestCaseError, TestRunner};
    use redis::{Client, Connection};
    use sotto_protocol::UserId;
    use std::cell::{Cell, RefCell};
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    /// A redis-server of the test's own.
    struct Server {
        child: Child,
        port: u16,
    }

    impl Server {
        fn start() -> Self {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            Self { child: child.expect("redis-server is on the PATH (scripts/redis installs it)"), port }
        }

        fn connect(&self) -> Connection {
            let client = Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
            let begun = Instant::now();
            loop {
                match client.get_connection() {
                    Ok(connection) => return connection,
                    Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
                }
                std::thread::yield_now();
            }
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// A call on its way; with an answer once the script has run.
    struct Flight(Ask, Option<Answer>);

    struct Node {
        window: Window,
        flight: Option<Flight>,
        waiting: usize,
        /// Each node's clock began at another moment.
        born: Instant,
        /// When it allowed something in this life, in microseconds.
        allowed: Vec<u64>,
        /// The same of its earlier lives.
        earlier: Vec<u64>,
    }

    /// Nodes with one user's limit, on one Redis, and time that passes when the test says so.
    struct World<'a> {
        connection: &'a mut Connection,
        subject: Subject,
        limit: Limit,
        now: u64,
        nodes: Vec<Node>,
        /// Calls whose node has given them up, and which may still arrive.
        late: Vec<Ask>,
    }

    impl<'a> World<'a> {
        fn new(connection: &'a mut Connection, nodes: usize, limit: Limit) -> Self {
            let node = |index: u64| Node {
                window: Window::default(),
                flight: None,
                waiting: 0,
                born: Instant::now() + Duration::from_secs(1000 * index),
                allowed: Vec::new(),
                earlier: Vec::new(),
            };
            let nodes = (0..nodes).map(|index| node(u64::try_from(index).unwrap())).collect();
            let subject = Subject::Messages(UserId::random());
            Self { connection, subject, limit, now: 0, nodes, late: Vec::new() }
        }

        fn time(&self, node: usize) -> Instant {
            self.nodes[node].born + Duration::from_micros(self.now)
        }

        fn run_script(&mut self, ask: &Ask) -> Answer {
            let time = 1_700_000_000_000 + self.now / 1000;
            let asks = [(self.subject, self.limit, ask.clone())];
            let rows: Vec<Row> = invocation("test:", &asks, Some(time)).invoke(self.connection).unwrap();
            read(rows[0])
        }

        /// `None`: it waits.
        fn count(&mut self, node: usize, redis_answers: bool) -> Option<Decision> {
            let (now, limit) = (self.time(node), self.limit);
            match self.nodes[node].window.count_shared(limit, now, redis_answers) {
                Counted::Decided(decision) | Counted::Owed(decision) => {
                    if decision.allowed {
                        self.nodes[node].allowed.push(self.now);
                    }
                    Some(decision)
                }
                Counted::Wanting => {
                    self.nodes[node].waiting += 1;
                    self.take_off(node, true);
                    None
                }
            }
        }

        fn take_off(&mut self, node: usize, is_wanting: bool) {
            let now = self.time(node);
            let node = &mut self.nodes[node];
            if node.flight.is_none() {
                node.flight = node.window.ask(is_wanting, now).map(|ask| Flight(ask, None));
            }
        }

        fn arrive(&mut self, node: usize) {
            if let Some(Flight(ask, None)) = self.nodes[node].flight.take_if(|flight| flight.1.is_none()) {
                let answer = self.run_script(&ask);
                self.nodes[node].flight = Some(Flight(ask, Some(answer)));
            }
        }

        fn answer(&mut self, node: usize) {
            let now = self.time(node);
            if let Some(Flight(ask, Some(answer))) = self.nodes[node].flight.take_if(|flight| flight.1.is_some()) {
                self.nodes[node].window.shared.as_mut().unwrap().share.answered(&ask, answer, now);
                for _ in 0..std::mem::take(&mut self.nodes[node].waiting) {
                    self.count(node, true);
                }
            }
        }

        fn give_up(&mut self, node: usize) -> Option<Ask> {
            // Those who waited have gone away.
            self.nodes[node].waiting = 0;
            let Flight(ask, answer) = self.nodes[node].flight.take()?;
            if answer.is_none() {
                self.late.push(ask.clone());
            }
            Some(ask)
        }

        /// Asks, and waits for the answer.
        fn insist(&mut self, node: usize) -> Decision {
            loop {
                if let Some(decision) = self.count(node, true) {
                    return decision;
                }
                self.nodes[node].waiting = 0;
                self.arrive(node);
                self.answer(node);
            }
        }

        fn step(&mut self, step: &Step, redis_answers: bool) {
            match *step {
                Step::Pass(micros) => self.now += micros,
                Step::Count(node) => drop(self.count(node % self.nodes.len(), redis_answers)),
                Step::Arrive(node) => self.arrive(node % self.nodes.len()),
                Step::Answer(node) => self.answer(node % self.nodes.len()),
                Step::Round(node) => self.take_off(node % self.nodes.len(), false),
                Step::Lose(node) => {
                    let node = node % self.nodes.len();
                    if let Some(ask) = self.give_up(node) {
                        self.nodes[node].window.shared.as_mut().unwrap().share.unanswered(&ask);
                    }
                }
                Step::Die(node) => {
                    let node = node % self.nodes.len();
                    self.give_up(node);
                    let node = &mut self.nodes[node];
                    node.window = Window::default();
                    node.earlier.append(&mut node.allowed);
                }
                Step::Refund(node) => {
                    let node = node % self.nodes.len();
                    if !self.nodes[node].window.moments.is_empty() {
                        self.nodes[node].window.refund();
                        self.nodes[node].allowed.pop();
                    }
                }
                Step::Late => {
                    if let Some(ask) = self.late.pop() {
                        self.run_script(&ask);
                    }
                }
            }
        }

        /// All moments at which something was allowed.
        fn all(&self) -> impl Iterator<Item = u64> {
            self.nodes.iter().flat_map(|node| node.allowed.iter().chain(&node.earlier).copied())
        }

        /// The most that any window of the limit's length holds.
        fn fullest(&self, moments: impl Iterator<Item = u64>) -> usize {
            let length = u64::try_from(self.limit.window.as_micros()).unwrap();
            let mut moments: Vec<u64> = moments.collect();
            moments.sort_unstable();
            let inside = |end: &u64| moments.iter().filter(|moment| *moment <= end && **moment + length > *end).count();
            moments.iter().map(inside).max().unwrap_or(0)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Count(usize),
        Arrive(usize),
        Answer(usize),
        Round(usize),
        Lose(usize),
        Die(usize),
        Refund(usize),
        Late,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let node = 0..4_usize;
        let step = prop_oneof![
            2 => (0..400_000_u64).prop_map(Step::Pass),
            1 => (0..2_000_000_u64).prop_map(Step::Pass),
            12 => node.clone().prop_map(Step::Count),
            6 => node.clone().prop_map(Step::Arrive),
            6 => node.clone().prop_map(Step::Answer),
            2 => node.clone().prop_map(Step::Round),
            1 => node.clone().prop_map(Step::Lose),
            1 => node.clone().prop_map(Step::Refund),
            1 => Just(Step::Late),
        ];
        // A node that dies forgets its window: rare, or no window is ever full.
        let step = prop_oneof![60 => step, 1 => node.prop_map(Step::Die)];
        prop::collection::vec(step, 50..500)
    }

    /// Runs the steps in many worlds, and says in how many of them the limit was reached.
    fn explore(redis_answers: &[bool], holds: impl Fn(&World<'_>) -> Result<(), TestCaseError>) -> u32 {
        let server = Server::start();
        let connection = RefCell::new(server.connect());
        let full = Cell::new(0);
        let config = ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() };
        let worlds = (1..16_u32, 1..60_u64, 1..4_usize, steps(), steps());
        let result = TestRunner::new(config).run(&worlds, |(count, secs, nodes, first, second)| {
            let limit = Limit { count, window: Duration::from_secs(secs) };
            let mut connection = connection.borrow_mut();
            let mut world = World::new(&mut connection, nodes, limit);
            for (steps, redis_answers) in [first, second].iter().zip(redis_answers) {
                for step in steps {
                    world.step(step, *redis_answers);
                }
            }
            full.set(full.get() + u32::from(world.fullest(world.all()) >= usize::try_from(count).unwrap()));
            holds(&world)
        });
        result.unwrap();
        full.get()
    }

    #[test]
    fn no_window_holds_more_than_the_limit_over_all_nodes() {
        let full = explore(&[true, true], |world| {
            let (fullest, limit) = (world.fullest(world.all()), world.limit);
            prop_assert!(fullest <= usize::try_from(limit.count).unwrap(), "{fullest} with {limit:?}");
            Ok(())
        });
        assert!(full > 25, "the limit was hardly ever reached: {full}");
    }

    #[test]
    fn without_redis_each_node_holds_the_limit_alone() {
        explore(&[false, true], |world| {
            for node in &world.nodes {
                let fullest = world.fullest(node.allowed.iter().copied());
                prop_assert!(fullest <= usize::try_from(world.limit.count).unwrap(), "{fullest}");
            }
            Ok(())
        });
    }

    #[test]
    fn the_whole_limit_can_be_used_by_one_node_and_by_several() {
        let server = Server::start();
        let mut connection = server.connect();
        for count in [1, 2, 3, 7, 20, 100] {
            let limit = Limit { count, window: Duration::from_secs(60) };
            let mut world = World::new(&mut connection, 3, limit);
            // One alone: all of it at once, and again a window later.
            for _ in 0..2 {
                for left in (0..count).rev() {
                    let decision = world.insist(0);
                    assert_eq!((decision.allowed, decision.remaining), (true, left), "{count}");
                }
                assert!(!world.insist(0).allowed);
                let elsewhere = world.insist(1);
                assert!(!elsewhere.allowed && elsewhere.remaining == 0);
                // The others may give back soon what they have not used.
                assert!((1..=5001).contains(&elsewhere.retry_after_ms), "{elsewhere:?}");
                world.now += 65_002_000;
            }
            // Three, of whom one keeps his portion to himself until it lapses.
            assert!(world.insist(2).allowed);
            world.now += 1_000_000;
            let (mut allowed, mut refused) = (1, 0);
            while refused < 12 {
                let node = usize::from(allowed % 2 == 0);
                if world.insist(node).allowed {
                    allowed += 1;
                } else {
                    refused += 1;
                    world.now += 1_000_000;
                    for node in 0..3 {
                        world.take_off(node, false);
                        world.arrive(node);
                        world.answer(node);
                    }
                }
            }
            assert_eq!(allowed, count);
        }
    }

    #[test]
    fn what_was_allowed_without_redis_counts_when_it_is_back() {
        let server = Server::start();
        let mut connection = server.connect();
        let limit = Limit { count: 20, window: Duration::from_secs(60) };
        let mut world = World::new(&mut connection, 2, limit);
        for _ in 0..15 {
            assert!(world.count(0, false).unwrap().allowed);
        }
        world.take_off(0, false);
        world.arrive(0);
        world.answer(0);
        let elsewhere = (0..20).filter(|_| world.insist(1).allowed).count();
        assert_eq!(elsewhere, 5);
        // What turns out to be a repeat is free again, for everybody.
        world.nodes[0].window.refund();
        world.take_off(0, false);
        world.arrive(0);
        world.answer(0);
        world.now += 1_100_000;
        assert!(world.insist(1).allowed);
        assert!(!world.insist(1).allowed);
    }

    #[test]
    fn a_node_that_slept_uses_nothing_that_has_lapsed() {
        let server = Server::start();
        let mut connection = server.connect();
        let limit = Limit { count: 20, window: Duration::from_secs(60) };
        let mut world = World::new(&mut connection, 2, limit);
        assert!(world.insist(0).allowed);
        // Four permits are at hand; Redis forgets them while the node sleeps, and gives all to another.
        world.now = 65_002_000;
        assert_eq!((0..25).filter(|_| world.insist(1).allowed).count(), 20);
        assert_eq!(world.count(0, true), None);
        assert!(!world.insist(0).allowed);
    }

    #[test]
    fn a_clock_that_is_put_back_locks_nobody_out() {
        let server = Server::start();
        let mut connection = server.connect();
        let limit = Limit { count: 4, window: Duration::from_secs(10) };
        let mut world = World::new(&mut connection, 1, limit);
        let ask = |at| Ask { id: uuid::Uuid::new_v4(), portion: 4, told: Vec::new(), at };
        let at = world.time(0);
        world.now = 3_600_000_000;
        assert_eq!(world.run_script(&ask(at)).granted, 4);
        world.now = 0;
        assert_eq!(world.run_script(&ask(at)).granted, 0);
        world.now = 15_001_000;
        assert_eq!(world.run_script(&ask(at)).granted, 4);
    }
}
