//! A generator thread: it owns devices, their connections and their ledger, and waits for all of them at once.
//!
//! There is no task per connection and no runtime: a thread polls, reads what has come into one buffer that all
//! connections share, tells the ledger, and writes once per connection and turn. A scenario is straight code that
//! calls [`Worker::turn`] until it has what it wants.

mod ending;
mod hear;
mod opening;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Token};

use super::LoadError;
use super::alarm::Alarm;
use super::device::{Device, Planned, Stage};
use super::gate::Gate;
use super::ledger::Outgoing;
use super::link::{Link, LinkError};
use super::name::Name;
use super::number::small;
use super::slice::{Slice, Timed};
use super::summary::LedgerCounts;
use super::thread_time::ThreadTime;
use super::users::User;
use super::wire::{Content, Event, Protocol, Wire, WireError};

/// Events that are acknowledged together …
const ACK_EVERY: u64 = 16;
/// … or after so long, if fewer came.
const ACK_AFTER: Duration = Duration::from_millis(50);
/// Sends of a device that may be unanswered: what the contract promises to take.
const MOST_UNANSWERED: u32 = 256;
/// How old an intended message may become before it is given up unsent.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How long goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// What is read at once, for all connections of the thread.
const SCRATCH: usize = 256 * 1024;
const ALARM: Token = Token(usize::MAX);

/// What all threads of a run know.
#[derive(Clone)]
pub struct Shared {
    /// The addresses: the member at place `i` of a conversation connects to the one at `i` modulo their number.
    pub addresses: Vec<(SocketAddr, String)>,
    /// Addresses of this machine that connections come from, in turn; empty: the system's choice.
    pub sources: Vec<IpAddr>,
    /// How it is spoken.
    pub protocol: Protocol,
    /// What a message carries.
    pub content: Content,
    /// Bytes of ciphertext.
    pub size: usize,
    /// The run's own number.
    pub run: u32,
    /// Members of a conversation.
    pub members: usize,
    /// Where threads wait for each other.
    pub gate: Arc<Gate>,
}

/// What a thread tells.
pub enum Report {
    /// It waits at the gate.
    Waiting,
    /// A second is over.
    Slice(usize, Box<Slice>),
    /// What is measured, as far as this thread is concerned.
    Span(usize, Instant, Instant),
    /// It is done; what did not hold, and the scenario's own findings.
    Ended(usize, LedgerCounts, Facts),
    /// It cannot go on.
    Failed(LoadError),
}

/// Findings of a scenario: the threads' numbers are added up.
pub type Facts = std::collections::BTreeMap<&'static str, f64>;

/// How a device gets what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By its socket.
    Socket,
    /// By requests.
    Sync,
}

/// A generator thread.
pub struct Worker {
    /// Its place among the threads.
    pub index: usize,
    /// What all threads know.
    pub shared: Shared,
    /// Its devices; conversations are whole, their members neighbours.
    pub devices: Vec<Device>,
    /// What each device has sent.
    pub books: Vec<Outgoing>,
    /// Devices that have got their backlog in this turn.
    pub arrived: Vec<usize>,
    /// Devices that have lost their connection in this turn, and where they were before.
    pub ended: Vec<(usize, Stage)>,
    /// Until when closed loops send.
    pub send_until: Instant,
    /// From when on intended messages are measured.
    pub measured_from: Option<Instant>,
    /// Whether a connection that ends without our doing is a failure; not so where connections are cut on purpose.
    pub are_ends_failures: bool,
    /// How devices that are opened from now on get what waits for them.
    pub by: By,
    /// The address that devices connect to from now on; none: by their place.
    pub only: Option<usize>,
    /// Whether a closed loop waits until its messages have come, not only for the answer.
    pub waits_for_arrival: bool,
    /// Whether messages that came are noted in `came`.
    pub notes_arrivals: bool,
    /// Devices that a message has come to in this turn, and its number.
    pub came: Vec<(usize, u64)>,
    /// The first reason for which a connection failed.
    pub first_failure: Option<String>,
    /// The number of the first device among all of the run.
    base: u32,
    poll: Poll,
    alarm: Alarm,
    ready: Events,
    scratch: Vec<u8>,
    heard: Vec<Event>,
    /// Connections that have more to read than the scratch took.
    again: Vec<usize>,
    acks: VecDeque<(Instant, usize)>,
    held: Vec<(Instant, usize)>,
    origin: Option<Instant>,
    slice: Slice,
    faults: LedgerCounts,
    in_flight: u64,
    connections: u64,
    phase: usize,
    time: ThreadTime,
    /// The clock of message ids, renewed every turn.
    millis: u64,
    seed: u64,
    reports: Sender<Report>,
}

