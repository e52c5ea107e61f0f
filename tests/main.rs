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
mod authorization;
mod bad_input;
mod canaries;
mod claims;
mod client;
mod cluster;
mod cluster_life;
mod codes;
mod config;
mod deletion;
mod delivery_append;
mod delivery_socket;
mod demo;
mod device_links;
mod devices;
mod disk_full;
mod disks;
mod export;
mod frozen_node;
mod history;
mod http;
mod identity;
mod idle_sockets;
mod keys;
mod known_answers;
mod limits_cluster;
mod load;
mod membership;
mod openapi;
mod phone_change;
mod plans;
mod recovery;
mod refresh_family;
mod registration_lock;
mod restore;
mod second_factor;
mod security;
mod seed;
mod slow_reader;
mod store;
mod support;
mod talk;
mod tidy;
mod uniformity;
mod verify;
