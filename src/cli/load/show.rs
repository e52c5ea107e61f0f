//! What a run came to, as a table, as values for scripts, and as files.

use std::path::{Path, PathBuf};

use clap::Args;
use sotto_harness::load::{LedgerCounts, Step, Summary, Verdict, report};

use crate::cli::{CliError, out};

/// Show the result of an earlier run again.
#[derive(Debug, Args)]
pub struct Show {
    /// A summary that `--json` or `--out` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Lines name=value, for scripts, instead of the table.
    #[arg(long)]
    values: bool,
}

impl Show {
    /// Prints it.
    ///
    /// # Errors
    /// When the file is none.
    pub fn run(self) -> Result<(), CliError> {
        let summary = read(&self.file)?;
        let lines = if self.values { values(&summary) } else { table(&summary) };
        lines.into_iter().try_for_each(out::line)
    }
}

/// Reads a result.
///
/// # Errors
/// When the file is none, or of another version.
pub fn read(file: &Path) -> Result<Summary, CliError> {
    let failed = |error: String| CliError::usage(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    Summary::from_json(&text).map_err(failed)
}

/// Writes a result.
///
/// # Errors
/// When it cannot be written.
pub fn write(file: &Path, summary: &Summary) -> Result<(), CliError> {
    let failed = |error: String| CliError::usage(format!("cannot write {}: {error}", file.display()));
    let text = serde_json::to_string_pretty(summary).map_err(|error| failed(error.to_string()))?;
    std::fs::write(file, text + "\n").map_err(|error| failed(error.to_string()))
}

/// Writes everything there is about a run into a folder.
///
/// # Errors
/// When it cannot be written.
pub fn write_all(folder: &Path, summary: &Summary) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::usage(format!("cannot write into {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    write(&folder.join("summary.json"), summary)?;
    std::fs::write(folder.join("report.html"), report::html(std::slice::from_ref(summary))).map_err(failed)?;
    for latency in &summary.latencies {
        std::fs::write(folder.join(format!("{}.hlog", latency.name)), latency.hlog(summary)).map_err(failed)?;
    }
    Ok(())
}

/// Whether the scenario was meant to be refused.
pub fn expects_refusals(summary: &Summary) -> bool {
    summary.settings.pointer("/rate/overload").and_then(serde_json::Value::as_bool).unwrap_or_default()
        || summary.scenario == "storm"
}

fn faults(ledger: LedgerCounts) -> [(&'static str, u64); 7] {
    let LedgerCounts { lost, duplicated, reordered, gaps, strange, unconfirmed, unanswered } = ledger;
    [
        ("lost", lost),
        ("duplicated", duplicated),
        ("reordered", reordered),
        ("gaps", gaps),
        ("strange", strange),
        ("unconfirmed", unconfirmed),
        ("unanswered", unanswered),
    ]
}

/// The result as lines name=value.
fn values(summary: &Summary) -> Vec<String> {
    let mut lines: Vec<_> =
        summary.figures.iter().map(|figure| format!("{}={}", figure.name, number(figure.value))).collect();
    for latency in &summary.latencies {
        lines.push(format!("{}_max_ms={}", latency.name, number(latency.max_ms)));
    }
    for process in &summary.processes {
        lines.push(format!("{}_processors={:.2}", process.name, process.cores));
        if let Some(each) = process.cpu_seconds_per_1000 {
            lines.push(format!("{}_seconds_per_1000={each:.4}", process.name));
        }
    }
    lines.extend(faults(summary.ledger).map(|(name, count)| format!("{name}={count}")));
    lines.push(format!("errors={}", summary.errors.values().sum::<u64>()));
    lines.extend(summary.errors.iter().map(|(code, count)| format!("error_{code}={count}")));
    lines
}

/// A number with as many digits as one reads.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size >= 1000.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

/// The result as a table.
pub fn table(summary: &Summary) -> Vec<String> {
    let mut lines = vec![format!("{}: {:.0} s measured", summary.title, summary.seconds)];
    for figure in &summary.figures {
        let spread = match spread(&figure.samples) {
            Some((low, high)) => format!("{} … {}", number(low), number(high)),
            None => String::new(),
        };
        lines.push(format!("{:<44}{:>12} {:<4} {spread}", figure.title, number(figure.value), figure.unit));
    }
    if summary.verdict == Verdict::Broken && !summary.figures.is_empty() {
        lines.push(
            "the ledger does not balance: these figures are not those of a server that keeps its word".to_owned(),
        );
    }
    lines.extend(summary.steps.iter().map(step));
    for process in &summary.processes {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        lines.push(format!(
            "{:<44}{:>12.2} cores, {} … {} MiB",
            process.name,
            process.cores,
            mib(process.rss_start_bytes),
            mib(process.rss_peak_bytes)
        ));
    }
    let faults: Vec<_> = faults(summary.ledger).into_iter().map(|(name, count)| format!("{count} {name}")).collect();
    lines.push(format!("ledger: {}", faults.join(", ")));
    if !summary.errors.is_empty() {
        let errors: Vec<_> = summary.errors.iter().map(|(code, count)| format!("{count} {code}")).collect();
        lines.push(format!("refused or failed: {}", errors.join(", ")));
    }
    let generator = &summary.generator;
    let lag =
        generator.lag_p99_ms.map_or_else(String::new, |lag| format!(", sent {} ms late at most (p99)", number(lag)));
    lines.push(format!(
        "generator: {} threads, the busiest at work {:.0} % of the time{lag}",
        generator.threads,
        generator.busiest_thread * 100.0
    ));
    if let Some(reason) = &generator.saturated {
        lines.push(format!("the generator was at its end, so these are not the server's limits: {reason}"));
    }
    lines
}

/// A step of a search as a line.
pub fn step(step: &Step) -> String {
    let p99 = step.p99_ms.map_or_else(|| "-".to_owned(), number);
    let verdict = if step.holds { "holds".to_owned() } else { format!("does not hold: {}", step.why) };
    format!("{:>9}/s asked, {:>9}/s delivered, p99 {p99} ms: {verdict}", step.rate, number(step.delivered_per_second))
}

/// The smallest and the largest sample.
fn spread(samples: &[f64]) -> Option<(f64, f64)> {
    let low = samples.iter().copied().reduce(f64::min)?;
    Some((low, samples.iter().copied().reduce(f64::max)?)).filter(|_| samples.len() > 1)
}