impl Worker {
    /// A thread for these users; `base` is the number of the first among all.
    ///
    /// # Errors
    /// When the system has no poll or timer left.
    pub fn new(
        index: usize,
        shared: Shared,
        users: Vec<User>,
        base: usize,
        reports: Sender<Report>,
    ) -> Result<Self, LoadError> {
        let failed = |error: io::Error| LoadError::System(format!("no polling: {error}"));
        let poll = Poll::new().map_err(failed)?;
        let alarm = Alarm::new(&poll, ALARM).map_err(failed)?;
        let devices: Vec<Device> = users.into_iter().map(|user| Device::new(Rc::new(user))).collect();
        let books = devices.iter().map(|_| Outgoing::new(shared.members.saturating_sub(1))).collect();
        let seed = u64::from(shared.run) << 32 | u64::from(small(base)) << 1 | 1;
        Ok(Self {
            index,
            shared,
            devices,
            books,
            arrived: Vec::new(),
            ended: Vec::new(),
            send_until: Instant::now(),
            measured_from: None,
            are_ends_failures: true,
            by: By::Socket,
            only: None,
            waits_for_arrival: false,
            notes_arrivals: false,
            came: Vec::new(),
            first_failure: None,
            base: small(base),
            poll,
            alarm,
            ready: Events::with_capacity(1024),
            scratch: vec![0; SCRATCH],
            heard: Vec::new(),
            again: Vec::new(),
            acks: VecDeque::new(),
            held: Vec::new(),
            origin: None,
            slice: Slice::default(),
            faults: LedgerCounts::default(),
            in_flight: 0,
            connections: 0,
            phase: 0,
            time: ThreadTime::now(),
            millis: 0,
            seed,
            reports,
        })
    }

    /// A device's number among all of the run.
    pub fn number(&self, index: usize) -> usize {
        usize::try_from(self.base).unwrap_or_default() + index
    }

    /// Lets a device keep so many messages unanswered by itself from now on.
    pub fn keep(&mut self, index: usize, window: u32) {
        self.keep_for(index, window, u32::MAX);
    }

    /// The same, until it has sent so many.
    pub fn keep_for(&mut self, index: usize, window: u32, limit: u32) {
        if let Some(device) = self.devices.get_mut(index) {
            (device.window, device.limit) = (window, limit);
        }
        self.refill(index, Instant::now());
        self.flush(index);
    }

    /// Whether the load is over: at this moment, or because somebody stopped it.
    pub fn is_over(&self, until: Instant) -> bool {
        Instant::now() >= until || self.shared.gate.is_stopped()
    }

