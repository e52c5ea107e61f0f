//! The plots: what each shows, as points that the page's script draws.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::super::{
    number::float,
    summary::{LatencyFigures, Moment, Summary},
};
use super::{is_whole, letter, percentiles};

/// So many points in a row at most; a longer run has several seconds in each.
const POINTS: u64 = 1500;

/// One plot.
#[derive(Serialize)]
pub struct Plot {
    /// Stable name, also of the element that it is drawn in.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What must be known to read it; may be empty.
    pub note: String,
    /// Whether it takes the whole width.
    pub wide: bool,
    /// The unit of the values.
    unit: &'static str,
    /// `percentile` (the number of nines) or `seconds`.
    axis: &'static str,
    /// Whether the values' axis is logarithmic.
    log: bool,
    /// What is not part of the measured span, in seconds from and to.
    shade: Vec<[f64; 2]>,
    /// One is shown at a time.
    views: Vec<View>,
}

/// Lines that are shown together.
#[derive(Serialize)]
struct View {
    name: String,
    x: Vec<f64>,
    lines: Vec<Line>,
}

/// A line of a plot.
#[derive(Serialize)]
struct Line {
    name: String,
    color: usize,
    /// Less telling than the others.
    faint: bool,
    values: Vec<Option<f64>>,
}

/// How the seconds of one point come together.
#[derive(Clone, Copy)]
enum Fold {
    /// Of rates.
    Mean,
    /// Of what must not be hidden.
    Worst,
}

/// How a value is read; none where nothing was measured.
type Reading = Box<dyn Fn(&Moment) -> Option<f64>>;

/// A value of a moment.
struct Measure {
    name: String,
    color: usize,
    faint: bool,
    fold: Fold,
    value: Reading,
}

impl Measure {
    fn new(name: &str, color: usize, fold: Fold, value: impl Fn(&Moment) -> Option<f64> + 'static) -> Self {
        Self { name: name.to_owned(), color, faint: false, fold, value: Box::new(value) }
    }

    fn faint(self) -> Self {
        Self { faint: true, ..self }
    }
}

/// The runs that are drawn, each with its place in the list.
type Runs<'a> = [(usize, &'a Summary)];

/// The plots of all runs whose figures may be shown. A plot without a point is left out.
pub fn plots(summaries: &[Summary]) -> Vec<Plot> {
    let runs: Vec<(usize, &Summary)> = summaries.iter().enumerate().filter(|(_, run)| is_whole(run)).collect();
    let compares = summaries.len() > 1;
    let mut plots = vec![percentile_plot(&runs, compares)];
    let clock = Clock::of(&runs);
    let mut add = |name, title, unit, wide, log, groups: Vec<(&str, Vec<Measure>)>| {
        let views = groups.into_iter().flat_map(|(group, measures)| clock.views(&runs, compares, group, measures));
        let views =
            views.filter(|view| view.lines.iter().any(|line| line.values.iter().any(Option::is_some))).collect();
        let note = clock.note();
        plots.push(Plot { name, title, note, wide, unit, axis: "seconds", log, shade: clock.shade.clone(), views });
    };
    add(
        "latency",
        "Latency over time",
        "ms",
        true,
        true,
        vec![
            ("delivery", latency_measures(|moment| moment.delivery_ms)),
            ("answer", latency_measures(|moment| moment.answer_ms)),
        ],
    );
    add(
        "throughput",
        "Throughput",
        "/s",
        true,
        false,
        vec![(
            "",
            vec![
                Measure::new("delivered", 2, Fold::Mean, |moment| Some(moment.delivered_per_second)),
                Measure::new("answered", 0, Fold::Mean, |moment| Some(moment.answered_per_second)),
                Measure::new("sent", 5, Fold::Mean, |moment| Some(moment.sent_per_second)).faint(),
                Measure::new("errors", 3, Fold::Mean, |moment| Some(moment.errors_per_second)),
            ],
        )],
    );
    let names = process_names(&runs);
    add(
        "memory",
        "Resident memory",
        "MiB",
        false,
        false,
        vec![(
            "",
            process_measures(&names, Fold::Worst, |moment, name| {
                moment.rss_bytes.get(name).map(|bytes| float(*bytes) / 1_048_576.0)
            }),
        )],
    );
    add(
        "processors",
        "Processors used",
        "cores",
        false,
        false,
        vec![("", process_measures(&names, Fold::Mean, |moment, name| moment.cores.get(name).copied()))],
    );
    add(
        "in_flight",
        "In flight",
        "",
        false,
        false,
        vec![("", vec![Measure::new("not answered yet", 4, Fold::Worst, |moment| Some(float(moment.in_flight)))])],
    );
    add(
        "connections",
        "Connections",
        "",
        false,
        false,
        vec![("", vec![Measure::new("open", 0, Fold::Mean, |moment| Some(float(moment.connections)))])],
    );
    plots.retain(|plot| !plot.views.is_empty());
    plots
}

