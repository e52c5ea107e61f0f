//! A device's life on a socket: sends, events, acknowledgements in time and late, and ends of every kind.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;
use sotto_client::protocol::conversation::ReadUpTo;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::frame::{Ack, Frame};
use sotto_client::protocol::message::{OutgoingMessage, Sent};
use sotto_client::protocol::{ConversationId, ErrorCode, Seq, close};
use sotto_client::socket::{Incoming, ServerFrame};
use sotto_client::{Error, Socket, SocketOptions};
use tokio::sync::watch;

use crate::book::{MarkOf, Note};
use crate::device::{Device, Next, Phase, pause_until, wait};

/// Nothing for so long: what should come has come.
const QUIET: Duration = Duration::from_millis(400);
/// A device that is there is given everything within so long of the last answer to anybody's send.
const WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether it was.
const LOOK: Duration = Duration::from_millis(200);
/// An impatient device waits at most so many milliseconds before it connects again …
const HASTE: u64 = 30;
/// … and its older socket is open for so long.
const LEFT_BEHIND: Duration = Duration::from_secs(2);
/// Between two attempts to connect, at least.
const BACKOFF: u64 = 100;

/// What a socket is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// To live until then: new messages are sent all the time.
    Live {
        /// The end.
        until: Instant,
    },
    /// To have everything answered, and everything that comes confirmed.
    Settle {
        /// Not longer than until then.
        deadline: Instant,
    },
}

/// Why a socket is held no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its time is over, or it was told to stop.
    Over,
    /// The goal is reached.
    Settled,
    /// It broke, or the server said nothing for too long.
    Lost,
}

/// `mark_read`.
#[derive(Serialize)]
struct MarkRead {
    conversation_id: ConversationId,
    #[serde(flatten)]
    up_to: ReadUpTo,
}

enum Asked {
    Send { place: u64, frame: u64, begun: Instant, message: Box<OutgoingMessage> },
    Read { conversation: ConversationId, up_to: Seq, begun: Instant },
}

impl Asked {
    const fn begun(&self) -> Instant {
        match self {
            Self::Send { begun, .. } | Self::Read { begun, .. } => *begun,
        }
    }
}

/// One socket's accounts.
struct Line {
    number: u64,
    frames: u64,
    asked: BTreeMap<u64, Asked>,
    sends: usize,
    /// Places to be sent (again).
    queue: VecDeque<u64>,
    /// Messages that came and were not confirmed.
    window: VecDeque<(u64, ConversationId, Seq)>,
    last: u64,
    acked: u64,
    confirmed: u64,
    /// Acknowledges after so many …
    ack_after: u64,
    /// … or then, whichever comes first.
    ack_at: Option<Instant>,
    ack_late: Duration,
    drained: Option<Instant>,
    heard: Instant,
    /// Nothing more is sent since then; what is owed is waited for.
    lingers: Option<Lingering>,
}

/// Waiting for what others have sent.
struct Lingering {
    since: Instant,
    /// Nobody has a send under way since then.
    still: Option<Instant>,
    /// The server was asked for a sign of life.
    asked: Option<Instant>,
}

impl Device {
    /// Opens a socket and holds it for a goal; whether the goal was reached.
    pub async fn by_socket(&mut self, goal: Goal, phase: &mut watch::Receiver<Phase>) -> bool {
        let Some(mut socket) = self.open(phase).await else { return false };
        let now = Instant::now();
        let mut line = Line {
            number: self.ledger().connection(),
            frames: 0,
            asked: BTreeMap::new(),
            sends: 0,
            queue: self.pending.keys().copied().collect(),
            window: VecDeque::new(),
            last: 0,
            acked: 0,
            confirmed: 0,
            // Some acknowledge nothing before they must.
            ack_after: self.dice.pick(&[1, 5, 20, 60, 200]).copied().unwrap_or(1),
            ack_at: None,
            ack_late: Duration::from_millis(self.dice.pick(&[20, 200, 1500]).copied().unwrap_or(20)),
            drained: None,
            heard: now,
            lingers: None,
        };
        self.began();
        let end = self.on_line(&mut socket, &mut line, goal, phase).await;
        // What it has not acknowledged, a device need not have stored.
        for (conversation, seqs) in unacknowledged(&line) {
            self.ledger().note(conversation, Note::Forgot { by: self.id(), seqs });
        }
        let is_lost = end == End::Lost;
        if is_lost {
            self.ledger().counters.lost.add();
        }
        for asked in line.asked.into_values() {
            if let Asked::Send { place, .. } = asked {
                self.unknown(place, is_lost);
            }
        }
        let is_cut = is_lost || (end == End::Over && self.dice.percent(self.shared.plan.mix.cut));
        if !is_cut {
            socket.close(1000).await;
        }
        end == End::Settled
    }

