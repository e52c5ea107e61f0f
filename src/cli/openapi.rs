//! `sotto openapi`: the description of the REST interface, for tools.

use clap::Args;

use super::{CliError, out, pending};

const EXAMPLES: &str = "\
Examples:
  sotto openapi > openapi.json";

/// Print the OpenAPI document of the REST interface.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Openapi {}

impl Openapi {
    /// Prints it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn run(self) -> Result<(), CliError> {
        out::line(pending::openapi()?)
    }
}