fn latency_measures(of: impl Fn(&Moment) -> Option<[f64; 3]> + Copy + 'static) -> Vec<Measure> {
    vec![
        Measure::new("p50", 2, Fold::Worst, move |moment| of(moment).map(|[p50, _, _]| p50)),
        Measure::new("p99", 0, Fold::Worst, move |moment| of(moment).map(|[_, p99, _]| p99)),
        Measure::new("max", 3, Fold::Worst, move |moment| of(moment).map(|[_, _, max]| max)).faint(),
    ]
}

fn process_names(runs: &Runs<'_>) -> BTreeSet<String> {
    let moments = runs.iter().flat_map(|(_, run)| &run.series);
    moments.flat_map(|moment| moment.cores.keys().chain(moment.rss_bytes.keys())).cloned().collect()
}

fn process_measures(
    names: &BTreeSet<String>,
    fold: Fold,
    value: impl Fn(&Moment, &str) -> Option<f64> + Copy + 'static,
) -> Vec<Measure> {
    // The server is what one looks for; the generator is there to rule it out.
    let rank = |name: &str| match name {
        "server" => (0, 0),
        "database" => (1, 4),
        "generator" => (9, 5),
        _ => (2, 1),
    };
    let mut ranked: Vec<(&String, (u8, usize))> = names.iter().map(|name| (name, rank(name))).collect();
    ranked.sort_by_key(|(_, rank)| *rank);
    ranked
        .into_iter()
        .map(|(name, (_, color))| {
            let key = name.clone();
            let measure = Measure::new(name, color, fold, move |moment| value(moment, &key));
            if name == "generator" { measure.faint() } else { measure }
        })
        .collect()
}

fn percentile_plot(runs: &Runs<'_>, compares: bool) -> Plot {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for latency in runs.iter().flat_map(|(_, run)| &run.latencies) {
        if !names.iter().any(|(name, _)| *name == latency.name) {
            names.push((&latency.name, &latency.title));
        }
    }
    let mut unreadable = BTreeSet::new();
    let mut line = |name: String, color: usize, latency: &LatencyFigures| match percentiles::histogram(&latency.hdr) {
        Some(histogram) => Some(Line { name, color, faint: false, values: percentiles::curve(&histogram) }),
        None => {
            unreadable.insert(latency.title.clone());
            None
        }
    };
    let mut views: Vec<View> = Vec::new();
    for (place, (name, title)) in names.iter().enumerate() {
        let found = runs
            .iter()
            .filter_map(|(run, summary)| Some((*run, summary.latencies.iter().find(|latency| latency.name == *name)?)));
        if compares {
            let lines = found.filter_map(|(run, latency)| line(letter(run), run % 6, latency)).collect();
            views.push(View { name: (*title).to_owned(), x: percentiles::nines(), lines });
        } else {
            let lines = found.filter_map(|(_, latency)| {
                line((*title).to_owned(), [2, 0, 4, 1, 3, 5].get(place).copied().unwrap_or(5), latency)
            });
            match views.first_mut() {
                Some(view) => view.lines.extend(lines),
                None => views.push(View { name: String::new(), x: percentiles::nines(), lines: lines.collect() }),
            }
        }
    }
    views.retain(|view| view.lines.iter().any(|line| line.values.iter().any(Option::is_some)));
    let note = match unreadable.into_iter().collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "Each line ends where fewer than one measurement lies beyond it.".to_owned(),
        names => format!("The histogram of {names} cannot be read."),
    };
    Plot {
        name: "percentiles",
        title: "Latency by percentile",
        note,
        wide: true,
        unit: "ms",
        axis: "percentile",
        log: true,
        shade: Vec::new(),
        views,
    }
}

/// The seconds of all runs, in steps that are few enough to draw.
struct Clock {
    /// Seconds in a step.
    step: u64,
    /// The first and the last step, none without a moment.
    span: Option<(u64, u64)>,
    /// The seconds in which no run was measured.
    shade: Vec<[f64; 2]>,
}

impl Clock {
    fn of(runs: &Runs<'_>) -> Self {
        let moments = || runs.iter().flat_map(|(_, run)| &run.series);
        let Some(last) = moments().map(|moment| second(moment.at)).max() else {
            return Self { step: 1, span: None, shade: Vec::new() };
        };
        let step = (last + 1).div_ceil(POINTS);
        let mut clock = Self { step, span: None, shade: Vec::new() };
        let first = moments().map(|moment| clock.step_of(moment)).min().unwrap_or_default();
        clock.span = Some((first, last / step));
        let measured: BTreeSet<u64> =
            moments().filter(|moment| moment.measured).map(|moment| clock.step_of(moment)).collect();
        if let (Some(begin), Some(end)) = (measured.first(), measured.last()) {
            let spans = [[first, *begin], [end + 1, last / step + 1]];
            let spans = spans.into_iter().filter(|[from, to]| from < to);
            clock.shade = spans.map(|span| span.map(|place| float(place * step))).collect();
        }
        clock
    }

