//! All connections end at once, by a cut or with their node, and all come back.

use std::time::{Duration, Instant};

use super::{AT_ONCE, Drive, check};
use crate::load::LoadError;
use crate::load::device::Stage;
use crate::load::measured::Measured;
use crate::load::number::{count, float, ratio, size};
use crate::load::settings::{Span, Storm};
use crate::load::slice::Timed;
use crate::load::summary::{Better, Figure};
use crate::load::worker::{Facts, Worker};

/// Before a refused one tries again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(300);

impl Drive for Storm {
    fn users(&self) -> usize {
        size(self.connections.into())
    }

    fn members(&self) -> usize {
        1
    }

    fn has_span(&self) -> bool {
        false
    }

    fn has_messages(&self) -> bool {
        false
    }

    fn drive(&self, worker: &mut Worker, _: &Span) -> Result<Facts, LoadError> {
        let all = worker.devices.len();
        let last = worker.shared.addresses.len().saturating_sub(1);
        let at_start = worker.meet()?;
        worker.only = Some(last);
        worker.open_all(0..all, AT_ONCE)?;
        check(worker)?;
        let unhurried = at_start.elapsed().as_secs_f64();
        if self.kill.is_some() {
            worker.close_these(0..all)?;
            worker.only = Some(0);
            worker.open_all(0..all, AT_ONCE)?;
            check(worker)?;
        }
        let from = worker.meet()?;
        let cut = from + Duration::from_secs(self.settle);
        while !worker.is_over(cut) {
            worker.turn(cut)?;
        }
        worker.are_ends_failures = false;
        worker.only = Some(last);
        worker.span(cut, cut + PATIENCE);
        let mut waiting: Vec<(Instant, usize)> = Vec::new();
        match self.kill {
            None => {
                for index in 0..all {
                    worker.cut(index);
                }
                waiting.extend((0..all).map(|index| (cut, index)));
            }
            // One thread kills for all.
            Some(pid) if worker.index == 0 => kill(pid)?,
            Some(_) => {}
        }
        let (mut back, mut failures) = (0, 0_u64);
        while back < all && !worker.is_over(cut + PATIENCE) {
            let now = Instant::now();
            let (due, later) = waiting.into_iter().partition::<Vec<_>, _>(|(at, _)| *at <= now);
            waiting = later;
            for (_, index) in due {
                worker.open(index)?;
            }
            worker.turn(now + PAUSE / 2)?;
            worker.give_up_connecting();
            let now = Instant::now();
            back += worker.arrived.len();
            for _ in 0..worker.arrived.len() {
                worker.slice().record(Timed::Return, now.saturating_duration_since(cut));
            }
            for (index, was) in worker.ended.clone() {
                if was == Stage::Here {
                    // The node took it along; the first attempt comes at once.
                    waiting.push((now, index));
                } else {
                    failures += 1;
                    waiting.push((now + PAUSE, index));
                }
            }
        }
        worker.span(cut, Instant::now());
        let (back, unhurried) = (float(count(back)), unhurried);
        Ok(Facts::from([("back", back), ("failures", float(failures)), ("unhurried", unhurried), ("threads", 1.0)]))
    }

    fn figures(&self, run: &Measured) -> Vec<Figure> {
        let fact = |name: &str| run.facts.get(name).copied().unwrap_or_default();
        let times = run.whole.times(Timed::Return);
        let of = |percent: f64| times.and_then(|times| times.percentile(percent)).unwrap_or_default() / 1000.0;
        let (last, middle) = (of(100.0), of(50.0));
        let unhurried = ratio(fact("unhurried"), fact("threads"));
        let figure =
            |name: &str, title: &str, unit: &str, value| Figure::single(name, title, unit, value, Better::Lower);
        vec![
            figure("storm_seconds", "until all were back and drained", "s", last),
            figure("storm_median_seconds", "until half of them were", "s", middle),
            figure("unhurried_seconds", "the same number, unhurried", "s", unhurried),
            figure("ratio", "storm by unhurried", "", ratio(last, unhurried)),
            figure("failed_attempts", "attempts that failed", "", fact("failures")),
            Figure::single("connections", "connections that came back", "", fact("back"), Better::Higher),
        ]
    }
}

#[cfg(unix)]
fn kill(pid: u32) -> Result<(), LoadError> {
    use rustix::process::{Pid, Signal, kill_process};

    let failed = |reason: String| LoadError::Settings(format!("--kill {pid}: {reason}"));
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| failed("is no process id".to_owned()))?;
    kill_process(pid, Signal::KILL).map_err(|error| failed(error.to_string()))
}

#[cfg(not(unix))]
fn kill(_: u32) -> Result<(), LoadError> {
    Err(LoadError::Settings("--kill works on Unix".to_owned()))
}
