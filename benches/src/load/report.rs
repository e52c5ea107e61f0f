//! The report of one or several runs: one HTML file that loads nothing, to keep and to show around.
//!
//! Everything that is needed is inside: style, script, the plots' library and their points. A policy in the page forbids
//! the browser to load anything, so that it shows the same in ten years and on a machine without a network.

mod figures;
mod percentiles;
mod plots;
mod run;
mod search;

use askama::Template;

use self::{
    figures::{Card, LatencyTable},
    plots::Plot,
    run::{Run, Setting},
    search::Search,
};
use super::summary::{Summary, Verdict};

/// uPlot 1.6.32, as its package has it; `uplot/LICENSE` goes into the page with it.
const UPLOT: &str = include_str!("report/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("report/uplot/uPlot.min.css");
const UPLOT_LICENSE: &str = include_str!("report/uplot/LICENSE");
const STYLE: &str = include_str!("report/page.css");
const SCRIPT: &str = include_str!("report/page.js");

/// The page, in the words of `page.html`.
#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    title: String,
    runs: Vec<Run<'a>>,
    cards: Vec<Card>,
    latencies: Vec<LatencyTable>,
    searches: Vec<Search<'a>>,
    plots: Vec<Plot>,
    settings: Vec<Setting>,
}

impl Page<'_> {
    /// Whether runs are compared.
    fn compares(&self) -> bool {
        self.runs.len() > 1
    }

    /// How many cards stand side by side on a wide screen, so that the last row is as full as can be.
    fn columns(&self) -> usize {
        let most = if self.compares() { 3 } else { 5 };
        let missing = |columns: &usize| (columns - self.cards.len() % columns) % columns;
        if self.cards.len() <= most {
            return self.cards.len().max(2);
        }
        (3..=most).rev().min_by_key(missing).unwrap_or(most)
    }

    /// Whether there is a run whose figures may be shown.
    fn has_figures(&self) -> bool {
        self.runs.iter().any(|run| run.is_whole)
    }
}

/// The page for one run, or for several side by side: each is compared with the first.
///
/// A run with a broken ledger shows its ledger and what it was, and no figure. Of a page without a run only its frame
/// remains.
#[must_use]
pub fn html(summaries: &[Summary]) -> String {
    let page = Page {
        title: title(summaries),
        runs: summaries.iter().enumerate().map(|(place, summary)| Run::new(place, summary)).collect(),
        cards: figures::cards(summaries),
        latencies: figures::latencies(summaries),
        searches: search::searches(summaries),
        plots: plots::plots(summaries),
        settings: run::settings(summaries),
    };
    // It writes to a string, which does not fail.
    page.render().unwrap_or_else(|error| format!("the report could not be made: {error}"))
}

fn title(summaries: &[Summary]) -> String {
    match summaries {
        [] => "No run".to_owned(),
        [one] => one.title.clone(),
        [first, second] => format!("{} and {}", first.title, second.title),
        [first, others @ ..] => format!("{} and {} others", first.title, others.len()),
    }
}

/// Whether a run's figures may be shown.
fn is_whole(summary: &Summary) -> bool {
    summary.verdict != Verdict::Broken && summary.ledger == super::summary::LedgerCounts::default()
}

/// The letter of a run in a comparison: A, B, … and numbers after Z.
fn letter(place: usize) -> String {
    match u8::try_from(place).ok().and_then(|place| b'A'.checked_add(place)) {
        Some(letter @ b'A'..=b'Z') => char::from(letter).to_string(),
        _ => (place + 1).to_string(),
    }
}

#[cfg(test)]
mod tests;
