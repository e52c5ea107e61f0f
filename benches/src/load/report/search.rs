//! The steps of a search for the capacity: which rates were tried, and why the bound did not hold.

use super::super::{summary::Summary, text};
use super::{is_whole, letter};

/// The search of a run.
pub struct Search<'a> {
    /// The run's letter.
    pub letter: String,
    /// The run's colour.
    pub color: usize,
    /// In their order.
    pub steps: Vec<Step<'a>>,
}

/// A step, for people.
pub struct Step<'a> {
    /// From 1.
    pub number: usize,
    /// Messages per second that were asked for.
    pub rate: String,
    /// Messages per second that were delivered.
    pub delivered: String,
    /// From send to delivery, in milliseconds.
    pub p99: String,
    /// Whether the bound held.
    pub holds: bool,
    /// Whether it did, and why not.
    pub verdict: &'a str,
}

/// The searches among the runs.
pub fn searches(summaries: &[Summary]) -> Vec<Search<'_>> {
    let searched = |(_, summary): &(usize, &Summary)| is_whole(summary) && !summary.steps.is_empty();
    let all = summaries.iter().enumerate().filter(searched).map(|(place, summary)| {
        let steps = summary.steps.iter().enumerate().map(|(number, step)| Step {
            number: number + 1,
            rate: text::count(step.rate),
            delivered: text::number(step.delivered_per_second),
            p99: step.p99_ms.map_or_else(|| "–".to_owned(), text::number),
            holds: step.holds,
            verdict: if step.holds { "holds" } else { &step.why },
        });
        Search { letter: letter(place), color: place % 6, steps: steps.collect() }
    });
    all.collect()
}
