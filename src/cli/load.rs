//! `sotto load`: traffic on a running server, measured, with a ledger.

mod compare;
mod example;
mod progress;
mod show;
mod view;

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use sotto_harness::load::capacity::Capacity;
use sotto_harness::load::settings::{
    Connect, Fanout, Idle, Message, Mix, Offline, Pairs, Rate, Soak, Span, Storm, Target,
};
use sotto_harness::load::{LoadError, Long, Plan, Scenario, Stop, Summary, Verdict};
use tokio::signal::unix::{SignalKind, signal};

use self::progress::Progress;
use super::{CliError, out, runtime};

const EXAMPLES: &str = "\
Examples:
  sotto user seed --count 10000 --pairs --out users.jsonl
  sotto load pairs --url http://127.0.0.1:8080 --users users.jsonl --pairs 100 --window 8
  sotto load rate --url http://127.0.0.1:8080 --users users.jsonl --rate 1000 --out results
  sotto load idle --url http://127.0.0.1:8080 --users users.jsonl --connections 10000
  sotto load example pairs > pairs.toml && sotto load run pairs.toml

Switch the server's limits off for it (limits.enabled = false), or they are what is measured. Each run keeps a ledger of
every message; if it does not balance, there are no figures. Ctrl-C ends the load and shows what was measured.

Exit code 0: measured. 1: the ledger does not balance, or requests were refused. 2: it could not run.";

/// Put load on a running server and measure what it does.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Load {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Closed loop: each sender keeps so many messages unanswered.
    Pairs(Flags<Pairs>),
    /// Open loop: so many messages a second, whatever the server does; latency from the intended moment of sending.
    Rate(Flags<Rate>),
    /// Handshakes per second: sign-in, token check, backlog, `drained`.
    Connect(Flags<Connect>),
    /// Connections that do nothing: memory of each.
    Idle(Flags<Idle>),
    /// Groups in which few write and all read: deliveries per second.
    Fanout(Flags<Fanout>),
    /// A backlog for devices that are away, and all of them back at once.
    Offline(Flags<Offline>),
    /// All connections are cut at once, or their node is killed, and all come back.
    Storm(Flags<Storm>),
    /// A day of a messenger: typing, messages, media, reads, REST.
    Mix(Flags<Mix>),
    /// The mix for a long time, and whether the server's memory grows.
    Soak(Flags<Soaked>),
    /// Search the highest rate at which 99 of 100 messages are delivered in time.
    Capacity(Flags<Searched>),
    /// Compare two results; differences below the noise that was measured are none.
    Compare(compare::Compare),
    /// Run what a TOML file says.
    Run(File),
    /// Print a TOML file for a scenario, with every setting and its meaning.
    Example(example::Example),
    /// Show the result of an earlier run again.
    Show(show::Show),
}

/// A soak's own settings and those of its mix.
#[derive(Debug, Args)]
struct Soaked {
    #[command(flatten)]
    soak: Soak,
    #[command(flatten)]
    mix: Mix,
}

/// A search's own settings and those of its runs.
#[derive(Debug, Args)]
struct Searched {
    #[command(flatten)]
    capacity: Capacity,
    #[command(flatten)]
    rate: Rate,
}

/// Settings of a scenario, and which of the common ones it has.
trait Settings: Args {
    /// It lasts as long as `--seconds` says.
    const HAS_SPAN: bool = true;
    /// It sends messages.
    const HAS_MESSAGES: bool = true;

    /// The scenario with these settings.
    fn scenario(self) -> Scenario;
}

macro_rules! settings {
    ($($settings:ident: $span:literal, $messages:literal;)*) => {$(
        impl Settings for $settings {
            const HAS_SPAN: bool = $span;
            const HAS_MESSAGES: bool = $messages;

            fn scenario(self) -> Scenario {
                Scenario::$settings(self)
            }
        }
    )*};
}

settings! {
    Pairs: true, true;
    Rate: true, true;
    Connect: true, false;
    Idle: false, false;
    Fanout: true, true;
    Offline: false, true;
    Storm: false, false;
    Mix: true, true;
}

impl Settings for Soaked {
    const HAS_SPAN: bool = false;

    fn scenario(self) -> Scenario {
        Scenario::Soak(Long { soak: self.soak, mix: self.mix })
    }
}

impl Settings for Searched {
    fn scenario(self) -> Scenario {
        Scenario::Rate(self.rate)
    }
}

/// The flags of a scenario: its own, and the common ones that it has a use for.
#[derive(Debug)]
struct Flags<T> {
    scenario: T,
    span: Span,
    message: Message,
    target: Target,
    output: Output,
}

