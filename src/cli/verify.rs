//! `sotto verify`: a ledger against a running server or cluster.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sotto_harness::{HarnessError, Plan, Promise, Report, Run, Stage, View, read_accounts};

use super::{CliError, out, runtime};

const EXAMPLES: &str = "\
Examples:
  sotto user seed --count 100 --pairs --out users.jsonl
  sotto verify --users users.jsonl --url http://127.0.0.1:8080
  sotto verify --users users.jsonl --url http://node-a:8080 --url http://node-b:8080 --duration 10m --json verdict.json

It sends, receives, acknowledges, cuts connections, comes back at other nodes, catches up by REST, sends the same id to
two nodes at once, uploads and claims keys, and signs a few devices out: those are gone for later runs. Then it waits for
everything to come to rest, reads all logs anew at every address, and counts what was promised and did not hold. Nodes
may be killed, drained or restarted meanwhile; all that are named must answer at the end. While it runs, nobody else may
write in the conversations of the file.

Exit code 0: every count is 0. 1: a promise was broken. 2: it could not run, or not look at everything.";

/// Without a terminal, a line so often.
const LINES: Duration = Duration::from_secs(5);

/// Check what a running server or cluster promises, under load.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Verify {
    /// Who is driven: a file of `sotto user seed`.
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    /// A node's address; repeat it for every node.
    #[arg(long, value_name = "URL", required = true)]
    url: Vec<String>,
    /// How long the load goes on, as 90s, 10m or 2h.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    duration: Duration,
    /// Drive only the first N devices of the file.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    devices: Option<u32>,
    /// Repeat the choices of an earlier run; when what happens is the machine's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Messages per second of all devices together; 0 is as fast as answers come.
    #[arg(long, value_name = "N", default_value_t = 100)]
    rate: u32,
    /// Sign out so many devices meanwhile [default: 1 of 20, at most 5].
    #[arg(long, value_name = "N")]
    sign_outs: Option<u32>,
    /// How long everything may take to come to rest.
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = duration)]
    patience: Duration,
    /// Write counts, examples and figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The file of `--json`.
#[derive(Serialize)]
struct Written<'a> {
    result: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

impl Verify {
    /// Runs to the end and prints what was found.
    ///
    /// # Errors
    /// When a promise was broken, or when nothing could be said.
    pub fn run(self) -> Result<(), CliError> {
        let json = self.json.clone();
        let length = self.duration;
        let run = self.plan()?;
        let report = runtime::block_on(watched(run, length)).map_err(CliError::usage)?;
        if let Some(file) = json {
            write(&file, &report)?;
        }
        for line in table(&report) {
            out::line(line)?;
        }
        match result(&report) {
            "kept" => Ok(()),
            "broken" => Err(CliError::failed("a promise was broken")
                .hint(format!("the same choices again: --seed {}", report.seed))),
            _ if report.is_empty() => Err(CliError::usage("nothing was sent and received, so nothing was shown")
                .hint("look at the refusals above; a longer --duration or more devices may help")),
            _ => Err(CliError::usage("not everything could be looked at")
                .hint("every --url must answer at the end; a longer --patience may help")),
        }
    }

    fn plan(self) -> Result<Run, CliError> {
        let text = std::fs::read_to_string(&self.users).map_err(|error| {
            CliError::usage(format!("cannot read {}: {error}", self.users.display()))
                .hint("make it with `sotto user seed --count 100 --pairs --out FILE`")
        })?;
        let mut accounts = read_accounts(&text).map_err(CliError::usage)?;
        if let Some(devices) = self.devices {
            accounts.truncate(usize::try_from(devices).unwrap_or(usize::MAX));
        }
        let seed = self.seed.unwrap_or_else(clock);
        let few = (accounts.len() / 20).clamp(usize::from(accounts.len() >= 4), 5);
        let sign_outs = self.sign_outs.map_or(few, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let plan = Plan { rate: self.rate.into(), ..Plan::new(self.url, accounts, seed) };
        Ok(Run { plan, duration: self.duration, sign_outs, patience: self.patience })
    }
}

/// A seed that differs from run to run.
fn clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ now.as_secs()
}

