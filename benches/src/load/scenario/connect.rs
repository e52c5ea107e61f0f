//! Handshakes: TCP, upgrade with token check, `welcome`, backlog, `drained`, goodbye, and the next one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Drive, begin, share};
use crate::load::LoadError;
use crate::load::device::Stage;
use crate::load::measured::Measured;
use crate::load::number::size;
use crate::load::settings::{Connect, Span};
use crate::load::slice::Timed;
use crate::load::summary::{Better, Figure};
use crate::load::worker::{Facts, Worker};

impl Drive for Connect {
    fn users(&self) -> usize {
        size(self.connections.into())
    }

    fn members(&self) -> usize {
        1
    }

    fn has_messages(&self) -> bool {
        false
    }

    fn drive(&self, worker: &mut Worker, span: &Span) -> Result<Facts, LoadError> {
        let (_, _, until) = begin(worker, span)?;
        let at_once = share(worker, self.at_once, self.connections);
        let mut away: VecDeque<usize> = (0..worker.devices.len()).collect();
        let mut under_way = 0;
        let mut looked = Instant::now();
        while !worker.is_over(until) {
            while under_way < at_once {
                let Some(next) = away.pop_front() else { break };
                worker.slice().begun += 1;
                worker.open(next)?;
                under_way += 1;
            }
            worker.turn(until)?;
            for index in worker.arrived.clone() {
                under_way -= 1;
                worker.slice().answered += 1;
                worker.close(index);
            }
            if looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                worker.give_up_connecting();
            }
            for (index, was) in &worker.ended {
                under_way -= usize::from(*was != Stage::Leaving);
                away.push_back(*index);
            }
        }
        while under_way > 0 && Instant::now() < until + Duration::from_secs(5) {
            worker.turn(Instant::now() + Duration::from_millis(100))?;
            let failed = worker.ended.iter().filter(|(_, was)| *was != Stage::Leaving).count();
            for index in worker.arrived.clone() {
                under_way -= 1;
                worker.close(index);
            }
            under_way = under_way.saturating_sub(failed);
        }
        Ok(Facts::new())
    }

    fn figures(&self, run: &Measured) -> Vec<Figure> {
        let rate = run.per_second("connects_per_second", "connections drained", Better::Higher, |slice| slice.arrived);
        let mut figures = vec![rate];
        figures.extend(run.percentiles(Timed::Drain));
        figures.extend(run.cpu(|slice| slice.arrived, "1,000 connections"));
        figures
    }
}
