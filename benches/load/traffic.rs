//! Pairs of devices that write to each other, in a closed or an open loop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;
use hdrhistogram::Histogram;
use serde::Deserialize;
use sotto_protocol::frame::RawFrame;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::connection::Connection;
use crate::ledger::{Faults, Ledger};
use crate::{Traffic, User, process};

/// Events that are acknowledged together …
const ACK_EVERY: u64 = 16;
/// … or after so long, if fewer came.
const ACK_AFTER: Duration = Duration::from_millis(50);
/// How long what was sent may take to come in the end.
const GRACE: Duration = Duration::from_secs(15);
/// Connections that a thread opens at the same time.
const AT_ONCE: usize = 32;

/// When a message is sent.
#[derive(Clone, Copy)]
pub enum Pace {
    /// As soon as fewer than so many are unanswered.
    InFlight(usize),
    /// So many a second over all senders.
    PerSecond(u64),
}

/// The measured time.
#[derive(Clone, Copy)]
struct Span {
    from: Instant,
    until: Instant,
}

/// What a thread has seen.
struct Tally {
    answered: u64,
    delivered: u64,
    answers: Histogram<u64>,
    deliveries: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    faults: Faults,
    unanswered: usize,
}

impl Tally {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        Self {
            answered: 0,
            delivered: 0,
            answers: histogram(),
            deliveries: histogram(),
            errors: BTreeMap::new(),
            faults: Faults::default(),
            unanswered: 0,
        }
    }

    fn merge(&mut self, other: Self) {
        self.answered += other.answered;
        self.delivered += other.delivered;
        self.answers.add(other.answers).unwrap();
        self.deliveries.add(other.deliveries).unwrap();
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.faults.add(other.faults);
        self.unanswered += other.unanswered;
    }

    fn error(&mut self, code: impl Into<String>) {
        *self.errors.entry(code.into()).or_default() += 1;
    }
}

/// The intended moments of an open loop, one queue per sender.
type Due = mpsc::UnboundedReceiver<Instant>;

/// A device that is to be connected.
struct Part {
    user: User,
    /// The first or the second of its pair.
    side: usize,
    out: Option<(Rc<RefCell<Ledger>>, Option<Due>)>,
    inbound: Option<Rc<RefCell<Ledger>>>,
}

/// Runs it and prints what came of it. `false`: the ledger does not balance.
pub fn run(traffic: &Traffic, pace: Pace) -> bool {
    let users = traffic.target.load(traffic.pairs * 2);
    let mut due = Vec::new();
    let mut shares: Vec<Vec<_>> = (0..traffic.threads).map(|_| Vec::new()).collect();
    for (index, pair) in users.chunks(2).enumerate() {
        let queues: Vec<Option<Due>> = (0..2)
            .map(|side| {
                let is_paced = matches!(pace, Pace::PerSecond(_)) && (side == 0 || traffic.both);
                is_paced.then(|| {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    due.push(sender);
                    receiver
                })
            })
            .collect();
        shares[index % traffic.threads].push((pair[0].clone(), pair[1].clone(), queues));
    }
    let (gate, opened) = watch::channel(None::<Span>);
    let (ready, is_ready) = blocking::channel();
    let threads: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let (traffic, opened, ready) = (traffic.clone(), opened.clone(), ready.clone());
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                LocalSet::new().block_on(&runtime, generate(traffic, pace, share, opened, ready))
            })
        })
        .collect();
    drop(ready);
    for _ in &threads {
        is_ready.recv().expect("all connections open");
    }
    let start = Instant::now() + Duration::from_millis(50);
    let from = start + Duration::from_secs(traffic.warmup);
    let span = Span { from, until: from + Duration::from_secs(traffic.seconds) };
    gate.send(Some(span)).unwrap();
    if let Pace::PerSecond(rate) = pace {
        thread::spawn(move || keep_pace(start, span.until, rate, &due));
    }
    let pids = [traffic.target.pid, traffic.target.database_pid, Some(std::process::id()), traffic.peer_pid];
    let seconds = || pids.map(|pid| pid.map(process::processor_seconds));
    thread::sleep(span.from.saturating_duration_since(Instant::now()));
    let before = seconds();
    thread::sleep(span.until.saturating_duration_since(Instant::now()));
    let after = seconds();
    let mut tally = Tally::new();
    for thread in threads {
        tally.merge(thread.join().expect("a generator thread"));
    }
    let used: Vec<Option<f64>> = before.iter().zip(after).map(|(before, after)| Some(after? - (*before)?)).collect();
    report(traffic, &tally, &used)
}