/// Runs with a bar on a terminal, with lines elsewhere.
async fn watched(run: Run, length: Duration) -> Result<Report, HarnessError> {
    let seconds = length.as_secs().max(1);
    let bar = ProgressBar::new(seconds);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} s  {msg}") {
        bar.set_style(style);
    }
    let mut told = Instant::now();
    let report = run
        .to_the_end(|stage, view| {
            let text = match stage {
                Stage::Load(elapsed) => {
                    bar.set_position(elapsed.as_secs().min(seconds));
                    progress(view)
                }
                Stage::Settling(elapsed) => {
                    bar.set_position(seconds);
                    format!("coming to rest for {} s, {}", elapsed.as_secs(), progress(view))
                }
            };
            if bar.is_hidden() && told.elapsed() >= LINES {
                told = Instant::now();
                let _nobody_listens = out::line(&text);
            }
            bar.set_message(text);
        })
        .await;
    bar.finish_and_clear();
    report
}

fn progress(view: &View) -> String {
    let refused: u64 = view.refused.values().sum();
    format!(
        "{} sent, {} ok, {} unknown, {refused} refused; {} received; {} sockets, {} lost, {} unreachable",
        view.begun, view.answered, view.unknown, view.received, view.opened, view.lost, view.unreachable
    )
}

fn result(report: &Report) -> &'static str {
    match (report.is_broken(), report.is_clean()) {
        (true, _) => "broken",
        (false, true) => "kept",
        (false, false) => "incomplete",
    }
}

fn write(file: &Path, report: &Report) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::usage(format!("cannot write {}: {error}", file.display()));
    let written = Written { result: result(report), report };
    let text = serde_json::to_string_pretty(&written).map_err(|error| failed(error.into()))?;
    std::fs::write(file, text + "\n").map_err(failed)
}

/// What each count is one of.
fn among(promise: Promise, report: &Report) -> String {
    let figures = &report.figures;
    match promise {
        Promise::Lost | Promise::StoredTwice => format!("{} acknowledged messages", figures.acknowledged),
        Promise::DeliveredTwice => format!("{} confirmed acks", figures.confirmed),
        Promise::Reordered | Promise::Altered => format!("{} received messages", figures.received),
        Promise::Gap | Promise::Different => format!("{} logs read anew", figures.histories),
        Promise::MarkBack => format!("{} state events", figures.events.saturating_sub(figures.received)),
        Promise::KeyTwice => format!("{} keys given", figures.keys_given),
        Promise::SessionAlive if figures.unwitnessed > 0 => {
            format!("{} sign-outs, {} not seen to the end", figures.revoked, figures.unwitnessed)
        }
        Promise::SessionAlive => format!("{} sign-outs", figures.revoked),
    }
}

fn table(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("{:<40}{:>8}   {}", "promise", "broken", "of")];
    for (promise, count, _) in report.findings.iter() {
        lines.push(format!("{:<40}{count:>8}   {}", promise.name(), among(promise, report)));
    }
    let figures = &report.figures;
    let millis = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1}"));
    lines.push(String::new());
    lines.push(format!(
        "{} devices, {} conversations, {:.1} s of load, {:.1} s until everything was read anew, seed {}",
        figures.devices, figures.conversations, figures.load_seconds, figures.settle_seconds, report.seed
    ));
    lines.push(format!(
        "{} sent: {} acknowledged, {} repeated, {} answered as duplicates, {} refused and given up",
        figures.sent, figures.acknowledged, figures.repeated, figures.duplicates, figures.withdrawn
    ));
    lines.push(format!(
        "send to ok p50 {} ms, p99 {} ms; send to delivery p50 {} ms, p99 {} ms",
        millis(figures.ok_p50_ms),
        millis(figures.ok_p99_ms),
        millis(figures.delivery_p50_ms),
        millis(figures.delivery_p99_ms)
    ));
    let view = &report.view;
    let refused: Vec<_> = view.refused.iter().map(|(code, count)| format!("{count} {code}")).collect();
    let refused = if refused.is_empty() { "none".to_owned() } else { refused.join(", ") };
    lines.push(format!(
        "sockets: {} opened, {} lost, {} not reached; {} sends of unknown outcome, {} requests without an answer",
        view.opened, view.lost, view.unreachable, view.unknown, view.silent
    ));
    lines.push(format!("refused: {refused}"));
    for (promise, _, examples) in report.findings.iter() {
        lines.extend(examples.iter().map(|example| format!("{}: {example}", promise.name())));
    }
    lines.extend(report.incomplete.iter().map(|text| format!("not looked at: {text}")));
    lines
}

/// A number with s, m or h; a bare one counts seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(place) => text.split_at(place),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("write it as 90s, 10m or 2h".to_owned()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let seconds = seconds.filter(|seconds| (1..=7 * 24 * 3600).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "from 1 second to 7 days".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        for wrong in ["", "s", "0s", "1d", "-1s", "99999999999999999999s", "200h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
