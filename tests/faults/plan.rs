//! What is to happen, in which order: a function of the seed and of how much is wanted.

use crate::support::fault::Way;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Choices that can be repeated (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From `low` up to but not including `high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.within(0, from.len() as u64);
        &from[index as usize]
    }

    pub fn shuffle<T>(&mut self, cards: &mut [T]) {
        for last in (1..cards.len()).rev() {
            let other = self.within(0, last as u64 + 1) as usize;
            cards.swap(last, other);
        }
    }
}

/// What the faults of a leg befall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scene {
    /// Three nodes on PostgreSQL with one Redis.
    Cluster,
    /// Three nodes on PostgreSQL with a Redis that sentinels watch.
    Sentinels,
    /// One node on SQLite.
    Solo,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal $scene:ident $weight:literal;)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $kind,)+
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            pub const fn scene(self) -> Scene {
                match self { $(Self::$kind => Scene::$scene,)+ }
            }

            /// How often it is in the deck that is dealt.
            const fn weight(self) -> usize {
                match self { $(Self::$kind => $weight,)+ }
            }
        }
    };
}

kinds! {
    /// kill -9 of a node, and its restart.
    NodeKill "node-kill" Cluster 3;
    /// Ten times kill -9 of a node and its restart at once, under as much load as is answered.
    NodeKills "node-kills" Cluster 1;
    /// SIGSTOP of a node for 20 s, and its return.
    NodeStop "node-stop" Cluster 1;
    /// SIGTERM of a node, which must exit 0, and its restart.
    NodeDrain "node-drain" Cluster 1;
    /// Every node in turn: SIGTERM, restart.
    NodesRolling "nodes-rolling" Cluster 1;
    /// The clock of a node jumps, and jumps back.
    NodeClock "node-clock" Cluster 1;
    /// What a node answers is lost on its way to the clients.
    NodeEaten "node-eaten" Cluster 1;
    /// kill -9 of all processes of PostgreSQL, and its restart.
    PostgresKill "postgres-kill" Cluster 2;
    /// SIGSTOP of all processes of PostgreSQL.
    PostgresStop "postgres-stop" Cluster 1;
    /// The disk under PostgreSQL is full.
    PostgresFull "postgres-full" Cluster 1;
    /// Nothing passes between a node and PostgreSQL.
    PostgresCut "postgres-cut" Cluster 1;
    /// kill -9 of Redis, and its restart, empty.
    RedisKill "redis-kill" Cluster 1;
    /// SIGSTOP of Redis.
    RedisStop "redis-stop" Cluster 1;
    /// FLUSHALL.
    RedisFlush "redis-flush" Cluster 1;
    /// Nothing passes between a node and Redis.
    RedisCut "redis-cut" Cluster 1;
    /// kill -9 of the primary that sentinels watch; the replica takes over, the old primary returns.
    RedisFailover "redis-failover" Sentinels 2;
    /// kill -9 of the only node, on SQLite, and its restart.
    SoloKill "sqlite-kill" Solo 3;
    /// Ten times kill -9 of the only node and its restart at once, under as much load as is answered.
    SoloKills "sqlite-kills" Solo 1;
    /// SIGSTOP of the only node.
    SoloStop "sqlite-stop" Solo 1;
    /// SIGTERM of the only node, which must exit 0, and its restart.
    SoloDrain "sqlite-drain" Solo 1;
    /// The clock of the only node jumps, and jumps back.
    SoloClock "sqlite-clock" Solo 1;
    /// What the only node answers is lost on its way to the clients.
    SoloEaten "sqlite-eaten" Solo 1;
    /// The disk under SQLite is full.
    SoloFull "sqlite-full" Solo 1;
}

/// Nodes of a cluster.
pub const NODES: usize = 3;

/// The node whose answers reach clients through a wire that can be held.
pub const BEHIND: usize = 1;

/// How many kills are a series.
pub const SERIES: u64 = 10;

/// One fault with all its choices.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// Which node it befalls, where it befalls one.
    pub node: usize,
    /// How long it lasts.
    pub lasts: Duration,
    /// By how many seconds a clock jumps.
    pub jump: i64,
    pub way: Way,
    /// How long nothing happens before the next one.
    pub calm: Duration,
}

impl Fault {
    fn draw(kind: Kind, dice: &mut Dice) -> Self {
        let lasts = match kind {
            Kind::NodeStop | Kind::SoloStop => 20_000,
            // Between two kills, on average.
            Kind::NodeKills | Kind::SoloKills => dice.within(100, 600),
            // A restart at once, and one after everybody has noticed.
            Kind::NodeKill | Kind::SoloKill | Kind::PostgresKill | Kind::RedisKill => dice.within(0, 4_000),
            Kind::NodeClock | Kind::SoloClock => dice.within(4_000, 8_000),
            Kind::RedisCut | Kind::PostgresCut => dice.within(2_000, 9_000),
            Kind::RedisStop | Kind::PostgresStop => dice.within(1_000, 9_000),
            _ => dice.within(1_000, 4_000),
        };
        let size = *dice.pick(&[90, 420, 1_260, 3_600, 3 * 3_600, 9 * 3_600]);
        let jump = if dice.within(0, 2) == 0 { size } else { -size };
        Self {
            kind,
            node: match kind {
                _ if kind.scene() == Scene::Solo => 0,
                // The last one goes by a clock that can be set.
                Kind::NodeClock => NODES - 1,
                // One is behind the wire that can be held.
                Kind::NodeEaten => BEHIND,
                _ => dice.within(0, NODES as u64) as usize,
            },
            lasts: Duration::from_millis(lasts),
            jump,
            way: *dice.pick(&[Way::Both, Way::Both, Way::Out, Way::In]),
            calm: Duration::from_millis(dice.within(500, 2_500)),
        }
    }

    /// The fault in words.
    pub fn text(&self) -> String {
        let seconds = self.lasts.as_secs_f64();
        match self.kind {
            Kind::NodeClock | Kind::SoloClock => {
                format!("{} by {:+} s for {seconds:.1} s", self.kind.name(), self.jump)
            }
            Kind::RedisCut | Kind::PostgresCut => {
                format!("{} of node {} ({:?}) for {seconds:.1} s", self.kind.name(), self.node, self.way)
            }
            kind if kind.name().starts_with("node-") => {
                format!("{} of node {} for {seconds:.1} s", kind.name(), self.node)
            }
            Kind::NodesRolling | Kind::RedisFlush => self.kind.name().to_owned(),
            kind => format!("{} for {seconds:.1} s", kind.name()),
        }
    }
}

/// Faults that befall the same running servers under one load, whose ledger is closed at the end.
pub struct Leg {
    pub number: usize,
    pub scene: Scene,
    pub seed: u64,
    pub faults: Vec<Fault>,
}

/// At most so many faults before a ledger is closed.
const LONGEST_LEG: usize = 10;

/// Deals so many faults of these kinds, each kind as often as any other of its weight.
pub fn plan(count: usize, seed: u64, kinds: &[Kind]) -> Vec<Leg> {
    let mut dice = Dice(seed);
    let mut cards = Vec::new();
    while cards.len() < count {
        let mut deck: Vec<Kind> = kinds.iter().flat_map(|kind| vec![*kind; kind.weight()]).collect();
        dice.shuffle(&mut deck);
        // Every kind comes before any comes twice.
        let (first, second): (Vec<_>, Vec<_>) =
            deck.iter().enumerate().partition(|(index, kind)| !deck[..*index].contains(kind));
        cards.extend(first.into_iter().chain(second).map(|(_, kind)| *kind));
    }
    cards.truncate(count);
    let mut legs = Vec::new();
    for scene in [Scene::Cluster, Scene::Sentinels, Scene::Solo] {
        let kinds: Vec<Kind> = cards.iter().copied().filter(|kind| kind.scene() == scene).collect();
        for kinds in kinds.chunks(LONGEST_LEG) {
            let faults = kinds.iter().map(|kind| Fault::draw(*kind, &mut dice)).collect();
            legs.push(Leg { number: 0, scene, seed: dice.roll(), faults });
        }
    }
    // The rare scenes stand among the others: whoever stops early has seen all.
    dice.shuffle(&mut legs);
    for (number, leg) in legs.iter_mut().enumerate() {
        leg.number = number;
    }
    legs
}
