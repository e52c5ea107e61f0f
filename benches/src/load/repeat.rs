//! The same run several times: figures are medians, and their spread is what a difference must exceed.

use super::LoadError;
use super::gate::Stop;
use super::measured::median;
use super::number::count;
use super::plan::Plan;
use super::slice::add;
use super::summary::{Figure, Summary, Verdict};
use super::view::View;

impl Plan {
    /// Runs it as often as `target.repeat` says. The result is that of the run whose first figure is the median; its
    /// figures are the medians of all runs, with a sample of each. Ledgers and errors are added up.
    ///
    /// # Errors
    /// As [`Plan::run`].
    pub fn repeat(&self, stop: &Stop, tell: &mut dyn FnMut(&View)) -> Result<Summary, LoadError> {
        let runs = self.target.repeat.max(1);
        let mut summaries: Vec<Summary> = Vec::new();
        for run in 1..=runs {
            let summary = self.run(stop, (run, Some(runs)), tell)?;
            let is_broken = summary.verdict == Verdict::Broken;
            summaries.push(summary);
            if is_broken || stop.is_stopped() {
                break;
            }
        }
        merge(summaries).ok_or_else(|| LoadError::System("nothing was run".to_owned()))
    }
}

/// One result of several; none of none.
fn merge(mut summaries: Vec<Summary>) -> Option<Summary> {
    if summaries.len() < 2 || summaries.iter().any(|summary| summary.verdict == Verdict::Broken) {
        return summaries.pop();
    }
    let value = |summary: &Summary| summary.figures.first().map_or(0.0, |figure| figure.value);
    summaries.sort_by(|one, other| value(one).total_cmp(&value(other)));
    let mut middle = summaries.get(summaries.len() / 2)?.clone();
    let figures = std::mem::take(&mut middle.figures);
    middle.figures = figures
        .into_iter()
        .map(|figure| {
            let samples: Vec<f64> =
                summaries.iter().filter_map(|summary| summary.figure(&figure.name)).map(|one| one.value).collect();
            Figure { value: median(&samples), samples, ..figure }
        })
        .collect();
    middle.errors.clear();
    middle.ledger = super::summary::LedgerCounts::default();
    for summary in &summaries {
        add(&mut middle.ledger, summary.ledger);
        for (code, times) in &summary.errors {
            *middle.errors.entry(code.clone()).or_default() += times;
        }
        if summary.verdict == Verdict::Saturated {
            middle.verdict = Verdict::Saturated;
            middle.generator.saturated = middle.generator.saturated.or_else(|| summary.generator.saturated.clone());
        }
    }
    if let Some(runs) = middle.settings.pointer_mut("/target/repeat") {
        *runs = count(summaries.len()).into();
    }
    Some(middle)
}
