//! `sotto demo`: a server and two people on it, to see that it works.

use clap::Args;

use super::{CliError, pending, runtime};

const EXAMPLES: &str = "\
Examples:
  sotto demo          starts a server on a free port, signs two users in, lets them talk, and takes all of it away
  sotto demo --keep   leaves the server running afterwards and tells how to talk to it";

/// Show the whole thing at work on this machine, without any setting.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Demo {
    /// Leave the server running afterwards.
    #[arg(long)]
    keep: bool,
}

impl Demo {
    /// Runs the demonstration.
    ///
    /// # Errors
    /// When any step of it fails.
    pub fn run(self) -> Result<(), CliError> {
        runtime::block_on(pending::demo(self.keep))
    }
}
