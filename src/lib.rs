//! Sotto, the node: HTTP and WebSocket, command line, configuration, start and stop.
//!
//! The server is a library, so that tests start as many nodes in one process as they like.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted bugs are for tests of the ledger: no release has them");

pub mod boot;
pub mod cli;
pub mod config;
pub mod demo;
pub mod error;
pub mod http;
pub mod identity;
pub mod listener;
pub mod seed;
pub mod shutdown;
pub mod telemetry;
