//! People under a server that is killed again and again: they send, read, acknowledge, stay away and come back.

use super::checker::Look;
use super::ledger::{Dice, Ledger};
use crate::support::people::{Device, enveloped, shared};
use futures::future::join_all;
use sotto_client::protocol::frame::Ack;
use sotto_client::protocol::message::{OutgoingMessage, Sent};
use sotto_client::protocol::{ConversationId, ErrorCode, MessageId, Seq};
use sotto_client::socket::{Incoming, ServerFrame};
use sotto_client::{Error, Socket};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing for so long: what should come has come.
const QUIET: Duration = Duration::from_millis(250);
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device and what its owner does with it.
pub struct Person {
    pub device: Arc<Device>,
    pub circles: Vec<Circle>,
    pub dice: Dice,
    pub ledger: Arc<Ledger>,
    /// Sent and not answered, in order.
    pub pending: BTreeMap<u64, OutgoingMessage>,
    composed: u64,
    attempt: i64,
}

/// A conversation and all its devices.
#[derive(Clone)]
pub struct Circle {
    pub id: ConversationId,
    pub devices: Vec<Arc<Device>>,
}

/// How a device spends the time until the next kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Socket,
    Rest,
    Away,
}

/// Until when a socket is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It breaks. New messages are sent all the time.
    Broken,
    /// Everything pending was answered, everything that came was acknowledged, nothing more comes.
    Settled,
}

/// One socket's accounts.
struct Line {
    number: u64,
    frames: u64,
    unanswered: HashMap<u64, (u64, u64, MessageId)>,
    /// Messages that came and were not confirmed.
    window: VecDeque<(u64, ConversationId, Seq)>,
    last: u64,
    acked: u64,
    confirmed: u64,
    /// Acknowledges after so many.
    ack_after: u64,
    drained: bool,
}

impl Person {
    pub fn new(device: Arc<Device>, circles: Vec<Circle>, dice: Dice, ledger: Arc<Ledger>) -> Self {
        Self { device, circles, dice, ledger, pending: BTreeMap::new(), composed: 0, attempt: 0 }
    }

    /// Lives one way until the server is gone.
    pub async fn live(mut self, life: Life) -> Self {
        match life {
            Life::Socket => self.by_socket(Until::Broken).await,
            Life::Rest => self.by_rest().await,
            Life::Away => {}
        }
        self
    }

    fn compose(&mut self) -> (u64, OutgoingMessage) {
        self.composed += 1;
        let circle = self.dice.pick(&self.circles).clone();
        let text = format!("{} of {}", self.composed, self.device.device_id);
        let mut message = if self.dice.within(0, 2) == 0 {
            shared(circle.id, &text)
        } else {
            let others: Vec<&Device> = circle
                .devices
                .iter()
                .filter(|device| device.device_id != self.device.device_id)
                .map(AsRef::as_ref)
                .collect();
            enveloped(circle.id, &others, &text)
        };
        let high = u128::from(self.dice.roll()) << 64;
        message.message_id = MessageId(
            uuid::Builder::from_random_bytes((high | u128::from(self.dice.roll())).to_be_bytes()).into_uuid(),
        );
        self.ledger.compose(self.device.device_id, &message, text);
        self.pending.insert(self.composed, message.clone());
        (self.composed, message)
    }

    /// Settles an answer; false: the same is to be sent again.
    fn answered(
        &mut self,
        place: u64,
        frame: Option<(u64, u64)>,
        message: MessageId,
        answer: Result<Sent, Error>,
    ) -> bool {
        match answer {
            Ok(sent) => {
                self.ledger.answer(frame, message, &sent);
                self.pending.remove(&place);
                true
            }
            Err(error) => {
                self.ledger.unknown(message);
                let outcome_is_unknown = match error.code() {
                    Some(code) => matches!(code, ErrorCode::Unavailable | ErrorCode::Internal),
                    None => matches!(error, Error::Transport(_) | Error::Timeout | Error::Closed { .. }),
                };
                if !outcome_is_unknown {
                    self.ledger.refuse(format!("{message}: {error}"));
                    self.pending.remove(&place);
                }
                false
            }
        }
    }

