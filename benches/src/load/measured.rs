//! What was measured, from which the figures are made.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

use super::number::{count, float, ratio};
use super::slice::{Slice, Timed, Times};
use super::summary::{Better, Figure, LatencyFigures, ProcessFigures};
use super::worker::Facts;

/// The name of the server among the processes.
pub const SERVER: &str = "server";
/// The name of the database among the processes.
pub const DATABASE: &str = "database";
/// The name of this program among the processes.
pub const GENERATOR: &str = "generator";

/// The most parts into which a span is cut to judge the noise.
pub const PARTS: u64 = 10;

/// A part of the measured span.
pub struct Part {
    /// What was seen in it.
    pub slice: Slice,
    /// How long it was.
    pub seconds: f64,
    /// Processor seconds by process.
    pub cpu: BTreeMap<String, f64>,
}

/// What was measured.
pub struct Measured {
    /// The length of the span in whole seconds, in which everything is counted.
    pub seconds: f64,
    /// The length of the span from its first moment to its last.
    pub exact_seconds: f64,
    /// Resident memory in bytes by process, as seconds since the beginning and bytes.
    pub rss: BTreeMap<String, Vec<(f64, f64)>>,
    /// Everything in the span; its times also hold what was sent in the span and came after it.
    pub total: Slice,
    /// Everything before, in, and after the span.
    pub whole: Slice,
    /// The span in equal parts.
    pub parts: Vec<Part>,
    /// What the scenario found itself.
    pub facts: Facts,
    /// What the processes used.
    pub processes: Vec<ProcessFigures>,
}

impl Figure {
    /// A figure that is measured once in a run.
    #[must_use]
    pub fn single(name: &str, title: &str, unit: &str, value: f64, better: Better) -> Self {
        let (name, title, unit) = (name.to_owned(), title.to_owned(), unit.to_owned());
        Self { name, title, unit, value, better, samples: vec![value] }
    }
}

impl Measured {
    /// A count of the span, per second.
    #[must_use]
    pub fn per_second(&self, name: &str, title: &str, better: Better, of: fn(&Slice) -> u64) -> Figure {
        Figure {
            name: name.to_owned(),
            title: title.to_owned(),
            unit: "/s".to_owned(),
            value: ratio(float(of(&self.total)), self.seconds),
            better,
            samples: self.parts.iter().map(|part| ratio(float(of(&part.slice)), part.seconds)).collect(),
        }
    }

    /// Median, 99th and 99.9th percentile of a time in the span.
    #[must_use]
    pub fn percentiles(&self, timed: Timed) -> Vec<Figure> {
        percentiles(timed, &self.total, &self.parts)
    }

    /// The same over the whole run.
    #[must_use]
    pub fn all_percentiles(&self, timed: Timed) -> Vec<Figure> {
        percentiles(timed, &self.whole, &[])
    }

    /// What server and database used of the processor, together, per 1,000 operations.
    #[must_use]
    pub fn cpu(&self, of: fn(&Slice) -> u64, what: &str) -> Option<Figure> {
        let is_served = |name: &str| name != GENERATOR;
        let used: f64 = self.processes.iter().filter(|process| is_served(&process.name)).map(|p| p.cpu_seconds).sum();
        let operations = of(&self.total);
        if used <= 0.0 || operations == 0 {
            return None;
        }
        let sample = |part: &Part| {
            let used: f64 = part.cpu.iter().filter(|(name, _)| is_served(name)).map(|(_, seconds)| seconds).sum();
            ratio(1000.0 * used, float(of(&part.slice)))
        };
        Some(Figure {
            name: "cpu_seconds_per_1000".to_owned(),
            title: format!("server and database CPU per {what}"),
            unit: "s".to_owned(),
            value: ratio(1000.0 * used, float(operations)),
            better: Better::Lower,
            samples: self.parts.iter().map(sample).collect(),
        })
    }

    /// A process's resident memory in the span.
    #[must_use]
    pub fn rss_of(&self, name: &str) -> Vec<(f64, f64)> {
        self.rss.get(name).cloned().unwrap_or_default()
    }

