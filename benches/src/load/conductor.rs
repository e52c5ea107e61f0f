//! Runs a plan: starts the generator threads, watches them and the processes, and adds up what they tell.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sotto_client::protocol::limits;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::LoadError;
use super::gate::{Gate, Stop};
use super::machine;
use super::measured::{DATABASE, GENERATOR, Measured, Part, SERVER, cut};
use super::name::Name;
use super::number::{count, float, ratio, size};
use super::plan::Plan;
use super::process::{Table, Usage, Watched};
use super::slice::{Slice, Timed, add};
use super::summary::{Generator, LedgerCounts, Machine, Moment, ProcessFigures, Summary, Target, VERSION, Verdict};
use super::users::{self, User};
use super::view::{Stage, View};
use super::wire::Content;
use super::worker::{Facts, Report, Shared, Worker};

/// Between two tellings while nothing else happens.
const TELL: Duration = Duration::from_millis(250);
/// A thread that is at work for a larger share of its time is at its end.
const BUSY: f64 = 0.9;
/// An open loop that is later than this, and by this share of what it measures, is at its end.
const LATE_MS: f64 = 2.0;
const LATE_SHARE: f64 = 0.2;

/// What the processes had used at one moment.
struct Sample {
    at: Instant,
    usage: Vec<Usage>,
}

/// A run that goes on.
struct Conductor<'a> {
    plan: &'a Plan,
    watched: Vec<Watched>,
    threads: usize,
    reports: Receiver<Report>,
    gate: Arc<Gate>,
    waiting: usize,
    origin: Option<Instant>,
    /// What each thread measures.
    spans: BTreeMap<usize, (Instant, Instant)>,
    /// Seconds that not every thread has told yet.
    open: BTreeMap<u64, (usize, Slice)>,
    slices: Vec<Slice>,
    samples: Vec<Sample>,
    ended: usize,
    faults: LedgerCounts,
    facts: Facts,
    view: View,
    so_far: Slice,
}

impl Plan {
    /// Runs it to the end; `tell` hears where it stands, a few times a second.
    ///
    /// # Errors
    /// When nothing can be measured: wrong settings, no server, no users.
    pub fn run(&self, stop: &Stop, run: (u32, Option<u32>), tell: &mut dyn FnMut(&View)) -> Result<Summary, LoadError> {
        let started = OffsetDateTime::now_utc();
        let drive = self.scenario.drive();
        let addresses = self.addresses()?;
        let users = self.users()?;
        let limit = machine::open_files();
        if limit < count(users.len()) + 64 {
            let text = format!("{} connections need as many open files, and the system allows {limit}", users.len());
            return Err(LoadError::System(text));
        }
        let watched = self.watched(&addresses)?;
        let gate = Arc::new(Gate::new(stop.clone()));
        let number = u32::try_from(started.unix_timestamp_nanos().unsigned_abs() / 1_000_000 % u128::from(Name::RUNS));
        let shared = Shared {
            addresses,
            sources: self.sources(),
            protocol: self.target.protocol,
            content: self.message.content,
            size: size(self.message.size.into()),
            run: number.unwrap_or_default(),
            members: drive.members(),
            gate: Arc::clone(&gate),
        };
        let of = count(users.len());
        let (sender, reports) = channel();
        let mut threads = Vec::new();
        let mut base = 0;
        for (index, share) in shares(users, drive.members(), size(self.target.threads.into())).into_iter().enumerate() {
            let (shared, plan, sender, length) = (shared.clone(), self.clone(), sender.clone(), share.len());
            threads.push(std::thread::spawn(move || {
                let failed = sender.clone();
                let work = || {
                    let mut worker = Worker::new(index, shared, share, base, sender)?;
                    let facts = plan.scenario.drive().drive(&mut worker, &plan.span)?;
                    worker.finish(facts)
                };
                if let Err(error) = work() {
                    // Without a conductor there is nobody to miss it.
                    let _ = failed.send(Report::Failed(error));
                }
            }));
            base += length;
        }
        drop(sender);
        let view = View {
            scenario: self.scenario.name().to_owned(),
            title: self.title(),
            urls: self.target.url.clone(),
            settings: self.to_json(),
            run,
            stage: Stage::Opening { open: 0, of },
            series: Vec::new(),
            sent: 0,
            answered: 0,
            delivered: 0,
            errors: BTreeMap::new(),
            ledger: LedgerCounts::default(),
            answer_ms: None,
            delivery_ms: None,
            generator: Generator::default(),
        };
        let mut conductor = Conductor {
            plan: self,
            watched,
            threads: threads.len(),
            reports,
            gate,
            waiting: 0,
            origin: None,
            spans: BTreeMap::new(),
            open: BTreeMap::new(),
            slices: Vec::new(),
            samples: Vec::new(),
            ended: 0,
            faults: LedgerCounts::default(),
            facts: Facts::new(),
            view,
            so_far: Slice::default(),
        };
        let outcome = conductor.conduct(tell);
        if outcome.is_err() {
            conductor.gate.abandon();
        }
        // A thread that panicked has said so; without it nothing adds up.
        let is_whole = threads.into_iter().map(JoinHandle::join).all(|joined| joined.is_ok());
        outcome?;
        if !is_whole {
            return Err(LoadError::System("a generator thread has broken down".to_owned()));
        }
        Ok(conductor.summary(started))
    }

