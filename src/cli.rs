//! The command line: one file per command, each with its flags, its help and a `run`.

mod error;
mod out;
mod pending;
mod runtime;
mod settings;

pub mod cluster;
pub mod config;
pub mod demo;
pub mod health;
pub mod keys;
pub mod load;
pub mod migrate;
pub mod openapi;
pub mod serve;
pub mod store;
pub mod user;
pub mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use self::{error::CliError, settings::Settings};

const EXAMPLES: &str = "\
Examples:
  sotto demo                            two users, one conversation, end-to-end encrypted, on this machine
  sotto serve                           a server on http://127.0.0.1:8080 with SQLite in ./data
  sotto serve --config /etc/sotto.toml  the same with settings from a file
  sotto config default                  every setting with its meaning and default";

/// Sotto: a self-hosted realtime server for end-to-end-encrypted messengers.
#[derive(Debug, Parser)]
#[command(name = "sotto", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server until SIGTERM or SIGINT.
    Serve(serve::Serve),
    /// Show the whole thing at work on this machine, without any setting.
    Demo(demo::Demo),
    /// Bring the database's schema up to date, back, or tell where it stands.
    Migrate(migrate::Migrate),
    /// Check the configuration, or print one to begin with.
    Config(config::ConfigCommand),
    /// Prepare a database that was restored.
    Store(store::Store),
    /// Rotate the server's own keys, or tell what is sealed with which.
    Keys(keys::Keys),
    /// Make users for load tests.
    User(user::User),
    /// Check what a running server or cluster promises, under load.
    Verify(verify::Verify),
    /// Put load on a running server and measure what it does.
    Load(Box<load::Load>),
    /// Look at the nodes that share a database.
    Cluster(cluster::Cluster),
    /// Ask a running server how it is.
    Health(health::Health),
    /// Print the OpenAPI document of the REST interface.
    Openapi(openapi::Openapi),
}

/// Tells on standard error what went wrong, if anything, and gives the exit code.
#[must_use]
pub fn report(outcome: &Result<(), CliError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::complain(error);
            error.exit_code()
        }
    }
}