/// Tells the senders in turn when to send. A thread of its own: timers of the runtime are rounded to milliseconds.
fn keep_pace(start: Instant, until: Instant, rate: u64, senders: &[mpsc::UnboundedSender<Instant>]) {
    for tick in 0.. {
        let at = start + Duration::from_nanos(tick * 1_000_000_000 / rate);
        if at >= until {
            return;
        }
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // A sender that has ended is in the tally already.
        let _ = senders[tick as usize % senders.len()].send(at);
    }
}

async fn generate(
    traffic: Traffic,
    pace: Pace,
    share: Vec<(User, User, Vec<Option<Due>>)>,
    mut opened: watch::Receiver<Option<Span>>,
    ready: blocking::Sender<()>,
) -> Tally {
    let ledger = || Rc::new(RefCell::new(Ledger::default()));
    let mut parts = Vec::new();
    let mut ledgers = Vec::new();
    for (first, second, queues) in share {
        let mut queues = queues.into_iter();
        let there = ledger();
        let back = traffic.both.then(ledger);
        ledgers.push(Rc::clone(&there));
        ledgers.extend(back.clone());
        let out = Some((Rc::clone(&there), queues.next().flatten()));
        parts.push(Part { user: first, side: 0, out, inbound: back.clone() });
        let out = back.map(|back| (back, queues.next().flatten()));
        parts.push(Part { user: second, side: 1, out, inbound: Some(there) });
    }
    let addresses = [
        traffic.target.address(),
        traffic.peer_url.as_deref().map_or_else(|| traffic.target.address(), crate::address_of),
    ];
    let opening = stream::iter(parts).map(|part| async {
        let connection = Connection::open(&addresses[part.side], &part.user.access_token).await;
        (connection.unwrap_or_else(|error| panic!("no connection: {error}")), part)
    });
    let connected: Vec<_> = opening.buffer_unordered(AT_ONCE).collect().await;
    ready.send(()).unwrap();
    let span = opened.wait_for(Option::is_some).await.unwrap().expect("a span");
    let tally = Rc::new(RefCell::new(Tally::new()));
    let tasks: Vec<_> = connected
        .into_iter()
        .map(|(connection, part)| {
            let device = Device::new(&traffic, pace, part, span, Rc::clone(&tally));
            tokio::task::spawn_local(device.run(connection))
        })
        .collect();
    for task in tasks {
        task.await.expect("a device's task");
    }
    let mut tally = Rc::into_inner(tally).expect("all tasks have ended").into_inner();
    for ledger in ledgers {
        let mut ledger = ledger.borrow_mut();
        let faults = ledger.close();
        tally.faults.add(faults);
        tally.unanswered += ledger.unanswered();
    }
    tally
}

/// A connected device that sends, receives, or both.
struct Device {
    pace: Pace,
    span: Span,
    tally: Rc<RefCell<Tally>>,
    out: Option<Rc<RefCell<Ledger>>>,
    due: Option<Due>,
    inbound: Option<Rc<RefCell<Ledger>>>,
    /// The frame after the message's id and count.
    tail: String,
    in_flight: usize,
    /// The last durable event, the last one that was acknowledged, and the last one that was confirmed.
    last: u64,
    acknowledged: u64,
    confirmed: u64,
    unacknowledged_since: Instant,
}

#[derive(Deserialize)]
struct Sent {
    seq: i64,
    duplicate: bool,
}

#[derive(Deserialize)]
struct Arrived {
    seq: i64,
    #[serde(default)]
    client_seq: Option<i64>,
    #[serde(default)]
    after_seq: i64,
}