    pub async fn by_socket(&mut self, until: Until) {
        self.attempt += 1;
        let Ok((mut socket, _)) = self.device.socket_with(self.attempt).await else { return };
        self.ledger.look(self.device.device_id, Look::Began);
        let mut line = Line {
            number: self.ledger.connection(),
            frames: 0,
            unanswered: HashMap::new(),
            window: VecDeque::new(),
            last: 0,
            acked: 0,
            confirmed: 0,
            // Some acknowledge nothing before they must.
            ack_after: *self.dice.pick(&[1, 5, 20, 60, 200]),
            drained: false,
        };
        self.on_line(&mut socket, &mut line, until).await;
        for (_, _, message) in line.unanswered.into_values() {
            self.ledger.unknown(message);
        }
        if until == Until::Settled {
            socket.close(1000).await;
        }
    }

    async fn on_line(&mut self, socket: &mut Socket, line: &mut Line, until: Until) {
        let depth = self.dice.within(4, 24) as usize;
        let mut queue: VecDeque<(u64, OutgoingMessage)> = self.pending.clone().into_iter().collect();
        let mut heard = Instant::now();
        let begun = Instant::now();
        loop {
            while line.unanswered.len() < depth {
                let next = queue.pop_front().or_else(|| (until == Until::Broken).then(|| self.compose()));
                let Some((place, message)) = next else { break };
                self.ledger.begin();
                line.frames += 1;
                let id = socket.next_id();
                line.unanswered.insert(id, (place, line.frames, message.message_id));
                let frame = sotto_client::protocol::frame::Frame::new("send_message", &message).numbered(id);
                if socket.send_text(frame.to_text()).await.is_err() {
                    return;
                }
            }
            match tokio::time::timeout(Duration::from_millis(20), socket.next()).await {
                Ok(Ok(Incoming::Frame(frame))) => {
                    heard = Instant::now();
                    if !self.frame(socket, line, &frame).await {
                        return;
                    }
                }
                Ok(Ok(Incoming::Alive)) => {}
                Ok(_) => return,
                Err(_) if until == Until::Settled && heard.elapsed() > QUIET => {
                    let is_settled = line.unanswered.is_empty() && line.drained && line.confirmed >= line.last;
                    if is_settled && self.pending.is_empty() {
                        return;
                    }
                    if line.acked < line.last && !self.ack(socket, line).await {
                        return;
                    }
                    if begun.elapsed() > PATIENCE {
                        let name = self.device.device_id;
                        self.ledger.refuse(format!(
                            "{name} does not settle: drained {}, {} of {} events confirmed, {} unanswered",
                            line.drained,
                            line.confirmed,
                            line.last,
                            line.unanswered.len()
                        ));
                        return;
                    }
                    if line.unanswered.is_empty() {
                        queue = self.pending.clone().into_iter().collect();
                    }
                }
                Err(_) => {}
            }
        }
    }

    async fn ack(&self, socket: &mut Socket, line: &mut Line) -> bool {
        line.acked = line.last;
        socket.ack(line.acked).await.is_ok()
    }

    async fn frame(&mut self, socket: &mut Socket, line: &mut Line, frame: &ServerFrame) -> bool {
        let device = self.device.device_id;
        if let Some((place, number, message)) = frame.re.and_then(|re| line.unanswered.remove(&re)) {
            self.answered(place, Some((line.number, number)), message, frame.answer::<Sent>());
            return true;
        }
        match (frame.t.as_str(), frame.n) {
            ("drained", _) => line.drained = true,
            ("acked", _) => {
                let Ok(Ack { n }) = frame.data() else { return false };
                line.confirmed = line.confirmed.max(n);
                let mut marks: HashMap<ConversationId, Seq> = HashMap::new();
                while let Some((_, id, seq)) = line.window.pop_front_if(|(number, ..)| *number <= n) {
                    marks.insert(id, seq);
                }
                for (conversation, up_to) in marks {
                    self.ledger.look(device, Look::Confirmed { conversation, up_to });
                }
            }
            ("err", _) => self.ledger.refuse(format!("{device}: {}", frame.d)),
            (_, Some(n)) => {
                if n != line.last + 1 {
                    self.ledger.refuse(format!("{device}: event {n} after {}", line.last));
                }
                line.last = n;
                let event = frame.event().ok().flatten();
                if let Some((id, seq)) = event.and_then(|event| self.ledger.event(device, &event)) {
                    line.window.push_back((n, id, seq));
                    if self.dice.within(0, 12) == 0 {
                        let mark = serde_json::json!({ "conversation_id": id, "up_to": seq });
                        if socket.request("mark_read", &mark).await.is_err() {
                            return false;
                        }
                    }
                }
                if n - line.acked >= line.ack_after {
                    return self.ack(socket, line).await;
                }
            }
            _ => {}
        }
        true
    }