    fn title(&self) -> String {
        self.target.title.clone().unwrap_or_else(|| self.scenario.name().to_owned())
    }

    fn addresses(&self) -> Result<Vec<(SocketAddr, String)>, LoadError> {
        let mut addresses = Vec::new();
        for url in &self.target.url {
            let refused = |reason: &str| LoadError::Settings(format!("{url}: {reason}"));
            let host = self.target.protocol.host(url).ok_or_else(|| refused(self.target.protocol.url_form()))?;
            let found = host.to_socket_addrs().map_err(|error| refused(&error.to_string()))?;
            let mut found: Vec<_> = found.collect();
            found.sort_by_key(|address| !address.is_ipv4());
            let address = *found.first().ok_or_else(|| refused("the name has no address"))?;
            if !address.ip().is_loopback() && !self.target.remote {
                return Err(refused("is not on this machine: say --remote if you may put load on it"));
            }
            addresses.push((address, host.to_owned()));
        }
        if addresses.is_empty() {
            return Err(LoadError::Settings("no --url: whom to drive".to_owned()));
        }
        Ok(addresses)
    }

    fn users(&self) -> Result<Vec<User>, LoadError> {
        let drive = self.scenario.drive();
        let members = drive.members();
        let needed = drive.users().next_multiple_of(members.max(1));
        if needed > size(Name::SENDERS.into()) {
            return Err(LoadError::Settings(format!("at most {} users", Name::SENDERS)));
        }
        if drive.has_messages() && self.message.content == Content::Envelopes {
            let others = members.saturating_sub(1);
            if others.saturating_mul(envelope(size(self.message.size.into()))) > limits::MAX_FRAME {
                let text =
                    "envelopes for so many members do not fit into a frame: --content shared, or fewer --members";
                return Err(LoadError::Settings(text.to_owned()));
            }
        }
        let seed = self.seed(needed);
        let Some(file) = &self.target.users else {
            return Err(LoadError::Users("no --users: who is driven".to_owned(), seed));
        };
        let read = users::read(file, needed).and_then(|users| {
            if members > 1 {
                users::conversations(&users, members)?;
            }
            Ok(users)
        });
        read.map_err(|error| match error {
            LoadError::Users(text, _) => LoadError::Users(text, seed),
            other => other,
        })
    }

    /// The command that makes the users.
    fn seed(&self, needed: usize) -> String {
        let drive = self.scenario.drive();
        let shape = if drive.members() > 2 { format!("--group {}", drive.members()) } else { "--pairs".to_owned() };
        format!("sotto user seed --count {} {shape} --out users.jsonl", needed.next_multiple_of(2))
    }

    fn sources(&self) -> Vec<IpAddr> {
        let last = u8::try_from(self.target.sources).unwrap_or(1);
        if last < 2 { Vec::new() } else { (1..=last).map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect() }
    }

