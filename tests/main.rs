//! Every test that is not beside its code, in one program: it links once, and `tidy` sees that no file was forgotten.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may fail, and says so"
)]

mod auth;
mod bad_input;
mod claims;
mod client;
mod cluster;
mod cluster_life;
mod config;
mod delivery_append;
mod delivery_socket;
mod demo;
mod disk_full;
mod disks;
mod frozen_node;
mod http;
mod identity;
mod idle_sockets;
mod keys;
mod limits_cluster;
mod membership;
mod openapi;
mod refresh_family;
mod restore;
mod seed;
mod slow_reader;
mod store;
mod support;
mod talk;
mod tidy;
mod verify;