    fn step_of(&self, moment: &Moment) -> u64 {
        second(moment.at) / self.step
    }

    fn note(&self) -> String {
        match self.step {
            1 => String::new(),
            step => {
                format!("Each point stands for {step} s: the mean, and for latency, memory and in flight the worst.")
            }
        }
    }

    /// One run: all measures together. Several: one view for each measure, with a line for each run.
    fn views(&self, runs: &Runs<'_>, compares: bool, group: &str, measures: Vec<Measure>) -> Vec<View> {
        let x = self.span.map(|(first, last)| (first..=last).map(|place| float(place * self.step)).collect());
        let x: Vec<f64> = x.unwrap_or_default();
        if !compares {
            let line = |(run, measure): (&Summary, Measure)| Line {
                values: self.values(run, &measure),
                name: measure.name,
                color: measure.color,
                faint: measure.faint,
            };
            let Some((_, run)) = runs.first() else { return Vec::new() };
            // The most telling one is drawn last, over the others.
            let lines = measures.into_iter().rev().map(|measure| line((run, measure))).collect();
            return vec![View { name: group.to_owned(), x, lines }];
        }
        let view = |measure: Measure| View {
            name: format!("{group} {}", measure.name).trim().to_owned(),
            x: x.clone(),
            lines: runs
                .iter()
                .map(|(place, run)| Line {
                    name: letter(*place),
                    color: place % 6,
                    faint: false,
                    values: self.values(run, &measure),
                })
                .collect(),
        };
        measures.into_iter().map(view).collect()
    }

    /// A value for each step; none where nothing was measured.
    fn values(&self, run: &Summary, measure: &Measure) -> Vec<Option<f64>> {
        let mut steps: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for moment in &run.series {
            let Some(value) = (measure.value)(moment).filter(|value| value.is_finite()) else { continue };
            let (folded, count) = steps.entry(self.step_of(moment)).or_insert((0.0, 0.0));
            match measure.fold {
                Fold::Mean => *folded += value,
                Fold::Worst => *folded = folded.max(value),
            }
            *count += 1.0;
        }
        let value = |step| {
            let (folded, count) = steps.get(&step)?;
            Some(match measure.fold {
                Fold::Mean => folded / count,
                Fold::Worst => *folded,
            })
        };
        self.span.map(|(first, last)| (first..=last).map(value).collect()).unwrap_or_default()
    }
}

/// The whole second nearest to a moment.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "this conversion saturates, and a day is the end of what can be drawn by the second"
)]
fn second(at: f64) -> u64 {
    // A summary that claims more than a year must not make a million empty points; `POINTS` holds for what is left.
    at.round().clamp(0.0, 31_536_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(count: u32) -> Vec<Moment> {
        (0..count)
            .map(|at| Moment {
                at: f64::from(at),
                measured: (5..count - 2).contains(&at),
                sent_per_second: f64::from(at),
                answer_ms: (at % 2 == 0).then_some([1.0, 2.0, f64::from(at)]),
                ..Moment::default()
            })
            .collect()
    }

    fn run(series: Vec<Moment>) -> Summary {
        Summary { series, ..super::super::tests::good("a run") }
    }

    #[test]
    fn what_is_not_measured_is_shaded() {
        let run = run(moments(30));
        let clock = Clock::of(&[(0, &run)]);
        assert_eq!((clock.step, clock.span), (1, Some((0, 29))));
        assert_eq!(clock.shade, [[0.0, 5.0], [28.0, 30.0]]);
    }

    #[test]
    fn a_second_without_a_measurement_is_a_hole() {
        let run = run(moments(8));
        let measures = latency_measures(|moment| moment.answer_ms);
        let values = Clock::of(&[(0, &run)]).values(&run, &measures[2]);
        assert_eq!(values, [Some(0.0), None, Some(2.0), None, Some(4.0), None, Some(6.0), None]);
    }

    #[test]
    fn a_long_run_is_drawn_in_few_points_that_hide_no_peak() {
        let run = run(moments(7201));
        let clock = Clock::of(&[(0, &run)]);
        assert_eq!(clock.step, 5);
        let peaks = clock.values(&run, &latency_measures(|moment| moment.answer_ms)[2]);
        assert!(peaks.len() <= 1500, "{}", peaks.len());
        assert_eq!(peaks.last().copied().flatten(), Some(7200.0));
        let sent = Measure::new("sent", 0, Fold::Mean, |moment| Some(moment.sent_per_second));
        assert_eq!(clock.values(&run, &sent).first().copied().flatten(), Some(2.0));
        assert!(clock.note().contains("5 s"));
    }
}