    /// Processes that are watched: those that were named, listeners that were found, and this one.
    fn watched(&self, addresses: &[(SocketAddr, String)]) -> Result<Vec<Watched>, LoadError> {
        let mut watched: Vec<Watched> = Vec::new();
        for text in &self.target.pid {
            let (name, pid) = text.split_once('=').unwrap_or((SERVER, text));
            let pid = pid.parse().map_err(|_| LoadError::Settings(format!("--pid {text}: write PID or NAME=PID")))?;
            watched.push(Watched { name: name.to_owned(), pid });
        }
        watched.extend(self.target.database_pid.map(|pid| Watched { name: DATABASE.to_owned(), pid }));
        let table = Table::now();
        if let Some(gone) = watched.iter().find(|process| table.usage(process.pid).is_none()) {
            return Err(LoadError::Settings(format!("there is no process {} ({})", gone.pid, gone.name)));
        }
        if !watched.iter().any(|process| process.name == SERVER) {
            let local = addresses.iter().filter(|(address, _)| address.ip().is_loopback());
            for (place, pid) in local.filter_map(|(address, _)| machine::listener(*address)).enumerate() {
                let name = if place == 0 { SERVER.to_owned() } else { format!("{SERVER}-{}", place + 1) };
                if !watched.iter().any(|process| process.pid == pid) && pid != std::process::id() {
                    watched.push(Watched { name, pid });
                }
            }
        }
        watched.push(Watched { name: GENERATOR.to_owned(), pid: std::process::id() });
        Ok(watched)
    }
}

/// Users by thread; conversations stay whole.
fn shares(users: Vec<User>, members: usize, threads: usize) -> Vec<Vec<User>> {
    let members = members.max(1);
    let conversations = users.len().div_ceil(members);
    let threads = threads.clamp(1, conversations.max(1));
    let mut users = users.into_iter();
    let share = |thread: usize| {
        let until = |thread: usize| conversations * thread / threads * members;
        until(thread + 1) - until(thread)
    };
    (0..threads).map(|thread| users.by_ref().take(share(thread)).collect()).collect()
}