    /// The figures of every scenario that sends messages.
    #[must_use]
    pub fn traffic(&self) -> Vec<Figure> {
        let mut figures = vec![
            self.per_second("delivered_per_second", "messages delivered", Better::Higher, |slice| slice.delivered),
            self.per_second("acked_per_second", "messages stored and answered", Better::Higher, |slice| slice.answered),
        ];
        figures.extend(self.percentiles(Timed::Delivery));
        figures.extend(self.percentiles(Timed::Answer));
        figures.extend(self.percentiles(Timed::Rest));
        figures.extend(self.cpu(|slice| slice.answered, "1,000 messages"));
        figures
    }

    /// Every time that was measured.
    #[must_use]
    pub fn latencies(&self) -> Vec<LatencyFigures> {
        let find = |timed| {
            let of = |slice: &Slice| slice.times(timed).and_then(|times: &Times| latency(timed, times));
            of(&self.total).or_else(|| of(&self.whole))
        };
        Timed::ALL.into_iter().filter(|timed| *timed != Timed::Lag).filter_map(find).collect()
    }
}

fn percentiles(timed: Timed, total: &Slice, parts: &[Part]) -> Vec<Figure> {
    let (name, title) = timed.names();
    let figure = |(percent, short, long): (f64, &str, &str)| {
        let of = |slice: &Slice| slice.times(timed).and_then(|times| times.percentile(percent));
        Some(Figure {
            name: format!("{name}_{short}_ms"),
            title: format!("{title}, {long}"),
            unit: "ms".to_owned(),
            value: of(total)?,
            better: Better::Lower,
            samples: parts.iter().filter_map(|part| of(&part.slice)).collect(),
        })
    };
    [(50.0, "p50", "p50"), (99.0, "p99", "p99"), (99.9, "p999", "p99.9")].into_iter().filter_map(figure).collect()
}

/// The figures of a histogram; none of an empty one.
fn latency(timed: Timed, times: &Times) -> Option<LatencyFigures> {
    let histogram = times.histogram().filter(|histogram| !histogram.is_empty())?;
    let millis = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
    let percentile = |percent: f64| millis(histogram.value_at_percentile(percent));
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).ok()?;
    let (name, title) = timed.names();
    Some(LatencyFigures {
        name: name.to_owned(),
        title: title.to_owned(),
        count: histogram.len(),
        min_ms: millis(histogram.min()),
        mean_ms: histogram.mean() / 1000.0,
        p50_ms: percentile(50.0),
        p90_ms: percentile(90.0),
        p99_ms: percentile(99.0),
        p999_ms: percentile(99.9),
        max_ms: millis(histogram.max()),
        hdr: STANDARD.encode(bytes),
    })
}

/// Cuts seconds from `from` until `until` into at most [`PARTS`] equal parts, without a rest: the rest is the last one's.
#[must_use]
pub fn cut(from: u64, until: u64) -> Vec<(u64, u64)> {
    let seconds = until.saturating_sub(from);
    let parts = seconds.min(PARTS);
    let Some(each) = seconds.checked_div(parts) else { return Vec::new() };
    let end = |part: u64| if part + 1 == parts { until } else { from + (part + 1) * each };
    (0..parts).map(|part| (from + part * each, end(part))).collect()
}

/// The middle of some numbers; 0 of none.
#[must_use]
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
    if count(sorted.len()).is_multiple_of(2) {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    } else {
        at(middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_cut_without_a_rest() {
        assert_eq!(cut(3, 3), []);
        assert_eq!(cut(3, 5), [(3, 4), (4, 5)]);
        let parts = cut(3, 28);
        assert_eq!(parts.len(), 10);
        assert_eq!((parts[0], parts[9]), ((3, 5), (21, 28)));
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }

    #[test]
    fn a_histogram_survives_its_text() {
        let mut times = Times::default();
        for millis in 1..=100 {
            times.record(Duration::from_millis(millis));
        }
        let figures = latency(Timed::Answer, &times).unwrap();
        assert_eq!(figures.count, 100);
        assert!((figures.p50_ms - 50.0).abs() < 0.1, "{figures:?}");
        let bytes = STANDARD.decode(&figures.hdr).unwrap();
        let histogram: hdrhistogram::Histogram<u64> =
            hdrhistogram::serialization::Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        assert_eq!(histogram.len(), 100);
        assert_eq!(Duration::from_micros(histogram.value_at_percentile(99.0)).as_millis(), 99);
    }
}