    /// A connection or a page of catching up begins, in all conversations.
    pub fn began(&self) {
        // Where it was taken out, too: what it had not got before still comes.
        for conversation in &self.account.conversations {
            self.ledger().note(*conversation, Note::Began { by: self.id() });
        }
    }

    /// Begins to connect and loses patience, as somebody who moves from one network to another: the server may hear of
    /// the older socket after the newer one.
    async fn leave_behind(&mut self) -> Option<()> {
        let target = self.target()?;
        self.attempt += 1;
        let options = SocketOptions::hello(&self.account.access_token).attempt(self.attempt);
        tokio::spawn(async move {
            let Ok(mut socket) = Socket::open(&target.url, &options).await else { return };
            let deaf = async { while matches!(socket.next().await, Ok(Incoming::Frame(_) | Incoming::Alive)) {} };
            // What it hears is acknowledged by nobody, and comes again.
            drop(tokio::time::timeout(LEFT_BEHIND, deaf).await);
        });
        tokio::time::sleep(Duration::from_millis(self.dice.within(0, HASTE))).await;
        Some(())
    }

    /// A socket that was welcomed.
    async fn open(&mut self, phase: &mut watch::Receiver<Phase>) -> Option<Socket> {
        if self.dice.percent(self.shared.plan.mix.hasty) {
            self.leave_behind().await?;
        }
        let target = self.target()?;
        self.attempt += 1;
        let mut options = SocketOptions::hello(&self.account.access_token).attempt(self.attempt);
        options.timeout = self.shared.plan.patience;
        let error = match Socket::connect(&target.url, &options).await {
            Ok((socket, _)) => {
                self.ledger().counters.opened.add();
                self.failed = None;
                return Some(socket);
            }
            Err(error) => error,
        };
        self.failed = Some(target.url.clone());
        let mut pause = Duration::from_millis(BACKOFF + self.dice.within(0, 4 * BACKOFF));
        match (&error, error.code()) {
            (_, Some(code @ (ErrorCode::Unavailable | ErrorCode::Internal | ErrorCode::RateLimited))) => {
                self.ledger().counters.refuse(code);
                self.ledger().counters.unreachable.add();
                pause = wait(&error).unwrap_or(pause);
            }
            (_, Some(ErrorCode::Unauthenticated)) => self.die("its token is not taken any more"),
            (_, Some(code)) => {
                self.ledger().counters.refuse(code);
                self.ledger().strange(format!("a socket of {}: {error}", self.id()));
            }
            (Error::Closed { code: Some(code), .. }, _) => {
                self.ledger().counters.unreachable.add();
                self.closed(*code);
            }
            (Error::Protocol(_), _) => self.ledger().strange(format!("a socket of {}: {error}", self.id())),
            _ => self.ledger().counters.unreachable.add(),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = pause_until(Instant::now() + pause, phase) => {}
        }
        None
    }

    /// What a close code means; those below 4500 only say that we shall come again.
    fn closed(&mut self, code: u16) {
        match code {
            close::UNAUTHENTICATED | close::DEVICE_REVOKED | close::ACCOUNT_DISABLED => {
                self.die(&format!("its socket was closed with {code}"));
            }
            close::CONNECTION_LIMIT => self.ledger().counters.waits.add(),
            close::REPLACED => {
                self.ledger().strange(format!("the newest socket of {} was closed with 4509", self.id()));
            }
            4500.. => self.ledger().strange(format!("a socket of {} was closed with {code}", self.id())),
            _ => {}
        }
    }

    async fn on_line(
        &mut self,
        socket: &mut Socket,
        line: &mut Line,
        goal: Goal,
        phase: &mut watch::Receiver<Phase>,
    ) -> End {
        loop {
            if !self.send_what_is_due(socket, line, goal).await {
                return End::Lost;
            }
            let wake = self.wake(line, goal);
            let is_live = matches!(goal, Goal::Live { .. });
            match *phase.borrow_and_update() {
                Phase::Stop if is_live => return End::Over,
                Phase::Linger if is_live && line.lingers.is_none() => {
                    line.lingers = Some(Lingering { since: Instant::now(), still: None, asked: None });
                    continue;
                }
                Phase::Live | Phase::Linger | Phase::Stop => {}
            }
            tokio::select! {
                incoming = socket.next() => match incoming {
                    Ok(Incoming::Frame(frame)) => {
                        line.heard = Instant::now();
                        if !self.frame(socket, line, &frame).await {
                            return End::Lost;
                        }
                    }
                    Ok(Incoming::Alive) => line.heard = Instant::now(),
                    Ok(Incoming::Closed { code, .. }) => {
                        self.closed(code.unwrap_or_default());
                        return End::Lost;
                    }
                    Err(error) => {
                        self.ledger().strange(format!("a frame for {}: {error}", self.id()));
                        return End::Lost;
                    }
                },
                () = tokio::time::sleep_until(wake.into()) => {}
                _ = phase.changed(), if is_live => continue,
            }
            let now = Instant::now();
            if line.ack_at.is_some_and(|at| at <= now) && !self.ack(socket, line).await {
                return End::Lost;
            }
            let oldest = line.asked.first_key_value().map(|(_, asked)| asked.begun());
            if oldest.is_some_and(|begun| now.duration_since(begun) > self.shared.plan.patience) {
                return End::Lost;
            }
            match goal {
                Goal::Live { .. } if line.lingers.is_some() => {
                    if self.has_waited(socket, line, now).await {
                        return End::Over;
                    }
                }
                Goal::Live { until } if now >= until => return End::Over,
                Goal::Settle { .. } if self.is_settled(line, now) => return End::Settled,
                Goal::Settle { deadline } if now >= deadline => return End::Over,
                // The server owes us something and says nothing.
                Goal::Settle { .. } if now.duration_since(line.heard) > self.shared.plan.patience => return End::Lost,
                Goal::Live { .. } | Goal::Settle { .. } => {}
            }
        }
    }

