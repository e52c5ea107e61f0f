//! Which bugs are planted, what brings each to light, and which of the ten counts must tell.

use sotto_harness::{Mix, Promise};
use std::time::Duration;

/// Where the bug lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// One node on SQLite.
    Sqlite,
    /// One node on PostgreSQL.
    Postgres,
    /// Two nodes on PostgreSQL that meet there only.
    Two,
}

/// What happens to it under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing but the load, for so many seconds.
    None(u64),
    /// kill -9 and a new start, so many times.
    Kill(u32),
    /// Some transactions sleep between their last statement and their commit, for longer than a sweep.
    SlowCommits,
    /// A device is signed out.
    SignOut,
    /// So many members are taken out of their groups while they send.
    Removals(u32),
    /// The index that refuses a known id a second time is gone.
    NoIndex,
}

pub struct Case {
    pub bug: &'static str,
    /// None: it is harmless, and a run with it is clean.
    pub promise: Option<Promise>,
    pub world: World,
    pub fault: Fault,
    /// Users, and members of a group; 2: direct conversations.
    pub users: (u32, u32),
    /// Messages per second; 0: as fast as it goes.
    pub rate: f64,
    pub mix: fn() -> Mix,
}

/// Lives of a second or less, most of them cut.
fn restless() -> Mix {
    Mix { shortest: Duration::from_millis(100), longest: Duration::from_millis(900), cut: 90, ..Mix::default() }
}

/// Sockets that stay.
fn steady() -> Mix {
    let (shortest, longest) = (Duration::from_secs(60), Duration::from_secs(90));
    Mix { socket: 1, rest: 0, away: 0, shortest, longest, claims: false, ..Mix::default() }
}

/// Sockets whose owners are impatient.
fn hasty() -> Mix {
    Mix { socket: 1, rest: 0, away: 0, hasty: 60, claims: false, ..restless() }
}

/// As many by REST as by socket.
fn by_both_ways() -> Mix {
    Mix { socket: 3, rest: 3, away: 0, ..restless() }
}

pub const CASES: &[Case] = &[
    Case {
        bug: "answer_before_commit",
        promise: Some(Promise::Lost),
        world: World::Sqlite,
        fault: Fault::Kill(4),
        users: (12, 2),
        rate: 0.0,
        mix: Mix::default,
    },
    Case {
        bug: "payload_before_backlog",
        promise: Some(Promise::Lost),
        world: World::Sqlite,
        fault: Fault::None(4),
        users: (12, 4),
        rate: 300.0,
        mix: restless,
    },
    Case {
        bug: "sync_from_socket",
        promise: Some(Promise::Lost),
        world: World::Sqlite,
        fault: Fault::None(4),
        users: (12, 4),
        rate: 150.0,
        mix: by_both_ways,
    },
    Case {
        bug: "slow_registration",
        promise: None,
        world: World::Sqlite,
        fault: Fault::None(4),
        users: (12, 4),
        rate: 50.0,
        mix: hasty,
    },
    Case {
        bug: "unfenced_registration",
        promise: Some(Promise::Altered),
        world: World::Sqlite,
        fault: Fault::None(4),
        users: (12, 4),
        rate: 50.0,
        mix: hasty,
    },
    Case {
        bug: "sweep_by_serial_id",
        promise: Some(Promise::Lost),
        world: World::Two,
        fault: Fault::SlowCommits,
        users: (48, 2),
        rate: 60.0,
        mix: steady,
    },
    Case {
        bug: "known_after_membership",
        promise: Some(Promise::Altered),
        world: World::Postgres,
        fault: Fault::Removals(16),
        users: (32, 4),
        rate: 400.0,
        mix: restless,
    },
    Case {
        bug: "version_after_numbering",
        promise: Some(Promise::Gap),
        world: World::Two,
        fault: Fault::Removals(8),
        users: (24, 4),
        rate: 0.0,
        mix: Mix::default,
    },
    Case {
        bug: "no_dedupe",
        promise: Some(Promise::StoredTwice),
        world: World::Postgres,
        fault: Fault::NoIndex,
        users: (12, 4),
        rate: 150.0,
        mix: restless,
    },
    Case {
        bug: "cursor_ahead",
        promise: Some(Promise::Lost),
        world: World::Sqlite,
        fault: Fault::None(3),
        users: (12, 4),
        rate: 100.0,
        mix: restless,
    },
    Case {
        bug: "cursor_behind",
        promise: Some(Promise::DeliveredTwice),
        world: World::Sqlite,
        fault: Fault::None(3),
        users: (12, 4),
        rate: 100.0,
        mix: restless,
    },
    Case {
        bug: "claim_by_select",
        promise: Some(Promise::KeyTwice),
        world: World::Two,
        fault: Fault::None(6),
        users: (12, 4),
        rate: 20.0,
        mix: Mix::default,
    },
    Case {
        bug: "marks_told_before_commit",
        promise: Some(Promise::DeliveredTwice),
        world: World::Sqlite,
        fault: Fault::Kill(12),
        users: (12, 4),
        rate: 200.0,
        mix: Mix::default,
    },
    Case {
        bug: "no_wakes",
        promise: Some(Promise::Lost),
        world: World::Two,
        fault: Fault::None(3),
        users: (12, 4),
        rate: 60.0,
        mix: steady,
    },
    Case {
        bug: "deaf_to_sign_out",
        promise: Some(Promise::SessionAlive),
        world: World::Sqlite,
        fault: Fault::SignOut,
        users: (12, 4),
        rate: 50.0,
        mix: Mix::default,
    },
    Case {
        bug: "overtaken_aside",
        promise: Some(Promise::Reordered),
        world: World::Two,
        fault: Fault::None(5),
        users: (8, 4),
        rate: 0.0,
        mix: steady,
    },
    Case {
        bug: "two_ways",
        promise: Some(Promise::Reordered),
        world: World::Postgres,
        fault: Fault::None(5),
        users: (8, 4),
        rate: 0.0,
        mix: steady,
    },
];