    /// The slice of the present second, for what a scenario counts itself.
    pub fn slice(&mut self) -> &mut Slice {
        &mut self.slice
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Waits, with everything going on, until all threads are here; the moment at which the next phase begins, which
    /// is a whole second after the first one's.
    ///
    /// # Errors
    /// As [`Worker::turn`].
    pub fn meet(&mut self) -> Result<Instant, LoadError> {
        self.tell(Report::Waiting);
        let at = loop {
            if let Some(at) = self.shared.gate.opened(self.phase) {
                break at;
            }
            if self.shared.gate.is_abandoned() {
                return Err(LoadError::System("stopped before it began".to_owned()));
            }
            self.turn(Instant::now() + Duration::from_millis(10))?;
        };
        self.phase += 1;
        while Instant::now() < at {
            self.turn(at)?;
        }
        if self.origin.is_none() {
            self.origin = Some(at);
            self.time = ThreadTime::now();
            // What was opened before is no part of the measurement; what failed is no secret.
            let errors = std::mem::take(&mut self.slice.errors);
            self.slice = Slice { errors, ..Slice::default() };
        }
        Ok(at)
    }

    /// Tells what is measured.
    pub fn span(&mut self, from: Instant, until: Instant) {
        self.measured_from = Some(from);
        self.tell(Report::Span(self.index, from, until));
    }

    fn tell(&self, report: Report) {
        // Without a conductor there is nobody to miss it.
        let _ = self.reports.send(report);
    }

    /// Says goodbye for some devices and waits a little.
    ///
    /// # Errors
    /// As [`Worker::turn`].
    pub fn close_these(&mut self, devices: impl Iterator<Item = usize> + Clone) -> Result<(), LoadError> {
        for index in devices.clone() {
            self.close(index);
        }
        let until = Instant::now() + GOODBYE;
        let is_open = |device: Option<&Device>| device.is_some_and(|device| device.link.is_some());
        while Instant::now() < until && devices.clone().any(|index| is_open(self.devices.get(index))) {
            self.turn(until.min(Instant::now() + Duration::from_millis(100)))?;
        }
        for index in devices {
            self.cut(index);
        }
        Ok(())
    }

    /// Whether a device that keeps messages unanswered has some to send or to wait for.
    pub fn has_unanswered(&self) -> bool {
        let is_busy = |(device, book): (&Device, &Outgoing)| {
            book.unanswered() > 0 || (device.window > 0 && book.sent() < device.limit && device.link.is_some())
        };
        self.devices.iter().zip(&self.books).any(is_busy)
    }

    /// Sends a message as soon as there is room for it.
    ///
    /// # Errors
    /// When it goes by a request and the system has no socket left.
    pub fn send(&mut self, index: usize, planned: Planned) -> Result<(), LoadError> {
        if planned.by_rest {
            self.open_rest(index)?;
        }
        if let Some(device) = self.devices.get_mut(index) {
            device.queue.push_back(planned);
        }
        self.refill(index, Instant::now());
        self.flush(index);
        Ok(())
    }

    /// Has a device do something with its wire, if it is connected.
    pub fn with_wire(&mut self, index: usize, act: impl FnOnce(&mut dyn Wire, &mut Vec<u8>)) {
        if let Some(device) = self.devices.get_mut(index).filter(|device| device.stage == Stage::Here)
            && let Some(link) = &mut device.link
        {
            let (wire, out) = link.wire();
            act(wire, out);
            self.flush(index);
        }
    }

    /// Waits until something can be done, at most until this moment, and does it.
    ///
    /// # Errors
    /// When the system cannot poll.
    pub fn turn(&mut self, until: Instant) -> Result<(), LoadError> {
        self.arrived.clear();
        self.ended.clear();
        self.came.clear();
        let failed = |error: io::Error| LoadError::System(format!("polling failed: {error}"));
        let now = Instant::now();
        // What a scenario waits for is awaited to the microsecond; for all else milliseconds will do.
        let acks = self.acks.front().map(|(at, _)| *at);
        let end = self.origin.map(|origin| origin + Duration::from_secs(self.slice.second + 1));
        let coarse = self.held.iter().map(|(at, _)| *at).chain(acks).chain(end).min();
        let wait = match coarse {
            _ if !self.again.is_empty() => Duration::ZERO,
            Some(coarse) if coarse < until => coarse.saturating_duration_since(now),
            _ => self.alarm.until(until, now).map_err(failed)?,
        };
        match self.poll.poll(&mut self.ready, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(failed(error)),
            _ => {}
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.millis = u64::try_from(now.as_millis()).unwrap_or_default();
        let mut ready = std::mem::take(&mut self.again);
        let events = self.ready.iter().filter(|event| event.token() != ALARM);
        for event in events {
            ready.push(event.token().0);
            // The end may lie behind the bytes that are read now; nobody would tell of it again.
            if event.is_read_closed() || event.is_error() {
                self.again.push(event.token().0);
            }
        }
        for index in ready.drain(..) {
            self.serve(index);
        }
        if self.again.is_empty() {
            self.again = ready;
        }
        let now = Instant::now();
        self.acknowledge_what_is_due(now);
        self.release(now);
        self.end_slices(now);
        Ok(())
    }

    fn serve(&mut self, token: usize) {
        let by_rest = token >= self.devices.len();
        let index = if by_rest { token - self.devices.len() } else { token };
        let Some(device) = self.devices.get_mut(index) else { return };
        let Some(link) = (if by_rest { device.rest.as_mut() } else { device.link.as_mut() }) else { return };
        let mut heard = std::mem::take(&mut self.heard);
        let outcome = link.ready(&mut self.scratch, &mut heard);
        let now = Instant::now();
        for event in heard.drain(..) {
            self.hear(index, event, now, by_rest);
        }
        self.heard = heard;
        match outcome {
            Ok(true) => self.again.push(token),
            Ok(false) => {}
            Err(error) if by_rest => self.lose_rest(index, &error, now),
            Err(error) => {
                let code = match &error {
                    LinkError::Io(_) | LinkError::Ended => "connection".to_owned(),
                    LinkError::Wire(WireError::Upgrade { status, code }) if code.is_empty() => format!("http_{status}"),
                    LinkError::Wire(WireError::Upgrade { code, .. }) => code.clone(),
                    LinkError::Wire(WireError::Strange(_)) => "protocol".to_owned(),
                };
                return self.lose(index, code, &error.to_string());
            }
        }
        self.refill(index, now);
        if let Some(device) = self.devices.get(index) {
            let waiting = device.last - device.acknowledged;
            if waiting >= ACK_EVERY {
                self.acknowledge(index);
            } else if waiting > 0 && !device.is_ack_noted {
                self.note_ack(index, now);
            }
        }
        self.flush(index);
    }

    /// The connection for requests is gone: what was under way there may be stored or not.
    fn lose_rest(&mut self, index: usize, error: &LinkError, now: Instant) {
        let Some(device) = self.devices.get_mut(index) else { return };
        device.rest = None;
        let asked = std::mem::take(&mut device.asked);
        if !asked.is_empty() {
            self.first_failure.get_or_insert_with(|| error.to_string());
        }
        for count in asked {
            let code = "connection".into();
            let refused = Event::Refused { count: Some(count), code, retry_after_ms: None, is_unknown: true };
            self.hear(index, refused, now, false);
        }
    }

    fn note_ack(&mut self, index: usize, now: Instant) {
        if let Some(device) = self.devices.get_mut(index) {
            device.is_ack_noted = true;
            self.acks.push_back((now + ACK_AFTER, index));
        }
    }

    fn acknowledge_what_is_due(&mut self, now: Instant) {
        while let Some((_, index)) = self.acks.pop_front_if(|(at, _)| *at <= now) {
            if let Some(device) = self.devices.get_mut(index) {
                device.is_ack_noted = false;
            }
            self.acknowledge(index);
            self.flush(index);
        }
    }

    fn acknowledge(&mut self, index: usize) {
        let Some(device) = self.devices.get_mut(index) else { return };
        if device.last > device.acknowledged
            && let Some(link) = &mut device.link
        {
            device.acknowledged = device.last;
            let (wire, out) = link.wire();
            wire.acknowledge(device.last, out);
        }
    }

    /// Devices that were told to wait go on.
    fn release(&mut self, now: Instant) {
        if self.held.is_empty() {
            return;
        }
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(|(at, _)| *at <= now);
        self.held = held;
        let due: Vec<_> = due;
        for (_, index) in due {
            if let Some(device) = self.devices.get_mut(index) {
                device.hold = None;
            }
            self.refill(index, now);
            self.flush(index);
        }
    }

    /// Sends what may be sent now.
    pub(super) fn refill(&mut self, index: usize, now: Instant) {
        loop {
            let (Some(device), Some(book)) = (self.devices.get_mut(index), self.books.get(index)) else { return };
            // What is too old is given up whether there is room or not: the queue of a server that hangs has an end.
            while device.queue.pop_front_if(|planned| now > planned.at + GIVE_UP).is_some() {
                self.slice.error("not_sent");
            }
            if device.stage != Stage::Here {
                return;
            }
            let planned = if device.window > 0 {
                let open = if self.waits_for_arrival { book.unsettled() } else { device.in_flight.into() };
                let may = device.hold.is_none()
                    && book.sent() < device.limit
                    && open < device.window.into()
                    && now < self.send_until;
                may.then_some(Planned { at: now, size: self.shared.size, by_rest: false })
            } else if device.in_flight < MOST_UNANSWERED {
                device.queue.pop_front()
            } else {
                None
            };
            let Some(planned) = planned else { return };
            self.put(index, planned, now);
        }
    }

    fn put(&mut self, index: usize, planned: Planned, now: Instant) {
        let (Some(device), Some(book)) = (self.devices.get_mut(index), self.books.get_mut(index)) else { return };
        let Planned { at, size, by_rest } = planned;
        let Some(link) = (if by_rest { device.rest.as_mut() } else { device.link.as_mut() }) else { return };
        let name = Name { run: self.shared.run, sender: self.base + small(index), count: book.send(at) };
        let (wire, out) = link.wire();
        wire.send(name, size, self.millis, out);
        if by_rest {
            device.asked.push_back(name.count);
        }
        device.in_flight += 1;
        self.in_flight += 1;
        self.slice.begun += 1;
        if device.window == 0 && self.is_measured(at) {
            self.slice.record(Timed::Lag, now.saturating_duration_since(at));
        }
    }

    fn is_measured(&self, at: Instant) -> bool {
        self.measured_from.is_none_or(|from| at >= from)
    }

    pub(super) fn flush(&mut self, index: usize) {
        let Some(device) = self.devices.get_mut(index) else { return };
        if let Some(Err(error)) = device.rest.as_mut().map(Link::flush) {
            self.lose_rest(index, &error.into(), Instant::now());
        }
        let Some(link) = self.devices.get_mut(index).and_then(|device| device.link.as_mut()) else { return };
        if let Err(error) = link.flush() {
            self.lose(index, "connection", &error.to_string());
        }
    }

    /// A connection is gone.
    fn lose(&mut self, index: usize, code: impl Into<std::borrow::Cow<'static, str>>, reason: &str) {
        let Some(device) = self.devices.get_mut(index) else { return };
        if device.link.take().is_none() {
            return;
        }
        let was = std::mem::replace(&mut device.stage, Stage::Away);
        self.ended.push((index, was));
        if was == Stage::Here {
            self.connections -= 1;
        }
        if was != Stage::Leaving && (self.are_ends_failures || was != Stage::Here) {
            self.slice.error(code);
            self.first_failure.get_or_insert_with(|| reason.to_owned());
        }
    }

    fn end_slices(&mut self, now: Instant) {
        let Some(origin) = self.origin else { return };
        while now >= origin + Duration::from_secs(self.slice.second + 1) {
            self.end_slice();
        }
    }

    fn end_slice(&mut self) {
        let next = Slice { second: self.slice.second + 1, ..Slice::default() };
        let mut slice = std::mem::replace(&mut self.slice, next);
        slice.in_flight = self.in_flight;
        slice.connections = self.connections;
        slice.faults = self.faults;
        slice.busy = self.time.share();
        self.tell(Report::Slice(self.index, Box::new(slice)));
    }
}
