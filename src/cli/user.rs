//! `sotto user seed`: users by the thousand, for whoever wants to measure.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CliError, Settings, pending, runtime};

const EXAMPLES: &str = "\
Examples:
  sotto user seed --count 10000 --pairs --out users.jsonl
  sotto user seed --count 1000 --group 50 --out users.jsonl

Each user gets one device with random keys and an access token for 24 hours. One JSON line per user:
  {user_id, device_id, access_token, conversation_id, peer_user_id?, peer_device_id?}
It works only while http.listen is loopback, or with dev.insecure.";

/// Make users for load tests.
#[derive(Debug, Args)]
pub struct User {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make N users with a device and conversations, and write their tokens to a file.
    #[command(after_help = EXAMPLES)]
    Seed(Box<Seed>),
}

/// How many users, and who talks to whom.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("shape").required(true))]
pub struct Seed {
    /// How many users to make.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub count: u32,
    /// Direct conversations between users 2k and 2k+1.
    #[arg(long, group = "shape")]
    pub pairs: bool,
    /// Groups of M instead.
    #[arg(long, value_name = "M", group = "shape", value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub group: Option<u32>,
    /// The file to write; one that exists is replaced.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

impl User {
    /// Does it.
    ///
    /// # Errors
    /// When the configuration is wrong, the server could be reached by others, or the database refuses.
    pub fn run(self) -> Result<(), CliError> {
        let Action::Seed(seed) = self.action;
        let config = seed.settings.load()?;
        if !config.allows_development() {
            let text = format!("user seed makes tokens without sign-in, and others can reach {}", config.http.listen);
            return Err(CliError::usage(text).hint("listen on 127.0.0.1, or set dev.insecure = true"));
        }
        if seed.pairs && !seed.count.is_multiple_of(2) {
            return Err(CliError::usage("--pairs needs an even --count").hint("take one more"));
        }
        runtime::block_on(pending::seed(config, *seed))
    }
}
