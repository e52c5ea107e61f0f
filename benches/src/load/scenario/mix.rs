//! A day of a messenger: typing, messages of two sizes, reads, and some who send by REST.

use std::time::Instant;

use super::rate::Pacer;
use super::{Drive, begin, everybody};
use crate::dice::Dice;
use crate::load::LoadError;
use crate::load::device::Planned;
use crate::load::measured::{Measured, SERVER};
use crate::load::number::{count, float, size};
use crate::load::settings::{Mix, Soak, Span};
use crate::load::summary::{Better, Figure};
use crate::load::worker::{Facts, Worker};

/// Messages that are sent before the thread looks for answers again.
const BURST: usize = 32;

impl Drive for Mix {
    fn users(&self) -> usize {
        size(u64::from(self.members) * u64::from(self.conversations))
    }

    fn members(&self) -> usize {
        size(self.members.into())
    }

    fn drive(&self, worker: &mut Worker, span: &Span) -> Result<Facts, LoadError> {
        everybody(worker)?;
        let (start, _, until) = begin(worker, span)?;
        let devices = count(worker.devices.len());
        let mut dice = Dice::new(u64::from(worker.shared.run) ^ count(worker.index) << 32);
        let mut pacer = Pacer::new(start, self.rate, devices, count(self.users()));
        worker.notes_arrivals = self.reads > 0;
        while !worker.is_over(until) {
            let now = Instant::now();
            for _ in 0..BURST {
                let Some((_, at)) = pacer.due(now.min(until)) else { break };
                let sender = size(dice.within(0, devices));
                if dice.percent(self.typing) {
                    worker.with_wire(sender, |wire, out| wire.typing(true, out));
                }
                let size = if dice.percent(self.media) { size(self.media_size.into()) } else { worker.shared.size };
                worker.send(sender, Planned { at, size, by_rest: dice.percent(self.rest) })?;
            }
            worker.turn(pacer.wake().min(until))?;
            for (index, seq) in std::mem::take(&mut worker.came) {
                if dice.percent(self.reads) {
                    worker.with_wire(index, |wire, out| wire.read(seq, out));
                }
            }
        }
        worker.notes_arrivals = false;
        worker.settle()?;
        Ok(Facts::new())
    }

    fn figures(&self, run: &Measured) -> Vec<Figure> {
        let mut figures = run.traffic();
        figures.extend(growth(run));
        figures
    }
}

/// How fast the server's memory grows in the span, by the line that fits its seconds best.
fn growth(run: &Measured) -> Option<Figure> {
    let points: Vec<(f64, f64)> = run.rss_of(SERVER);
    let length = float(count(points.len()));
    if length < 2.0 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / length;
    let (middle, average) = (mean(|point| point.0), mean(|point| point.1));
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), (at, rss)| {
        (above + (at - middle) * (rss - average), below + (at - middle) * (at - middle))
    });
    let per_hour = crate::load::number::ratio(above, below) * 3600.0 / (1024.0 * 1024.0);
    Some(Figure::single("server_growth_mib_per_hour", "server memory grows by", "MiB/h", per_hour, Better::Lower))
}

/// The mix for a long time.
#[derive(Debug, Clone, PartialEq)]
pub struct Long {
    /// How long.
    pub soak: Soak,
    /// What is done.
    pub mix: Mix,
}

/// Seconds in which caches and pools fill, which is no growth.
const FILL: u64 = 60;

impl Drive for Long {
    fn users(&self) -> usize {
        self.mix.users()
    }

    fn members(&self) -> usize {
        self.mix.members()
    }

    fn has_span(&self) -> bool {
        false
    }

    fn drive(&self, worker: &mut Worker, _: &Span) -> Result<Facts, LoadError> {
        self.mix.drive(worker, &Span { warmup: FILL, seconds: self.soak.minutes * 60 })
    }

    fn figures(&self, run: &Measured) -> Vec<Figure> {
        let mut figures = self.mix.figures(run);
        if let Some(place) = figures.iter().position(|figure| figure.name.starts_with("server_growth")) {
            let growth = figures.remove(place);
            figures.insert(0, growth);
        }
        figures
    }
}