    async fn by_rest(&mut self) {
        loop {
            let is_alive = match self.dice.within(0, 10) {
                0..=5 => {
                    let count = self.dice.within(1, 4) as usize;
                    let mut batch: Vec<_> = self.pending.clone().into_iter().take(count).collect();
                    while batch.len() < count {
                        batch.push(self.compose());
                    }
                    self.send_by_rest(batch).await
                }
                6..=8 => {
                    let limit = *self.dice.pick(&[1, 7, 50, 500]);
                    let keep = self.dice.within(0, 4) > 0;
                    self.sync(limit, keep).await.is_some()
                }
                _ => self.look_at_marks().await,
            };
            if !is_alive {
                return;
            }
        }
    }

    async fn send_by_rest(&mut self, batch: Vec<(u64, OutgoingMessage)>) -> bool {
        for _ in &batch {
            self.ledger.begin();
        }
        let answers = join_all(batch.iter().map(|(_, message)| self.device.rest.send_message(message, None))).await;
        let mut is_alive = true;
        for ((place, message), answer) in batch.into_iter().zip(answers) {
            is_alive &= answer.as_ref().err().is_none_or(|error| error.code().is_some());
            self.answered(place, None, message.message_id, answer);
        }
        is_alive
    }

    /// One page; `None`: no answer, else whether there is more.
    async fn sync(&mut self, limit: u32, keep: bool) -> Option<bool> {
        let device = self.device.device_id;
        let page = self.device.rest.sync(Some(limit)).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.hiccup("sync", &error),
        };
        self.ledger.look(device, Look::Began);
        let mut marks: HashMap<ConversationId, Seq> = HashMap::new();
        for event in &page.events {
            marks.extend(self.ledger.event(device, event));
        }
        if !keep {
            return Some(true);
        }
        match self.device.rest.sync_ack(&page.cursor).await {
            Ok(()) => {
                for (conversation, up_to) in marks {
                    self.ledger.look(device, Look::Confirmed { conversation, up_to });
                }
                Some(page.has_more)
            }
            Err(error) => self.hiccup("sync ack", &error),
        }
    }

    /// What may happen to any request: no answer, or `unavailable`.
    fn hiccup(&self, what: &str, error: &Error) -> Option<bool> {
        match error.code() {
            None => None,
            Some(ErrorCode::Unavailable) => Some(true),
            Some(_) => {
                self.ledger.refuse(format!("{what} of {}: {error}", self.device.device_id));
                Some(true)
            }
        }
    }

    /// Marks as a conversation's description tells them, and sometimes a new one of one's own.
    pub async fn look_at_marks(&mut self) -> bool {
        let id = self.dice.pick(&self.circles).id;
        let described = match self.device.rest.conversation(id).await {
            Ok(described) => described,
            Err(error) => return self.hiccup("conversation", &error).is_some(),
        };
        let look = |whose: String, up_to| {
            self.ledger.look(self.device.device_id, Look::Mark { conversation: id, whose, up_to });
        };
        look("the head".to_owned(), described.last_seq);
        look("my delivered".to_owned(), described.delivered_up_to);
        look("my read".to_owned(), described.read_up_to);
        for member in &described.members {
            look(format!("delivered to {}", member.user_id), member.delivered_up_to);
            look(format!("read by {}", member.user_id), member.read_up_to);
        }
        match self.device.rest.mark_read(id, described.delivered_up_to).await {
            Ok(()) => true,
            Err(error) => self.hiccup("mark read", &error).is_some(),
        }
    }

    /// Repeats what was not answered, by one transport or the other, until all is.
    pub async fn settle_sends(&mut self, by_socket: bool) {
        let begun = Instant::now();
        while !self.pending.is_empty() && begun.elapsed() < PATIENCE {
            if by_socket {
                self.by_socket(Until::Settled).await;
            } else {
                let batch: Vec<_> = self.pending.clone().into_iter().take(8).collect();
                self.send_by_rest(batch).await;
            }
        }
    }

    /// Reads and acknowledges everything.
    pub async fn catch_up(&mut self, by_socket: bool) {
        if by_socket {
            return self.by_socket(Until::Settled).await;
        }
        let begun = Instant::now();
        while self.sync(100, true).await != Some(false) {
            if begun.elapsed() > PATIENCE {
                return self.ledger.refuse(format!("{} does not catch up", self.device.device_id));
            }
        }
    }
}
