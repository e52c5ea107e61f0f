//! `sotto serve`: the server, from the first log line to the last.

use clap::Args;

use super::{CliError, Settings, pending, runtime};
use crate::telemetry;

const EXAMPLES: &str = "\
Examples:
  sotto serve
  sotto serve --listen 127.0.0.1:0 --data-dir /tmp/sotto
  sotto serve --config /etc/sotto.toml --set log.format=json
  SOTTO_STORE__URL=postgres://sotto:secret@db/sotto sotto serve

Once ready it prints one line `listening on http://ADDR:PORT` on standard output; logs go to standard error.
SIGTERM and SIGINT drain and exit 0, a second one exits at once.";

/// Run the server until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    /// Runs the server to its end.
    ///
    /// # Errors
    /// When the configuration is wrong or the server cannot start.
    pub fn run(self) -> Result<(), CliError> {
        let config = self.settings.load()?;
        telemetry::install(&config.log).map_err(CliError::failed)?;
        runtime::block_on(pending::serve(config))
    }
}
