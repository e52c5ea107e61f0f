//! `sotto config`: is it right, and what could be set at all.

use clap::{Args, Subcommand};

use super::{CliError, Settings, out};
use crate::config;

const EXAMPLES: &str = "\
Examples:
  sotto config check --config /etc/sotto.toml   exit code 0 when it is right, else every problem and exit code 2
  sotto config default > sotto.toml             a file with every setting, commented out";

/// Check the configuration, or print one to begin with.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tell what is wrong, or what differs from the defaults (secrets hidden).
    Check {
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Print a configuration file with every setting, commented out and at its default.
    Default,
    /// Print the page docs/configuration.md.
    Reference,
}

impl ConfigCommand {
    /// Does it.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub fn run(self) -> Result<(), CliError> {
        match self.action {
            Action::Default => out::line(config::default_file()),
            Action::Reference => out::line(config::reference()),
            Action::Check { settings } => {
                let loaded = settings.load()?;
                let changed = config::changed(&loaded);
                if changed.is_empty() {
                    out::line("the configuration is right: all defaults")
                } else {
                    out::line(format!("{changed}the configuration is right; the above differs from the defaults"))
                }
            }
        }
    }
}