impl Conductor<'_> {
    fn conduct(&mut self, tell: &mut dyn FnMut(&View)) -> Result<(), LoadError> {
        self.sample();
        while self.ended < self.threads {
            let until = self.next_tick();
            match self.reports.recv_timeout(until.saturating_duration_since(Instant::now()).min(TELL)) {
                Ok(report) => self.take(report)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.stage();
                    tell(&self.view);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(LoadError::System("a generator thread has broken down".to_owned()));
                }
            }
            if Instant::now() >= until {
                self.sample();
            }
        }
        self.sample();
        self.stage();
        tell(&self.view);
        Ok(())
    }

    /// When the processes are looked at next: at each second's end.
    fn next_tick(&self) -> Instant {
        let last = self.samples.last().map_or_else(Instant::now, |sample| sample.at);
        match self.origin {
            Some(origin) if last >= origin => {
                let passed = last.duration_since(origin).as_secs_f64() + 0.05;
                origin + Duration::from_secs(super::number::whole(passed) + 1)
            }
            Some(origin) => origin,
            None => last + Duration::from_secs(1),
        }
    }

    fn sample(&mut self) {
        let table = Table::now();
        let last = self.samples.last();
        let usage = self.watched.iter().enumerate().map(|(place, process)| {
            let before = || last.and_then(|last| last.usage.get(place)).copied();
            // A process that is gone has used what it had used.
            table.usage(process.pid).or_else(|| Some(Usage { rss_bytes: 0, ..before()? })).unwrap_or_default()
        });
        let usage = usage.collect();
        self.samples.push(Sample { at: Instant::now(), usage });
    }

    fn take(&mut self, report: Report) -> Result<(), LoadError> {
        match report {
            Report::Waiting => {
                self.waiting += 1;
                if self.waiting == self.threads {
                    self.waiting = 0;
                    let soon = Instant::now() + Duration::from_millis(50);
                    let at = match self.origin {
                        None => soon,
                        Some(origin) => origin + Duration::from_secs(soon.duration_since(origin).as_secs() + 1),
                    };
                    self.origin.get_or_insert(at);
                    self.gate.open(at);
                }
            }
            Report::Slice(thread, slice) => self.slice(thread, *slice),
            Report::Span(thread, from, until) => _ = self.spans.insert(thread, (from, until)),
            Report::Ended(_, faults, facts) => {
                self.ended += 1;
                add(&mut self.faults, faults);
                for (name, value) in facts {
                    *self.facts.entry(name).or_default() += value;
                }
            }
            Report::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn slice(&mut self, _: usize, slice: Slice) {
        let second = slice.second;
        let (threads, sum) = self.open.entry(second).or_insert_with(|| (0, Slice { second, ..Slice::default() }));
        sum.add(&slice);
        *threads += 1;
        while let Some((threads, sum)) = self.open.remove(&count(self.slices.len())) {
            if threads < self.threads {
                self.open.insert(count(self.slices.len()), (threads, sum));
                break;
            }
            self.complete(sum);
        }
    }

    /// A second is over for all threads.
    fn complete(&mut self, slice: Slice) {
        let end = self.origin.map(|origin| origin + Duration::from_secs(slice.second + 1));
        if self.samples.last().map(|sample| sample.at) < end {
            self.sample();
        }
        let is_measured = self.is_measured(slice.second);
        let moment = self.moment(&slice, is_measured);
        self.view.series.push(moment);
        self.view.sent += slice.begun;
        self.view.answered += slice.answered;
        self.view.delivered += slice.delivered;
        for (code, count) in &slice.errors {
            *self.view.errors.entry(code.to_string()).or_default() += count;
        }
        self.view.ledger = slice.faults;
        self.view.generator = Generator {
            threads: self.threads,
            busiest_thread: slice.busy,
            lag_p99_ms: slice.times(Timed::Lag).and_then(|lag| lag.percentile(99.0)),
            saturated: busy(slice.busy),
        };
        if is_measured {
            self.so_far.add(&slice);
            let three = |timed| {
                let times = self.so_far.times(timed)?;
                Some([times.percentile(50.0)?, times.percentile(99.0)?, times.percentile(99.9)?])
            };
            self.view.answer_ms = three(Timed::Answer).or_else(|| three(Timed::Rest)).or_else(|| three(Timed::Drain));
            self.view.delivery_ms = three(Timed::Delivery);
        }
        self.slices.push(slice);
    }

    /// From the first moment that a thread measures to the last.
    fn span(&self) -> Option<(Instant, Instant)> {
        let from = self.spans.values().map(|(from, _)| *from).min()?;
        Some((from, self.spans.values().map(|(_, until)| *until).max()?))
    }

    /// The seconds of the span, as far as it is known: the first, and the first after it.
    fn seconds(&self) -> Option<(u64, u64)> {
        let (origin, (from, until)) = (self.origin?, self.span()?);
        let second = |at: Instant| at.saturating_duration_since(origin).as_millis().div_ceil(1000);
        Some((u64::try_from(second(from)).ok()?, u64::try_from(second(until)).ok()?))
    }

    fn is_measured(&self, second: u64) -> bool {
        self.seconds().is_some_and(|(from, until)| (from..until).contains(&second))
    }

    fn moment(&self, slice: &Slice, measured: bool) -> Moment {
        let three = |timed| {
            let times = slice.times(timed)?;
            Some([times.percentile(50.0)?, times.percentile(99.0)?, times.percentile(100.0)?])
        };
        let mut moment = Moment {
            at: float(slice.second + 1),
            measured,
            sent_per_second: float(slice.begun),
            answered_per_second: float(slice.answered),
            delivered_per_second: float(slice.delivered),
            errors_per_second: float(slice.errors.values().sum()),
            in_flight: slice.in_flight,
            connections: slice.connections,
            answer_ms: three(Timed::Answer).or_else(|| three(Timed::Rest)).or_else(|| three(Timed::Drain)),
            delivery_ms: three(Timed::Delivery),
            ..Moment::default()
        };
        if let Some(origin) = self.origin {
            let start = origin + Duration::from_secs(slice.second);
            let (before, after) = (self.nearest(start), self.nearest(start + Duration::from_secs(1)));
            if let (Some(before), Some(after)) = (before, after) {
                let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
                for (process, (before, after)) in self.watched.iter().zip(before.usage.iter().zip(&after.usage)) {
                    let used = after.cpu_seconds - before.cpu_seconds;
                    moment.cores.insert(process.name.clone(), ratio(used.max(0.0), seconds));
                    moment.rss_bytes.insert(process.name.clone(), after.rss_bytes);
                }
            }
        }
        moment
    }

    fn nearest(&self, at: Instant) -> Option<&Sample> {
        let distance =
            |sample: &&Sample| sample.at.saturating_duration_since(at) + at.saturating_duration_since(sample.at);
        self.samples.iter().rev().take(self.samples.len().min(100_000)).min_by_key(distance)
    }

    fn stage(&mut self) {
        let now = Instant::now();
        self.view.stage = match (self.origin, self.span()) {
            (Some(_), Some((from, _))) if now < from => {
                Stage::Warmup(self.origin.map(|origin| now.saturating_duration_since(origin)).unwrap_or_default())
            }
            (_, Some((from, until))) if now < until && !self.gate.is_stopped() => {
                Stage::Measuring(now - from, Some(until - from))
            }
            (_, Some((_, until))) => Stage::Settling(now.saturating_duration_since(until)),
            (_, None) => match self.view.stage {
                Stage::Opening { of, .. } => Stage::Opening { open: self.gate.arrived(), of },
                other => other,
            },
        };
    }

    fn summary(mut self, started: OffsetDateTime) -> Summary {
        // The last second is not a whole one.
        for (_, (_, slice)) in std::mem::take(&mut self.open) {
            self.complete(slice);
        }
        let (mut from, mut until) = self.seconds().unwrap_or_default();
        // A run that was stopped has measured whole seconds up to then.
        let loaded = count(self.slices.iter().rposition(|slice| slice.begun + slice.arrived > 0).unwrap_or_default());
        if self.gate.is_stopped() && loaded < until {
            until = loaded;
            from = from.min(until);
            let is_beyond = |moment: &Moment| moment.at > float(until);
            for moment in self.view.series.iter_mut().filter(|moment| is_beyond(moment)) {
                moment.measured = false;
            }
        }
        let measured = self.measured(from, until);
        let drive = self.plan.scenario.drive();
        let faults = self.faults;
        let is_broken = faults != LedgerCounts::default();
        let generator = self.generator(&measured);
        let verdict = match (is_broken, &generator.saturated) {
            (true, _) => Verdict::Broken,
            (false, Some(_)) => Verdict::Saturated,
            (false, None) => Verdict::Good,
        };
        let (figures, latencies) = if is_broken && !self.plan.target.tolerate_faults {
            (Vec::new(), Vec::new())
        } else {
            (drive.figures(&measured), measured.latencies())
        };
        let local = self.watched.iter().any(|process| process.name == SERVER);
        let target =
            Target { urls: self.plan.target.url.clone(), protocol: self.plan.target.protocol.name().to_owned(), local };
        Summary {
            version: VERSION,
            scenario: self.plan.scenario.name().to_owned(),
            title: self.plan.title(),
            started_at: started.format(&Rfc3339).unwrap_or_default(),
            settings: self.plan.to_json(),
            machine: Machine::here(),
            target,
            warmup_seconds: float(from),
            seconds: measured.seconds,
            verdict,
            ledger: faults,
            errors: std::mem::take(&mut self.view.errors),
            figures,
            latencies,
            processes: measured.processes,
            generator,
            series: std::mem::take(&mut self.view.series),
            steps: Vec::new(),
        }
    }

    fn measured(&self, from: u64, until: u64) -> Measured {
        let sum = |from: u64, until: u64| {
            let mut sum = Slice::default();
            for slice in self.slices.iter().filter(|slice| (from..until).contains(&slice.second)) {
                sum.add(slice);
            }
            sum
        };
        let mut total = sum(from, until);
        // What was meant for the span and came after it belongs to it, or the slowest would be left out.
        total.add_times(&sum(until, u64::MAX));
        let part = |(from, until): (u64, u64)| Part {
            slice: sum(from, until),
            seconds: float(until - from),
            cpu: self.used(from, until).into_iter().map(|(process, seconds)| (process.name.clone(), seconds)).collect(),
        };
        let seconds = float(until.saturating_sub(from));
        let operations = total.answered.max(total.arrived);
        Measured {
            seconds,
            exact_seconds: self.span().map_or(0.0, |(from, until)| (until - from).as_secs_f64()),
            rss: self.rss(from, until),
            whole: sum(0, u64::MAX),
            parts: cut(from, until).into_iter().map(part).collect(),
            facts: self.facts.clone(),
            processes: self.processes(from, until, operations),
            total,
        }
    }

    fn at(&self, second: u64) -> Option<&Sample> {
        self.nearest(self.origin? + Duration::from_secs(second))
    }

    /// Resident memory between two seconds, by process.
    fn rss(&self, from: u64, until: u64) -> BTreeMap<String, Vec<(f64, f64)>> {
        let mut rss: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        let Some(origin) = self.origin else { return rss };
        for sample in &self.samples {
            let at = sample.at.saturating_duration_since(origin).as_secs_f64();
            if at >= float(from) && at <= float(until) + 0.5 {
                for (process, usage) in self.watched.iter().zip(&sample.usage) {
                    rss.entry(process.name.clone()).or_default().push((at, float(usage.rss_bytes)));
                }
            }
        }
        rss
    }

    /// Processor seconds of each process between two seconds.
    fn used(&self, from: u64, until: u64) -> Vec<(&Watched, f64)> {
        let (Some(before), Some(after)) = (self.at(from), self.at(until)) else { return Vec::new() };
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
        // Samples lie a little beside the whole seconds.
        let scale = ratio(float(until.saturating_sub(from)), seconds);
        let used = before.usage.iter().zip(&after.usage).map(|(before, after)| after.cpu_seconds - before.cpu_seconds);
        self.watched.iter().zip(used.map(|used| used.max(0.0) * scale)).collect()
    }

    fn processes(&self, from: u64, until: u64, operations: u64) -> Vec<ProcessFigures> {
        let seconds = float(until.saturating_sub(from));
        let (Some(first), Some(end)) = (self.samples.first(), self.at(until)) else { return Vec::new() };
        let of = |(place, (process, cpu_seconds)): (usize, (&Watched, f64))| {
            let rss = |sample: &Sample| sample.usage.get(place).map_or(0, |usage| usage.rss_bytes);
            ProcessFigures {
                name: process.name.clone(),
                cpu_seconds,
                cores: ratio(cpu_seconds, seconds),
                cpu_seconds_per_1000: (operations > 0).then(|| ratio(1000.0 * cpu_seconds, float(operations))),
                rss_start_bytes: rss(first),
                rss_end_bytes: rss(end),
                rss_peak_bytes: self.samples.iter().map(rss).max().unwrap_or_default(),
            }
        };
        self.used(from, until).into_iter().enumerate().map(of).collect()
    }

    fn generator(&self, measured: &Measured) -> Generator {
        let busiest_thread = measured.parts.iter().map(|part| part.slice.busy).fold(0.0, f64::max);
        let lag_p99_ms = measured.total.times(Timed::Lag).and_then(|lag| lag.percentile(99.0));
        let delivery = measured.total.times(Timed::Answer).and_then(|times| times.percentile(99.0)).unwrap_or_default();
        let unsent = self.view.errors.get("not_sent").copied().unwrap_or_default();
        let is_late = |lag: &f64| *lag > LATE_MS && *lag > LATE_SHARE * delivery;
        let saturated = if let Some(reason) = busy(busiest_thread) {
            Some(reason)
        } else if let Some(lag) = lag_p99_ms.filter(is_late) {
            Some(format!("messages were sent up to {lag:.1} ms (p99) later than they were due"))
        } else if unsent > 0 && !self.plan.scenario.drive().expects_refusals() {
            Some(format!("{unsent} messages that were due were not sent: senders had too many unanswered"))
        } else {
            None
        };
        Generator { threads: self.threads, busiest_thread, lag_p99_ms, saturated }
    }
}

/// About how long an envelope with so many bytes of ciphertext is in a frame: two ids, the names of its members, base64.
const fn envelope(bytes: usize) -> usize {
    150 + bytes.div_ceil(3) * 4
}

/// Why a thread that was at work for such a share of a second is at its end; none: it is not.
fn busy(share: f64) -> Option<String> {
    let reason = || format!("a generator thread was at work {:.0} % of a second: take more --threads", share * 100.0);
    (share >= BUSY).then(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_stay_whole_among_threads() {
        let user = |number: usize| User {
            user_id: number.to_string(),
            device_id: number.to_string(),
            access_token: String::new(),
            conversation_id: (number / 4).to_string(),
        };
        for (users, threads, lengths) in
            [(40, 3, vec![12, 12, 16]), (8, 5, vec![4, 4]), (4, 1, vec![4]), (40, 1, vec![40])]
        {
            let shares = shares((0..users).map(user).collect(), 4, threads);
            assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
            assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), users);
        }
    }
}
