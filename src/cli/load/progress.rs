//! How a run goes on: the live view on a terminal, else a line per second.

use sotto_harness::load::settings::Span;
use sotto_harness::load::{Stage, Stop, View as Run};

use super::view::{Header, Totals, View};
use crate::cli::out;

/// Shows a run while it goes on.
pub struct Progress {
    live: Option<Live>,
    told: usize,
    opening: u64,
}

/// What the live view needs.
struct Live {
    span: Span,
    stop: Stop,
    view: Option<View>,
    /// Which of repeated runs it shows.
    run: u32,
}

impl Progress {
    /// A line per second.
    pub const fn lines() -> Self {
        Self { live: None, told: 0, opening: 0 }
    }

    /// The live view of a run with this span, whose keys stop it; lines where there is no terminal, or none is wanted.
    pub fn new(is_plain: bool, span: &Span, stop: Stop) -> Self {
        let live = (!is_plain && out::is_terminal()).then(|| Live { span: span.clone(), stop, view: None, run: 0 });
        Self { live, ..Self::lines() }
    }

    /// Shows what is new.
    pub fn tell(&mut self, run: &Run) {
        if run.series.len() < self.told {
            // Another run of several.
            (self.told, self.opening) = (0, 0);
        }
        let is_shown = self.live.as_mut().is_some_and(|live| live.show(run, self.told));
        if !is_shown {
            self.print(run);
        }
        self.told = run.series.len();
    }

    fn print(&mut self, run: &Run) {
        if let Stage::Opening { open, of } = run.stage
            && open >= self.opening + 1000.min(of)
        {
            self.opening = open;
            say(format!("{open} of {of} connections are open"));
        }
        for moment in run.series.iter().skip(self.told) {
            let millis = |times: Option<[f64; 3]>| match times {
                Some([p50, p99, _]) => format!("{p50:.1}/{p99:.1}"),
                None => "-".to_owned(),
            };
            let span = if moment.measured { ' ' } else { '~' };
            let cores: Vec<_> = moment.cores.iter().map(|(name, cores)| format!("{name} {cores:.2}")).collect();
            say(format!(
                "{:>5.0} s{span} {:>7.0} sent/s {:>7.0} ok/s {:>7.0} delivered/s {:>5.0} errors/s  ok {} ms  delivery {} ms  {} open  cores: {}",
                moment.at,
                moment.sent_per_second,
                moment.answered_per_second,
                moment.delivered_per_second,
                moment.errors_per_second,
                millis(moment.answer_ms),
                millis(moment.delivery_ms),
                moment.connections,
                cores.join(", ")
            ));
        }
    }

    /// The run is over: the terminal is given back.
    pub fn end(self) {
        let view = self.live.and_then(|live| live.view);
        if let Some(Err(error)) = view.map(View::finish) {
            tracing::debug!(%error, "the live view ended early");
        }
    }
}

impl Live {
    /// Shows the seconds after those that were told. `false`: there is no terminal for it, after all.
    fn show(&mut self, run: &Run, told: usize) -> bool {
        if self.run != run.run.0 {
            // Given back before it is taken again.
            self.view = None;
            self.run = run.run.0;
            self.view = View::start(self.header(run)).ok();
        }
        let Some(view) = &self.view else {
            return false;
        };
        view.stage(match run.stage {
            Stage::Opening { open, of } => Some(format!("{open} of {of} connections are open")),
            Stage::Settling(_) => Some("the last answers are awaited".to_owned()),
            Stage::Warmup(_) | Stage::Measuring(..) => None,
        });
        for moment in run.series.iter().skip(told) {
            let totals = Totals {
                sent: run.sent,
                answered: run.answered,
                delivered: run.delivered,
                errors: run.errors.clone(),
                ledger: run.ledger,
                generator: run.generator.clone(),
            };
            view.update(moment, totals);
        }
        // The first wish stops the load, the second the run, as Ctrl-C does.
        if (view.stop_wanted() && !self.stop.is_stopped()) || (view.leave_wanted() && !self.stop.is_abandoned()) {
            self.stop.stop();
        }
        true
    }

    fn header(&self, run: &Run) -> Header {
        let seconds = |whole: u64| std::time::Duration::from_secs(whole).as_secs_f64();
        let title = match run.run {
            (1, Some(1)) | (0, _) => run.title.clone(),
            (number, Some(of)) => format!("{}, run {number} of {of}", run.title),
            (number, None) => format!("{}, run {number}", run.title),
        };
        Header {
            scenario: run.scenario.clone(),
            title,
            target: run.urls.join(", "),
            warmup_seconds: seconds(self.span.warmup),
            seconds: seconds(self.span.seconds),
        }
    }
}

/// Prints a line.
pub fn say(text: String) {
    // Who has stopped reading still gets the result's file.
    let _nobody_listens = out::line(text);
}
