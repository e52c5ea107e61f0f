//! The results as cards and tables: values, their noise, and how they compare with the first run's.

use super::super::{
    compare::{self, Change},
    summary::{Better, Figure, LatencyFigures, Summary},
    text,
};
use super::{is_whole, letter};

/// A percentile has no samples to tell its noise, so less than this is taken for none.
const CLOSE: f64 = 0.05;

/// One result of every run.
pub struct Card {
    /// For people.
    pub title: String,
    /// For people; may be empty.
    pub unit: String,
    /// Which direction is the better one, in words.
    pub better: &'static str,
    /// One per run, in their order.
    pub cells: Vec<Cell>,
}

/// One result of one run.
pub struct Cell {
    /// The run's letter.
    pub letter: String,
    /// The run's colour.
    pub color: usize,
    /// The value; none where the run has no such figure, or may show none.
    pub value: Option<String>,
    /// How far the samples lie apart.
    pub noise: Option<String>,
    /// The samples in their order, as percentages of the largest.
    pub bars: Vec<String>,
    /// Against the first run.
    pub ratio: Option<Ratio>,
}

/// A value against that of the first run.
#[derive(Debug, PartialEq, Eq)]
pub struct Ratio {
    /// As `1.24 ×`.
    pub text: String,
    /// A class: `better`, `worse` or `same`.
    pub kind: &'static str,
    /// What it means, in words.
    pub meaning: &'static str,
}

/// A latency of every run.
pub struct LatencyTable {
    /// For people.
    pub title: String,
    /// One per run that measured it.
    pub rows: Vec<LatencyRow>,
}

/// A latency of one run.
pub struct LatencyRow {
    /// The run's letter.
    pub letter: String,
    /// The run's colour.
    pub color: usize,
    /// How many were measured.
    pub count: String,
    /// From the smallest to the largest, each against the first run.
    pub times: Vec<(String, Option<Ratio>)>,
}

/// The figures of all runs: those of the first, then those that only others have.
pub fn cards(summaries: &[Summary]) -> Vec<Card> {
    let mut known: Vec<&Figure> = Vec::new();
    for figure in summaries.iter().filter(|summary| is_whole(summary)).flat_map(|summary| &summary.figures) {
        if !known.iter().any(|other| other.name == figure.name) {
            known.push(figure);
        }
    }
    let runs: Vec<(usize, &Summary)> = summaries.iter().enumerate().collect();
    known
        .into_iter()
        .map(|figure| Card {
            title: figure.title.clone(),
            unit: figure.unit.clone(),
            better: match figure.better {
                Better::Higher => "higher is better",
                Better::Lower => "lower is better",
            },
            cells: runs.iter().map(|(place, run)| cell(*place, run, summaries.first(), &figure.name)).collect(),
        })
        .collect()
}

fn cell(place: usize, summary: &Summary, first: Option<&Summary>, name: &str) -> Cell {
    let mine = figure(summary, name);
    let base = first.filter(|_| place > 0).and_then(|first| figure(first, name));
    Cell {
        letter: letter(place),
        color: place % 6,
        value: mine.map(|figure| text::number(figure.value)),
        noise: mine.and_then(noise),
        bars: mine.map(bars).unwrap_or_default(),
        ratio: mine.zip(base).zip(first).and_then(|((mine, base), first)| {
            let change = compare::row(base, mine, compare::floor(first, summary)).change;
            Ratio::new(mine.value / base.value, change)
        }),
    }
}

fn figure<'a>(summary: &'a Summary, name: &str) -> Option<&'a Figure> {
    summary.figures.iter().filter(|_| is_whole(summary)).find(|figure| figure.name == name)
}

/// The smallest and the largest sample; none when there are too few to tell.
fn range(figure: &Figure) -> Option<(f64, f64)> {
    let low = figure.samples.iter().copied().reduce(f64::min)?;
    let high = figure.samples.iter().copied().reduce(f64::max)?;
    (figure.samples.len() > 1).then_some((low, high))
}

fn noise(figure: &Figure) -> Option<String> {
    let (low, high) = range(figure)?;
    let apart = format!("{} to {}", text::number(low), text::number(high));
    if figure.value == 0.0 {
        return Some(apart);
    }
    Some(format!("± {}, {apart}", text::percent((high - low) / 2.0 / figure.value.abs())))
}

