//! The highest rate at which a bound holds: doubled until it does not, then halved in between.

use serde::{Deserialize, Serialize};

use super::LoadError;
use super::gate::Stop;
use super::number::{float, whole};
use super::plan::{Plan, Scenario};
use super::summary::{Better, Figure, Step, Summary, Verdict};
use super::view::{Stage, View};

/// The share of the asked rate that must be delivered.
const DELIVERED: f64 = 0.98;
/// A second that is this many times over the bound ends its step: the rest of it would tell nothing.
const HOPELESS: f64 = 10.0;

/// What is searched.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capacity {
    /// The bound: 99 of 100 messages are delivered within so many milliseconds, as 50ms or 50.
    #[arg(long, value_name = "MS", default_value_t = Capacity::default().p99, value_parser = millis)]
    pub p99: f64,
    /// The rate to begin with.
    #[arg(long, value_name = "N", default_value_t = Capacity::default().from, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub from: u64,
    /// The highest rate to try.
    #[arg(long, value_name = "N", default_value_t = Capacity::default().to, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub to: u64,
    /// How near the answer must be, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = Capacity::default().within, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub within: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { p99: 50.0, from: 500, to: 1_000_000, within: 5 }
    }
}

fn millis(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("ms").unwrap_or(text).parse::<f64>().ok();
    number.filter(|millis| (0.01..=60_000.0).contains(millis)).ok_or_else(|| "write it as 50ms".to_owned())
}

/// Where the next step goes.
struct Search {
    settings: Capacity,
    /// The highest rate that held and the lowest that did not.
    good: Option<u64>,
    bad: Option<u64>,
}

impl Search {
    fn new(settings: Capacity) -> Self {
        Self { settings, good: None, bad: None }
    }

    fn note(&mut self, rate: u64, holds: bool) {
        let place = if holds { &mut self.good } else { &mut self.bad };
        *place = Some(rate);
    }

    /// The next rate to try; none: it is known well enough.
    fn next(&self) -> Option<u64> {
        let (from, to) = (self.settings.from, self.settings.to);
        match (self.good, self.bad) {
            (None, None) => Some(from.min(to)),
            (Some(good), None) => (good < to).then(|| (good * 2).min(to)),
            // Even the first was too much: down until something holds.
            (None, Some(bad)) => (bad > 1).then_some(bad / 2),
            (Some(good), Some(bad)) => {
                let is_near = float(bad - good) <= float(good) * f64::from(self.settings.within) / 100.0;
                (!is_near && bad - good > 1).then_some(u64::midpoint(good, bad))
            }
        }
    }
}

impl Capacity {
    /// Searches, with the rest of a plan of `rate`; `step` hears the result of each run. The summary is that of the
    /// highest rate that held, else of the last one, with the steps and the capacity as its first figure.
    ///
    /// # Errors
    /// As [`Plan::run`]; when the plan is not one of `rate`.
    pub fn search(
        &self,
        plan: &Plan,
        stop: &Stop,
        tell: &mut dyn FnMut(&View),
        step: &mut dyn FnMut(&Step),
    ) -> Result<Summary, LoadError> {
        let Scenario::Rate(settings) = &plan.scenario else {
            return Err(LoadError::Settings("the capacity is searched with [rate]".to_owned()));
        };
        let mut search = Search::new(self.clone());
        let (mut steps, mut best, mut last) = (Vec::new(), None, None);
        let mut run = 0;
        while let Some(rate) = search.next().filter(|_| !stop.is_stopped()) {
            run += 1;
            let mut settings = settings.clone();
            settings.rate = rate;
            settings.overload = true;
            let plan = Plan { scenario: Scenario::Rate(settings), ..plan.clone() };
            let own = Stop::default();
            let summary = plan.run(&own, (run, None), &mut |view| {
                if !own.is_stopped() && (stop.is_stopped() || self.is_hopeless(view)) {
                    own.stop();
                }
                tell(view);
            })?;
            if stop.is_stopped() {
                last = Some(summary);
                break;
            }
            let result = self.judge(rate, &summary, own.is_stopped());
            search.note(rate, result.holds);
            step(&result);
            let (is_broken, holds) = (summary.verdict == Verdict::Broken, result.holds);
            steps.push(result);
            if holds {
                best = Some(summary);
            } else {
                last = Some(summary);
            }
            if is_broken {
                best = None;
                break;
            }
        }
        let capacity = search.good.map_or(0.0, float);
        let mut summary = best.or(last).ok_or_else(|| LoadError::System("nothing was run".to_owned()))?;
        summary.scenario = "capacity".to_owned();
        if plan.target.title.is_none() {
            summary.title = "capacity".to_owned();
        }
        if let (Some(all), Ok(own)) = (summary.settings.as_object_mut(), serde_json::to_value(self)) {
            all.insert("capacity".to_owned(), own);
        }
        if summary.verdict != Verdict::Broken {
            let title = format!("highest rate with p99 ≤ {} ms", self.p99);
            let figure = Figure::single("capacity_per_second", &title, "/s", capacity, Better::Higher);
            summary.figures.insert(0, figure);
        }
        summary.steps = steps;
        Ok(summary)
    }

