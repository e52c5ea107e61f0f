//! Connections that do nothing: what each of them costs the server's memory.

use std::time::{Duration, Instant};

use super::{Drive, share};
use crate::load::LoadError;
use crate::load::measured::{Measured, SERVER};
use crate::load::number::{count, float, ratio, size};
use crate::load::settings::{Idle, Span};
use crate::load::slice::Timed;
use crate::load::summary::{Better, Figure};
use crate::load::worker::{Facts, Worker};

impl Drive for Idle {
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
        worker.meet()?;
        let all = worker.devices.len();
        let at_once = share(worker, self.at_once, self.connections);
        let begun = Instant::now();
        worker.open_all(0..all, at_once)?;
        let opened = begun.elapsed().as_secs_f64();
        let open = worker.connections();
        let from = worker.meet()?;
        let until = from + Duration::from_secs(self.settle + self.watch);
        worker.span(from + Duration::from_secs(self.settle), until);
        while !worker.is_over(until) {
            worker.turn(until)?;
        }
        let per_second = ratio(float(open), opened);
        let closed = float(count(all).saturating_sub(worker.connections()));
        Ok(Facts::from([("open", float(worker.connections())), ("per_second", per_second), ("closed", closed)]))
    }

    fn figures(&self, run: &Measured) -> Vec<Figure> {
        let fact = |name: &str| run.facts.get(name).copied().unwrap_or_default();
        let mut figures = Vec::new();
        if let Some(server) = run.processes.iter().find(|process| process.name == SERVER) {
            let grown = float(server.rss_end_bytes.saturating_sub(server.rss_start_bytes)) / 1024.0;
            let each = ratio(grown, fact("open"));
            figures.push(Figure::single(
                "kib_per_connection",
                "server memory per connection",
                "KiB",
                each,
                Better::Lower,
            ));
            let percent = server.cores * 100.0;
            figures.push(Figure::single("idle_server_percent", "server CPU while idle", "%", percent, Better::Lower));
        }
        figures.push(Figure::single("connections", "open connections", "", fact("open"), Better::Higher));
        let rate = fact("per_second");
        figures.push(Figure::single("opened_per_second", "connections opened", "/s", rate, Better::Higher));
        figures.extend(run.all_percentiles(Timed::Drain));
        figures
    }
}