fn bars(figure: &Figure) -> Vec<String> {
    let highest = figure.samples.iter().copied().fold(0.0, f64::max);
    if figure.samples.len() < 2 || highest <= 0.0 {
        return Vec::new();
    }
    figure.samples.iter().map(|sample| format!("{:.1}", (sample / highest * 100.0).clamp(2.0, 100.0))).collect()
}

impl Ratio {
    /// None where there was nothing to divide by.
    fn new(ratio: f64, change: Change) -> Option<Self> {
        let (kind, meaning) = match change {
            Change::Same => ("same", "within noise"),
            Change::Better => ("better", "better"),
            Change::Worse => ("worse", "worse"),
        };
        ratio.is_finite().then(|| Self { text: format!("{} ×", text::number(ratio)), kind, meaning })
    }

    /// A latency against another.
    fn of_times(time: f64, base: f64) -> Option<Self> {
        let ratio = time / base;
        let change = match ratio {
            _ if (ratio - 1.0).abs() < CLOSE => Change::Same,
            _ if ratio < 1.0 => Change::Better,
            _ => Change::Worse,
        };
        Self::new(ratio, change)
    }
}

/// The latencies of all runs: those of the first, then those that only others have.
pub fn latencies(summaries: &[Summary]) -> Vec<LatencyTable> {
    let whole: Vec<(usize, &Summary)> = summaries.iter().enumerate().filter(|(_, summary)| is_whole(summary)).collect();
    let mut known: Vec<&LatencyFigures> = Vec::new();
    for latency in whole.iter().flat_map(|(_, summary)| &summary.latencies) {
        if !known.iter().any(|other| other.name == latency.name) {
            known.push(latency);
        }
    }
    let of = |summary: &'_ Summary, name: &str| summary.latencies.iter().find(|one| one.name == name).map(times);
    known
        .into_iter()
        .map(|latency| {
            let base = summaries.first().filter(|first| is_whole(first)).and_then(|first| of(first, &latency.name));
            let row = |(place, summary): &(usize, &Summary)| {
                let (count, times) = of(summary, &latency.name)?;
                let base = base.filter(|_| *place > 0).map(|(_, times)| times);
                let against = |at: usize, time: f64| Ratio::of_times(time, *base.as_ref()?.get(at)?);
                Some(LatencyRow {
                    letter: letter(*place),
                    color: place % 6,
                    count: text::count(count),
                    times: times
                        .iter()
                        .enumerate()
                        .map(|(at, time)| (text::number(*time), against(at, *time)))
                        .collect(),
                })
            };
            LatencyTable { title: latency.title.clone(), rows: whole.iter().filter_map(row).collect() }
        })
        .collect()
}

fn times(latency: &LatencyFigures) -> (u64, [f64; 7]) {
    let LatencyFigures { count, min_ms, mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = *latency;
    (count, [min_ms, mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64, better: Better, samples: &[f64]) -> Figure {
        let name = String::from("x");
        Figure { title: name.clone(), unit: name.clone(), name, value, better, samples: samples.to_vec() }
    }

    #[test]
    fn a_latency_is_better_when_it_is_less_and_the_same_when_it_is_near() {
        let kind = |time, base| Ratio::of_times(time, base).map(|ratio| ratio.kind);
        assert_eq!(kind(1.04, 1.0), Some("same"));
        assert_eq!(kind(0.94, 1.0), Some("better"));
        assert_eq!(kind(2.0, 1.0), Some("worse"));
        assert_eq!((kind(2.0, 0.0), kind(0.0, 0.0)), (None, None));
    }

    #[test]
    fn noise_is_how_far_samples_lie_apart() {
        let apart = figure(100.0, Better::Higher, &[98.0, 102.0, 100.0]);
        assert_eq!(noise(&apart).as_deref(), Some("± 2.0 %, 98.0 to 102"));
        assert_eq!(bars(&apart), ["96.1", "100.0", "98.0"]);
        assert_eq!(noise(&figure(100.0, Better::Higher, &[100.0])), None);
        assert_eq!(noise(&figure(0.0, Better::Lower, &[0.0, 0.0])).as_deref(), Some("0 to 0"));
    }
}