    /// Whether this device was given everything that anybody's send was acknowledged for, or has waited for too long:
    /// then what it lacks is noted, if the server is alive.
    async fn has_waited(&self, socket: &mut Socket, line: &mut Line, now: Instant) -> bool {
        let Some(lingering) = &mut line.lingers else { return true };
        if self.shared.ledger.counters.under_way.get() > 0 && lingering.since.elapsed() < self.shared.plan.patience {
            return false;
        }
        let still = *lingering.still.get_or_insert(now);
        if !self.circles.iter().any(|circle| self.ledger().lacks(circle.id, self.id())) {
            return true;
        }
        if now < still + WITHIN {
            return false;
        }
        let Some(asked) = lingering.asked else {
            lingering.asked = Some(now);
            return !self.write(socket.ping()).await;
        };
        if line.heard > asked && line.drained.is_some_and(|drained| drained < still) {
            for circle in &self.circles {
                self.ledger().note(circle.id, Note::Waited { by: self.id() });
            }
        } else if now < asked + QUIET {
            return false;
        }
        true
    }

    fn is_settled(&self, line: &Line, now: Instant) -> bool {
        let has_nothing_open = line.asked.is_empty() && self.pending.is_empty() && line.confirmed >= line.last;
        has_nothing_open && line.drained.is_some() && now.duration_since(line.heard) >= QUIET
    }

    /// When to look again, if nothing comes before.
    fn wake(&self, line: &Line, goal: Goal) -> Instant {
        let now = Instant::now();
        if line.lingers.is_some() {
            return line.ack_at.map_or(now + LOOK, |at| at.min(now + LOOK));
        }
        let (end, room) = match goal {
            Goal::Live { until } => (until, true),
            Goal::Settle { deadline } => (deadline.min(now + QUIET), !line.queue.is_empty()),
        };
        let has_room = room && line.sends < self.shared.plan.depth && self.pending.len() <= self.shared.plan.depth;
        let due = if line.queue.is_empty() { self.due() } else { self.hold };
        let send = has_room.then_some(due).filter(|due| *due > now);
        let oldest = line.asked.first_key_value().map(|(_, asked)| asked.begun() + self.shared.plan.patience);
        [send, line.ack_at, oldest].into_iter().flatten().fold(end, Instant::min)
    }

    async fn send_what_is_due(&mut self, socket: &mut Socket, line: &mut Line, goal: Goal) -> bool {
        while line.sends < self.shared.plan.depth && line.lingers.is_none() {
            let now = Instant::now();
            let place = if self.hold > now {
                None
            } else if let Some(place) = line.queue.pop_front() {
                Some(place)
            } else if matches!(goal, Goal::Live { .. }) && self.due() <= now {
                self.compose(now)
            } else {
                None
            };
            let Some(place) = place else { return true };
            let Some(message) = self.begin(place, now) else { continue };
            line.frames += 1;
            line.sends += 1;
            let id = socket.next_id();
            let text = Frame::new("send_message", &message).numbered(id).to_text();
            let asked = Asked::Send { place, frame: line.frames, begun: now, message: Box::new(message) };
            line.asked.insert(id, asked);
            if !self.write(socket.send_text(text)).await {
                return false;
            }
        }
        true
    }

    /// Whether it was written; a peer that does not read keeps us as long as it may keep an answer.
    async fn write(&self, writing: impl Future<Output = Result<(), Error>>) -> bool {
        matches!(tokio::time::timeout(self.shared.plan.patience, writing).await, Ok(Ok(())))
    }

