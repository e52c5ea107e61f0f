//! `sotto load`: traffic on a running server, measured, with a ledger that fails the run when a promise was broken.
//!
//! - A [`Plan`] is a run in settings, as flags or as TOML; [`Plan::run`] makes a [`Summary`] of it.
//! - `scenario/` has a file per scenario: whom it needs, what a generator thread does, which figures it comes to.
//! - A `worker` is a generator thread. It owns whole conversations: devices, connections, ledger.
//! - A `wire` is how a kind of server is spoken to.
//! - The conductor starts threads, watches processes, adds up and judges.

mod alarm;
pub mod capacity;
pub mod compare;
mod conductor;
mod device;
mod files;
mod gate;
mod ledger;
mod link;
mod machine;
mod measured;
mod name;
mod number;
mod plan;
mod process;
mod repeat;
pub mod report;
mod scenario;
pub mod settings;
mod slice;
mod summary;
pub mod text;
mod thread_time;
mod users;
mod view;
mod wire;
mod worker;

pub use gate::Stop;
pub use plan::{Plan, Scenario};
pub use scenario::Long;
pub use summary::{
    Better, Figure, Generator, LatencyFigures, LedgerCounts, Machine, Moment, ProcessFigures, Step, Summary, Target,
    VERSION, Verdict,
};
pub use view::{Stage, View};

/// Why nothing could be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The settings cannot be followed.
    #[error("{0}")]
    Settings(String),
    /// There are no users, or not those that the scenario needs; and the command that makes them.
    #[error("{0}")]
    Users(String, String),
    /// The server does not take connections.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// This machine does not do what is needed.
    #[error("{0}")]
    System(String),
}
