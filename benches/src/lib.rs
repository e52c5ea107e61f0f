//! Drives a running Sotto from outside, and keeps a ledger of what it promised.
//!
//! The package knows the contract and nothing of the server: it depends on the client library, which is the contract
//! in types, and sees only what a client sees. `sotto verify` and the fault campaign are its users.
//!
//! # The parts
//!
//! - [`Book`] is the ledger of one conversation: what was sent, answered, delivered, confirmed and read again, told note
//!   by note, and judged on the way. It does no I/O; made-up notes test it. [`KeyBook`] and [`SessionBook`] are the same
//!   for one-time keys and for sessions that were ended.
//! - [`Driver`] lives as many devices: by socket, by REST, away and back at another node, with cuts, late
//!   acknowledgements and duplicates. It writes into the books and counts what it felt.
//! - [`Report`] is what remains in the end.
//!
//! # Memory
//!
//! A message costs about 150 bytes in its book for as long as the run lasts (its id twice, its number, its sender, the
//! moment it was sent), and a quarter of a byte for each device that reads the conversation. Everything else is bound to
//! what is under way: a million messages between pairs are about 150 MiB.

mod account;
mod bits;
mod book;
mod claims;
mod content;
mod counters;
mod device;
mod dice;
mod driver;
mod findings;
mod keys;
mod ledger;
mod line;
pub mod load;
mod plan;
mod remove;
mod report;
mod requests;
mod revoke;
mod sessions;
mod settle;
mod targets;
mod times;
mod verify;

pub use account::{Account, read_accounts};
pub use book::{Body, Book, Entry, MarkOf, Note, check};
pub use counters::{Felt, Mark, View};
pub use driver::Driver;
pub use findings::{Findings, Promise};
pub use keys::{KeyBook, KeyNote, check_keys};
pub use plan::{Mix, Plan};
pub use report::{Figures, Report};
pub use revoke::Revocation;
pub use sessions::{Ending, SessionBook, SessionNote, check_sessions};
pub use verify::{Run, Stage};

/// Why nothing could be driven.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A line of the accounts' file is not what `sotto user seed` writes.
    #[error("line {line} of the accounts: {reason}")]
    Accounts {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An address is none.
    #[error("{url}: {reason}")]
    Address {
        /// As it was given.
        url: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The plan cannot be followed.
    #[error("{0}")]
    Plan(String),
    /// No address answers, or none knows the accounts.
    #[error("{0}")]
    NoServer(String),
}
