//! Sotto, the node: HTTP and WebSocket, command line, configuration, start and stop.
//!
//! The server is a library, so that tests start as many nodes in one process as they like.

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
