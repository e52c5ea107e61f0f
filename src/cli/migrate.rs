//! `sotto migrate`: the schema forward, back, or only looked at.

use clap::Args;

use super::{CliError, Settings, pending, runtime};

const EXAMPLES: &str = "\
Examples:
  sotto migrate --config /etc/sotto.toml            apply what is missing (`sotto serve` does it by itself)
  sotto migrate --config /etc/sotto.toml --status   list migrations and whether they are applied
  sotto migrate --config /etc/sotto.toml --down 1   take the newest one back, with what is stored in it";

/// Bring the database's schema up to date, back, or tell where it stands.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Migrate {
    /// Take the newest N migrations back. What is stored in what they made is lost.
    #[arg(long, value_name = "N", conflicts_with = "status", value_parser = clap::value_parser!(u32).range(1..))]
    down: Option<u32>,
    /// Only tell which migrations are applied.
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    settings: Settings,
}

/// What to do with the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Apply what is missing.
    Up,
    /// Take that many back.
    Down(u32),
    /// Change nothing, only tell.
    Status,
}

impl Migrate {
    /// Does it.
    ///
    /// # Errors
    /// When the configuration is wrong or the database refuses.
    pub fn run(self) -> Result<(), CliError> {
        let config = self.settings.load()?;
        let step = match (self.down, self.status) {
            (Some(count), _) => Step::Down(count),
            (None, true) => Step::Status,
            (None, false) => Step::Up,
        };
        runtime::block_on(pending::migrate(config, step))
    }
}