    fn is_hopeless(&self, view: &View) -> bool {
        let Stage::Measuring(..) = view.stage else { return false };
        let Some(moment) = view.series.last() else { return false };
        moment.delivery_ms.is_some_and(|[_, p99, _]| p99 > self.p99 * HOPELESS)
    }

    fn judge(&self, rate: u64, summary: &Summary, is_cut: bool) -> Step {
        let value = |name: &str| summary.figure(name).map(|figure| figure.value);
        let delivered = value("delivered_per_second").unwrap_or_default();
        let p99 = value("send_to_delivered_p99_ms");
        let errors: u64 = summary.errors.values().sum();
        let why = if summary.verdict == Verdict::Broken {
            "the ledger does not balance".to_owned()
        } else if is_cut {
            format!("p99 was over {} times the bound", whole(HOPELESS))
        } else if errors > 0 {
            format!("{errors} requests were refused or not sent")
        } else if p99.is_none_or(|p99| p99 > self.p99) {
            "p99 was over the bound".to_owned()
        } else if delivered < DELIVERED * float(rate) {
            "less was delivered than was asked for".to_owned()
        } else {
            String::new()
        };
        let holds = why.is_empty();
        let generator = summary.generator.saturated.as_ref().filter(|_| !holds);
        let why = generator.map_or(why.clone(), |reason| format!("{why}; the generator's limit: {reason}"));
        Step { rate, delivered_per_second: delivered, p99_ms: p99, holds, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that are tried for a server that holds up to `limit`, and what is found.
    fn found(limit: u64, settings: Capacity) -> (Vec<u64>, Option<u64>) {
        let mut search = Search::new(settings);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            assert!(tried.len() < 50, "{tried:?}");
            tried.push(rate);
            search.note(rate, rate <= limit);
        }
        (tried, search.good)
    }

    #[test]
    fn the_search_ends_near_the_limit_from_below() {
        for limit in [1, 3, 499, 500, 501, 12_345, 999_999] {
            let (tried, good) = found(limit, Capacity::default());
            let good = good.unwrap();
            assert!(good <= limit && float(limit - good) <= 0.05 * float(good) + 1.0, "{limit}: {good} by {tried:?}");
        }
        assert_eq!(found(0, Capacity::default()).1, None);
        assert_eq!(found(u64::MAX, Capacity { to: 3000, ..Capacity::default() }).1, Some(3000));
    }

    #[test]
    fn bounds_are_milliseconds() {
        assert_eq!(millis("50ms"), Ok(50.0));
        assert_eq!(millis("0.5"), Ok(0.5));
        for wrong in ["", "5s", "-1", "0", "nan"] {
            assert!(millis(wrong).is_err(), "{wrong}");
        }
    }
}