impl<T: Settings> Args for Flags<T> {
    fn augment_args(mut command: Command) -> Command {
        command = T::augment_args(command);
        if T::HAS_SPAN {
            command = Span::augment_args(command);
        }
        if T::HAS_MESSAGES {
            command = Message::augment_args(command);
        }
        Output::augment_args(Target::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: Settings> FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            scenario: T::from_arg_matches(matches)?,
            span: if T::HAS_SPAN { Span::from_arg_matches(matches)? } else { Span::default() },
            message: if T::HAS_MESSAGES { Message::from_arg_matches(matches)? } else { Message::default() },
            target: Target::from_arg_matches(matches)?,
            output: Output::from_arg_matches(matches)?,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<T: Settings> Flags<T> {
    fn measure(self) -> Result<(), CliError> {
        let Self { scenario, span, message, target, output } = self;
        measure(&Plan { target, span, message, scenario: scenario.scenario() }, &output)
    }
}

impl Flags<Searched> {
    fn search(self) -> Result<(), CliError> {
        let Self { scenario, span, message, target, output } = self;
        let plan = Plan { target, span, message, scenario: Scenario::Rate(scenario.rate) };
        // Its steps are lines, so everything is.
        let (stop, mut progress) = (Stop::default(), Progress::lines());
        listen(stop.clone());
        let summary = scenario
            .capacity
            .search(&plan, &stop, &mut |view| progress.tell(view), &mut |step| progress::say(show::step(step)))
            .map_err(refused)?;
        progress.end();
        finish(&summary, &output)
    }
}

/// A run from a file.
#[derive(Debug, Args)]
struct File {
    /// The file; `sotto load example` prints one.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Instead of the file's addresses.
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// Instead of the file's users.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Where results go.
#[derive(Debug, Args)]
struct Output {
    /// Write the whole result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write summary.json, histograms and report.html into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A line per second instead of the live view; so it is without a terminal.
    #[arg(long)]
    plain: bool,
}

impl Load {
    /// Runs to the end and prints what was measured.
    ///
    /// # Errors
    /// When the ledger does not balance, requests were refused, or nothing could be measured.
    pub fn run(self) -> Result<(), CliError> {
        match self.action {
            Action::Pairs(flags) => flags.measure(),
            Action::Rate(flags) => flags.measure(),
            Action::Connect(flags) => flags.measure(),
            Action::Idle(flags) => flags.measure(),
            Action::Fanout(flags) => flags.measure(),
            Action::Offline(flags) => flags.measure(),
            Action::Storm(flags) => flags.measure(),
            Action::Mix(flags) => flags.measure(),
            Action::Soak(flags) => flags.measure(),
            Action::Capacity(flags) => flags.search(),
            Action::Compare(compare) => compare.run(),
            Action::Run(file) => {
                let (plan, output) = file.read()?;
                measure(&plan, &output)
            }
            Action::Example(example) => example.run(),
            Action::Show(show) => show.run(),
        }
    }
}

impl File {
    fn read(self) -> Result<(Plan, Output), CliError> {
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| CliError::usage(format!("cannot read {}: {error}", self.file.display())))?;
        let named = |error: LoadError| CliError::usage(format!("{}: {error}", self.file.display()));
        let mut plan = Plan::from_toml(&text).map_err(named)?;
        if !self.url.is_empty() {
            plan.target.url = self.url;
        }
        plan.target.users = self.users.or(plan.target.users);
        Ok((plan, self.output))
    }
}

/// Runs a plan, shows and writes what it came to.
fn measure(plan: &Plan, output: &Output) -> Result<(), CliError> {
    let stop = Stop::default();
    listen(stop.clone());
    let mut progress = Progress::new(output.plain, &plan.span, stop.clone());
    let summary = plan.repeat(&stop, &mut |view| progress.tell(view)).map_err(refused)?;
    progress.end();
    finish(&summary, output)
}

/// Writes a result to where it shall go, prints the table, and judges.
fn finish(summary: &Summary, output: &Output) -> Result<(), CliError> {
    if let Some(file) = &output.json {
        show::write(file, summary)?;
    }
    if let Some(folder) = &output.out {
        show::write_all(folder, summary)?;
    }
    for line in show::table(summary) {
        out::line(line)?;
    }
    let refused: u64 = summary.errors.values().sum();
    // With tolerated faults there are.
    if summary.verdict == Verdict::Broken && summary.figures.is_empty() {
        return Err(CliError::failed("the ledger does not balance: there are no figures"));
    }
    if refused > 0 && !show::expects_refusals(summary) {
        return Err(CliError::failed(format!("{refused} requests were refused or failed"))
            .hint("limits.enabled = false at the server; --overload if the rate is meant to be too high"));
    }
    Ok(())
}

fn refused(error: LoadError) -> CliError {
    match error {
        LoadError::Users(text, seed) if !seed.is_empty() => {
            CliError::usage(text).hint(format!("make them with the server's settings, on its machine: {seed}"))
        }
        other => CliError::usage(other),
    }
}

/// Ctrl-C, SIGTERM and SIGHUP end the load, a second one the run: the ledger is closed and the terminal given back.
fn listen(stop: Stop) {
    std::thread::spawn(move || {
        runtime::block_on(async move {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let signals = kinds.into_iter().filter_map(|kind| signal(kind).ok());
            let waits = signals.map(|mut signal| {
                let stop = stop.clone();
                async move {
                    while signal.recv().await.is_some() {
                        stop.stop();
                    }
                }
            });
            futures::future::join_all(waits).await;
        });
    });
}