    async fn ack(&self, socket: &mut Socket, line: &mut Line) -> bool {
        line.ack_at = None;
        for (conversation, seqs) in unacknowledged(line) {
            self.ledger().note(conversation, Note::Kept { by: self.id(), seqs });
        }
        line.acked = line.last;
        self.write(socket.ack(line.acked)).await
    }

    /// What a frame leads to; `false`: the line is of no more use.
    async fn frame(&mut self, socket: &mut Socket, line: &mut Line, frame: &ServerFrame) -> bool {
        if let Some(asked) = frame.re.and_then(|re| line.asked.remove(&re)) {
            self.answer(line, asked, frame);
            return !self.is_dead;
        }
        match (frame.t.as_str(), frame.n) {
            ("drained", _) => line.drained = Some(Instant::now()),
            ("acked", _) => {
                let Ok(Ack { n }) = frame.data() else { return false };
                self.confirmed(line, n);
            }
            ("err", _) => self.ledger().strange(format!("{}: {}", self.id(), frame.d)),
            (_, Some(n)) => return self.event(socket, line, frame, n).await,
            _ => {}
        }
        true
    }

    fn confirmed(&self, line: &mut Line, n: u64) {
        self.ledger().counters.confirmed.add();
        line.confirmed = line.confirmed.max(n);
        let mut marks: HashMap<ConversationId, Seq> = HashMap::new();
        while let Some((_, id, seq)) = line.window.pop_front_if(|(number, ..)| *number <= n) {
            marks.insert(id, seq);
        }
        for (conversation, up_to) in marks {
            self.ledger().note(conversation, Note::Confirmed { by: self.id(), up_to });
        }
    }

    fn answer(&mut self, line: &mut Line, asked: Asked, frame: &ServerFrame) {
        match asked {
            Asked::Send { place, frame: number, begun, message } => {
                line.sends -= 1;
                let at = Some((line.number, number));
                if self.answered(&message, place, at, begun, frame.answer::<Sent>()) == Next::Again {
                    line.queue.push_back(place);
                }
            }
            Asked::Read { conversation, up_to, .. } => match frame.answer::<serde_json::Value>() {
                Ok(_) => self.ledger().note(conversation, Note::Raised { by: self.id(), mark: MarkOf::MyRead, up_to }),
                Err(error) => match error.code() {
                    Some(code) => {
                        self.ledger().counters.refuse(code);
                        let is_out = self.shared.may_be_out(self.id());
                        let strange = [ErrorCode::NotFound, ErrorCode::Forbidden, ErrorCode::ValidationFailed];
                        if strange.contains(&code) && !is_out {
                            self.ledger().strange(format!("mark_read of {}: {error}", self.id()));
                        }
                    }
                    None => self.ledger().strange(format!("mark_read of {}: {error}", self.id())),
                },
            },
        }
    }

    async fn event(&mut self, socket: &mut Socket, line: &mut Line, frame: &ServerFrame, n: u64) -> bool {
        if n != line.last + 1 {
            self.ledger().strange(format!("{}: event {n} after {}", self.id(), line.last));
        }
        line.last = n;
        if line.ack_at.is_none() {
            line.ack_at = Some(Instant::now() + line.ack_late);
        }
        let event = match frame.event() {
            Ok(event) => event,
            Err(error) => {
                self.ledger().strange(format!("an event for {}: {error}", self.id()));
                return false;
            }
        };
        let Some(event) = event else { return true };
        let place = self.ledger().event(self.id(), &event);
        if let (Some((conversation, seq)), Event::NewMessage(message)) = (place, &event) {
            line.window.push_back((n, conversation, seq));
            let sent = self.ledger().sent_at(conversation, message.message_id);
            if let Some(sent) = sent.filter(|sent| line.drained.is_some_and(|drained| drained < *sent)) {
                self.ledger().deliveries.record(sent.elapsed());
            }
            if self.dice.percent(self.shared.plan.mix.reads) {
                let up_to = ReadUpTo { up_to: seq };
                let id = socket.next_id();
                let mark = MarkRead { conversation_id: conversation, up_to };
                let text = Frame::new("mark_read", &mark).numbered(id).to_text();
                line.asked.insert(id, Asked::Read { conversation, up_to: seq, begun: Instant::now() });
                if !self.write(socket.send_text(text)).await {
                    return false;
                }
            }
        }
        n - line.acked < line.ack_after || self.ack(socket, line).await
    }
}

/// Messages that came and were not acknowledged.
fn unacknowledged(line: &Line) -> HashMap<ConversationId, Vec<Seq>> {
    let mut seqs: HashMap<ConversationId, Vec<Seq>> = HashMap::new();
    for (_, conversation, seq) in line.window.iter().filter(|(number, ..)| *number > line.acked) {
        seqs.entry(*conversation).or_default().push(*seq);
    }
    seqs
}
