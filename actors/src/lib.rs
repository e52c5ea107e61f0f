//! Everything that has a mailbox, and what joins mailboxes.
//!
//! [`admission`] says which connections are taken. [`device`] is a socket, [`session`] a user's devices here, [`conversation`] a log's guard, [`journal`] its
//! pen, [`rate_limit`] the windows, [`sweep`] the truth that needs no message. [`node`] holds them together.

pub mod admission;
pub mod bus;
pub mod cluster;
pub mod conversation;
pub mod device;
pub mod directory;
pub mod echo;
pub mod identity;
pub mod journal;
pub mod mailbox;
pub mod node;
pub mod pressure;
pub mod rate_limit;
pub mod redis;
pub mod registry;
mod render;
pub mod reply;
mod room;
pub mod session;
pub mod socket;
pub mod socket_driver;
pub mod sweep;
pub mod sync;
pub mod threads;
pub mod tree;
pub mod window;

pub use identity::{Caller, Identity};
pub use node::{Node, NodeSettings};
