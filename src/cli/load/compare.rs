//! `sotto load compare`: two results, and which differences are more than noise.

use std::path::PathBuf;

use clap::Args;
use sotto_harness::load::compare::{Change, Row, compare};
use sotto_harness::load::report;

use super::show::{number, read};
use crate::cli::{CliError, out};

const EXAMPLES: &str = "\
Examples:
  sotto load pairs --url … --users users.jsonl --repeat 5 --json before.json
  sotto load pairs --url … --users users.jsonl --repeat 5 --json after.json
  sotto load compare before.json after.json --html both.html

The noise is measured: from repeated runs, else from the parts of each run. A difference counts if Welch's t-test finds
it at 99 % and it is at least 2 % between repeated runs, 5 % between single ones.

Exit code 0: nothing is worse. 1: something is worse by more than noise. 2: they cannot be compared.";

/// Compare two results; differences below the noise that was measured are none.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Compare {
    /// The result before.
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The result after.
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// Write the comparison to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report of both, side by side, to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Compare {
    /// Prints it.
    ///
    /// # Errors
    /// When something is worse, or the two cannot be compared.
    pub fn run(self) -> Result<(), CliError> {
        let (before, after) = (read(&self.before)?, read(&self.after)?);
        let rows = compare(&before, &after).map_err(CliError::usage)?;
        if let Some(file) = &self.json {
            let failed = |error: String| CliError::usage(format!("cannot write {}: {error}", file.display()));
            let text = serde_json::to_string_pretty(&rows).map_err(|error| failed(error.to_string()))?;
            std::fs::write(file, text + "\n").map_err(|error| failed(error.to_string()))?;
        }
        if let Some(file) = &self.html {
            let failed = |error: std::io::Error| CliError::usage(format!("cannot write {}: {error}", file.display()));
            std::fs::write(file, report::html(&[before, after])).map_err(failed)?;
        }
        out::line(format!("{:<44}{:>12}{:>12}{:>9}{:>9}", "", "before", "after", "change", "noise"))?;
        rows.iter().map(line).try_for_each(out::line)?;
        let worse: Vec<_> =
            rows.iter().filter(|row| row.change == Change::Worse).map(|row| row.title.as_str()).collect();
        if worse.is_empty() { Ok(()) } else { Err(CliError::failed(format!("worse: {}", worse.join("; ")))) }
    }
}

fn line(row: &Row) -> String {
    let word = match row.change {
        Change::Same => "",
        Change::Better => "better",
        Change::Worse => "WORSE",
    };
    let title = format!("{}, {}", row.title, row.unit);
    format!(
        "{:<44}{:>12}{:>12}{:>+8.1}%{:>8.1}%  {word}",
        title.trim_end_matches(", "),
        number(row.before),
        number(row.after),
        row.difference * 100.0,
        row.noise * 100.0
    )
}