#[derive(Deserialize)]
struct Confirmed {
    n: u64,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
}

impl Device {
    fn new(traffic: &Traffic, pace: Pace, part: Part, span: Span, tally: Rc<RefCell<Tally>>) -> Self {
        let user = part.user;
        // Any base64url text of the length; "A" is six zero bits.
        let ciphertext = "A".repeat(traffic.size.div_ceil(3) * 4);
        let content = if traffic.shared {
            format!(r#""ciphertext":"{ciphertext}""#)
        } else {
            let (peer, device) = (user.peer_user_id.as_deref(), user.peer_device_id.as_deref());
            let (peer, device) = (peer.expect("seeded with --pairs"), device.expect("seeded with --pairs"));
            format!(
                r#""envelopes":[{{"user_id":"{peer}","device_id":"{device}","type":1,"ciphertext":"{ciphertext}"}}]"#
            )
        };
        let tail = format!(r#","conversation_id":"{}","kind":"text",{content}}}}}"#, user.conversation_id);
        let (out, due) = part.out.map_or((None, None), |(out, due)| (Some(out), due));
        Self {
            pace,
            span,
            tally,
            out,
            due,
            inbound: part.inbound,
            tail,
            in_flight: 0,
            last: 0,
            acknowledged: 0,
            confirmed: 0,
            unacknowledged_since: Instant::now(),
        }
    }

    async fn run(mut self, mut connection: Connection) {
        if let Err(error) = self.work(&mut connection).await {
            eprintln!("a connection failed: {error}");
            self.tally.borrow_mut().error("connection");
            return;
        }
        connection.close().await;
    }

    async fn work(&mut self, connection: &mut Connection) -> Result<(), String> {
        let mut ticks = tokio::time::interval(ACK_AFTER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = Instant::now();
            self.send(connection, now).await?;
            let is_over = now >= self.span.until;
            let waiting = self.last - self.acknowledged;
            let is_due = waiting >= ACK_EVERY || now.duration_since(self.unacknowledged_since) >= ACK_AFTER || is_over;
            if waiting > 0 && is_due {
                self.acknowledged = self.last;
                connection.put(format!(r#"{{"t":"ack","d":{{"n":{}}}}}"#, self.last)).await?;
            }
            connection.flush().await?;
            if is_over && self.is_settled() {
                return Ok(());
            }
            if now > self.span.until + GRACE {
                let missing = self.confirmed < self.acknowledged;
                self.tally.borrow_mut().faults.unconfirmed += usize::from(missing);
                return Ok(());
            }
            let due = async {
                match &mut self.due {
                    Some(due) => due.recv().await,
                    None => None,
                }
            };
            tokio::select! {
                frame = connection.next() => self.take(&frame?)?,
                Some(at) = due => self.put(connection, at).await?,
                _ = ticks.tick() => {}
            }
            while let Some(frame) = connection.next_now() {
                self.take(&frame?)?;
            }
        }
    }

    fn is_settled(&self) -> bool {
        let settled =
            |ledger: &Option<Rc<RefCell<Ledger>>>| ledger.as_ref().is_none_or(|ledger| ledger.borrow().is_settled());
        self.confirmed == self.last && settled(&self.out) && settled(&self.inbound)
    }

    /// Sends what may be sent now.
    async fn send(&mut self, connection: &mut Connection, now: Instant) -> Result<(), String> {
        if self.out.is_none() {
            return Ok(());
        }
        match self.pace {
            Pace::InFlight(most) => {
                while self.in_flight < most && now < self.span.until {
                    self.put(connection, now).await?;
                }
            }
            Pace::PerSecond(_) => {
                while let Some(at) = self.due.as_mut().and_then(|due| due.try_recv().ok()) {
                    self.put(connection, at).await?;
                }
            }
        }
        Ok(())
    }

    async fn put(&mut self, connection: &mut Connection, at: Instant) -> Result<(), String> {
        let Some(out) = &self.out else { return Ok(()) };
        let count = out.borrow_mut().send(at);
        self.in_flight += 1;
        let (name, tail) = (Uuid::now_v7(), &self.tail);
        // A count is its request's number, too.
        let frame =
            format!(r#"{{"t":"send_message","id":{count},"d":{{"message_id":"{name}","client_seq":{count}{tail}"#);
        connection.put(frame).await
    }

    fn take(&mut self, text: &str) -> Result<(), String> {
        let frame: RawFrame<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let now = Instant::now();
        let is_measured = now >= self.span.from && now < self.span.until;
        let mut tally = self.tally.borrow_mut();
        if let Some(n) = frame.n {
            tally.faults.gaps += usize::from(n != self.last + 1);
            if self.last == self.acknowledged {
                self.unacknowledged_since = now;
            }
            self.last = n;
        }
        match (frame.t.as_ref(), frame.re) {
            ("ok", Some(re)) => {
                let sent: Sent = read(&frame)?;
                self.in_flight -= 1;
                let Some(out) = &self.out else { return Err("an answer to nothing".to_owned()) };
                let at = out.borrow_mut().answer(re as i64, sent.seq, sent.duplicate);
                if is_measured {
                    tally.answered += 1;
                    record(&mut tally.answers, at, now);
                }
            }
            ("err", re) => {
                let refused: Refused = read(&frame)?;
                if tally.errors.is_empty() {
                    eprintln!("the first error: {text}");
                }
                tally.error(refused.code);
                if let (Some(re), Some(out)) = (re, &self.out) {
                    self.in_flight -= 1;
                    out.borrow_mut().fail(re as i64);
                }
            }
            ("new_message", _) => {
                let arrived: Arrived = read(&frame)?;
                let Some(inbound) = &self.inbound else {
                    tally.faults.strange += 1;
                    return Ok(());
                };
                let count = arrived.client_seq.unwrap_or_default();
                let at = inbound.borrow_mut().deliver(count, arrived.seq, arrived.after_seq);
                if let Some(at) = at.filter(|_| is_measured) {
                    tally.delivered += 1;
                    record(&mut tally.deliveries, at, now);
                }
            }
            ("acked", _) => self.confirmed = read::<Confirmed>(&frame)?.n,
            _ => {}
        }
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(frame: &RawFrame<'a>) -> Result<T, String> {
    let content = frame.d.map_or("{}", |content| content.get());
    serde_json::from_str(content).map_err(|error| format!("{}: {error}", frame.t))
}

fn record(histogram: &mut Histogram<u64>, at: Instant, now: Instant) {
    histogram.saturating_record(now.saturating_duration_since(at).as_micros() as u64);
}

fn report(traffic: &Traffic, tally: &Tally, used: &[Option<f64>]) -> bool {
    let seconds = traffic.seconds as f64;
    println!("acked_per_second={:.0}", tally.answered as f64 / seconds);
    println!("delivered_per_second={:.0}", tally.delivered as f64 / seconds);
    for (name, histogram) in [("ack", &tally.answers), ("delivery", &tally.deliveries)] {
        for (percentile, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            println!("{name}_{percentile}_ms={:.2}", histogram.value_at_quantile(quantile) as f64 / 1000.0);
        }
        println!("{name}_max_ms={:.2}", histogram.max() as f64 / 1000.0);
    }
    for (name, used) in ["server", "database", "generator", "peer"].iter().zip(used) {
        if let Some(used) = used {
            println!("{name}_processors={:.2}", used / seconds);
            println!("{name}_seconds_per_1000={:.4}", 1000.0 * used / tally.answered.max(1) as f64);
        }
    }
    let Faults { lost, doubled, reordered, gaps, strange, unconfirmed } = tally.faults;
    println!("lost={lost}\ndoubled={doubled}\nreordered={reordered}\ngaps={gaps}\nstrange={strange}");
    println!("unconfirmed={unconfirmed}\nunanswered={}", tally.unanswered);
    let errors: u64 = tally.errors.values().sum();
    println!("errors={errors}");
    for (code, count) in &tally.errors {
        println!("error_{code}={count}");
    }
    !tally.faults.any() && tally.unanswered == 0 && errors == 0
}
