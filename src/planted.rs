//! The program `sotto` with a bug that a test chooses by the variable `PLANTED_BUG`, to see whether the ledger finds it.

use std::process::ExitCode;

use clap::Parser;
use sotto::cli::{self, Cli, CliError, Command};
use sotto::config;
use sotto_schema::planted;

fn main() -> ExitCode {
    let chosen = match config::planted_bug() {
        Some(name) if name != "none" && !planted::choose(&name) => {
            Err(CliError::usage(format!("there is no planted bug {name}")))
        }
        _ => Ok(()),
    };
    let outcome = chosen.and_then(|()| match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        _ => Err(CliError::usage("a program with planted bugs does nothing but serve")),
    });
    cli::report(&outcome)
}
