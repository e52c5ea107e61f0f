//! The actor Device: one socket, from its first frame to its close.
//!
//! *Owns:* the socket, and the requests of this connection that are not answered yet.
//! *When full:* it stops reading while too much is unanswered or waits to be written; a peer that does not
//! read is cut.
//! *On death:* the session forgets it; the client reconnects.

use crate::admission::Place;
use crate::conversation::{Send, TypingSignal};
use crate::identity::Caller;
use crate::mailbox::{Refused, tell};
use crate::node::{Node, overloaded};
use crate::pressure::Permit;
use crate::rate_limit::Decision;
use crate::registry::connection_number;
use crate::reply::{Answer, AnswerBody, Reply};
use crate::session::{Ack, Attach, Detach, Session, SetActivity};
use crate::socket::{Incoming, SendError, Socket, SocketLimits, Upgraded, Violation};
use crate::socket_driver::{SocketOwner, SocketPatience, drive};
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, SpawnHandle, StreamHandler, WrapFuture};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sotto_protocol::frame::{
    Ack as AckFrame, Auth, Empty, Frame, Hello, MarkRead, PresenceUp, RawFrame, Typing, Welcome,
};
use sotto_protocol::message::{OutgoingMessage, Sender};
use sotto_protocol::{ErrorCode, Problem, SessionId, Timestamp, close, json, limits};
use sotto_schema::planted::{self, Bug};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

mod clock;
mod messages;
mod pace;
mod wire;

pub use messages::{Joined, Push, Whisper};

use clock::Clock;
use pace::Pace;
use wire::{as_validation, close_reason, read_frame};

/// Mailbox: pushes that may wait. The window bounds what a session sends.
const CAPACITY: usize = 1024;
/// Bytes that may wait to be written before reading stops.
const HIGH_WATER: usize = 1 << 20;
/// Bytes that may wait at all: the window, and answers on top.
const MAX_QUEUED: usize = 8 << 20;
/// Typing and presence wait for nobody: above this they are dropped.
const WHISPER_BELOW: usize = 64 * 1024;
/// Typing and presence frames of a client in one second, above which they are dropped.
const SIGNALS_PER_SECOND: u32 = 20;
/// Refusals of one connection in a minute for being over a limit; then it is closed with 4429.
const REFUSALS_PER_MINUTE: u32 = 100;
/// A device that could not reach its session tries again after this.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long the end of a connection may take, once closing has begun.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a socket is not read that brought a message while too many waited.
const REST: Duration = Duration::from_millis(100);

/// Where a connection stands.
enum Phase {
    /// Waits for `hello`.
    Silent { until: Instant },
    /// The token is being checked, the number claimed, the backlog read.
    Entering { re: Option<u64> },
    /// After `welcome`.
    Live,
}

/// A send that was let in, on its way to its conversation.
struct Waiting {
    re: Option<u64>,
    message: OutgoingMessage,
    bytes: usize,
    permit: Permit,
}

/// A socket of a device.
pub struct Device {
    socket: Socket,
    node: Node,
    connection: SessionId,
    phase: Phase,
    /// Proven by an `Authorization` header or by `hello`.
    caller: Option<Caller>,
    session: Option<Addr<Session>>,
    /// Made with the first request.
    answers: Option<mpsc::UnboundedSender<Answer>>,
    unanswered: usize,
    /// Bytes of the requests that are not answered.
    unanswered_bytes: usize,
    /// Their ids, as far as they have any.
    ids: Vec<u64>,
    /// Those that the limit was not asked for yet.
    sends: VecDeque<Waiting>,
    sending: bool,
    unheard_ack: Option<u64>,
    heard: Instant,
    signals: Pace,
    /// Requests that were over a limit: who goes on after too many of them does not listen.
    limited: Pace,
    clock: Clock,
    timer: Option<SpawnHandle>,
    /// Free again when the socket is gone.
    place: Option<Place>,
    /// It was refused for too many messages of everybody's, a moment ago.
    rests: bool,
}

impl Device {
    /// A device's socket over an upgraded stream. `caller` is who an `Authorization` header has proven to be there: the
    /// answer to the handshake goes with the `welcome` then. Else `hello` is waited for. The connection keeps its
    /// `place`.
    #[must_use]
    pub fn new(upgraded: Upgraded, node: Node, caller: Option<Caller>, place: Option<Place>) -> Self {
        let first = if caller.is_some() { limits::MAX_FRAME } else { limits::MAX_HELLO };
        let socket_limits = SocketLimits { max_message: first, max_frame: first, max_queued: MAX_QUEUED };
        let settings = node.settings();
        let socket = Socket::new(upgraded, socket_limits);
        Self {
            socket: if caller.is_some() { socket.held() } else { socket },
            connection: SessionId::random(),
            phase: Phase::Silent { until: Instant::now() + settings.hello_timeout },
            caller,
            session: None,
            answers: None,
            unanswered: 0,
            unanswered_bytes: 0,
            ids: Vec::new(),
            sends: VecDeque::new(),
            sending: false,
            unheard_ack: None,
            heard: Instant::now(),
            signals: Pace::new(),
            limited: Pace::new(),
            clock: Clock::new(settings.heartbeat),
            timer: None,
            node,
            place,
            rests: false,
        }
    }

    fn write(&mut self, text: impl Into<Bytes>) {
        match self.socket.send_text(text.into()) {
            Ok(()) | Err(SendError::Closing) => {}
            Err(SendError::QueueFull { .. }) => self.socket.cut(close::SLOW_CONSUMER, "slow consumer"),
        }
    }

    fn refuse(&mut self, re: Option<u64>, mut problem: Problem) {
        if problem.request_id.is_empty() {
            problem.request_id = self.connection.to_string();
        }
        metrics::counter!("sotto_errors_total", "code" => problem.code.as_str()).increment(1);
        self.write(Frame::new("err", problem).answering(re).to_text());
    }

    /// Says what is wrong and closes.
    fn fail(&mut self, re: Option<u64>, problem: Problem, code: u16) {
        let reason = problem.code.as_str();
        self.refuse(re, problem);
        self.socket.start_close(code, reason);
    }

    fn frame(&mut self, text: &Bytes, ctx: &mut Context<Self>) {
        let frame = match read_frame(text) {
            Ok(frame) => frame,
            Err(problem) if problem.code == ErrorCode::InvalidFrame => {
                return self.fail(None, problem, close::PROTOCOL_ERROR);
            }
            Err(problem) => return self.refuse(None, problem),
        };
        if frame.id.is_some_and(|id| id == 0 || id > limits::MAX_REQUEST_ID) {
            return self.refuse(None, Problem::field("/id", "out_of_range"));
        }
        match self.phase {
            Phase::Silent { .. } if frame.t == "hello" => self.hello(&frame, ctx),
            Phase::Silent { .. } | Phase::Entering { .. } => {
                let problem =
                    Problem::new(ErrorCode::InvalidFrame, "the first frame is hello, and nothing before welcome");
                self.fail(frame.id, problem, close::PROTOCOL_ERROR);
            }
            Phase::Live => self.request(&frame, ctx),
        }
    }

    fn hello(&mut self, frame: &RawFrame<'_>, ctx: &mut Context<Self>) {
        let hello: Hello = match json::read_below("", frame.data().as_bytes()) {
            Ok(hello) => hello,
            Err(problem) => return self.fail(frame.id, problem, close::PROTOCOL_ERROR),
        };
        if hello.version != 1 {
            let problem = Problem::new(ErrorCode::UnsupportedVersion, "this server speaks version 1");
            return self.fail(frame.id, problem, close::UPGRADE_REQUIRED);
        }
        // The store counts on from it.
        let highest = i64::try_from(limits::MAX_REQUEST_ID).unwrap_or(i64::MAX);
        if hello.attempt.is_some_and(|attempt| !(0..=highest).contains(&attempt)) {
            return self.fail(frame.id, Problem::field("/attempt", "out_of_range"), close::PROTOCOL_ERROR);
        }
        self.socket.set_max_message(limits::MAX_FRAME, limits::MAX_FRAME);
        let client = hello.client.as_deref().unwrap_or_default();
        tracing::debug!(connection = %self.connection, client = client.get(..64).unwrap_or(client), "hello");
        self.phase = Phase::Entering { re: frame.id };
        let node = self.node.clone();
        let re = frame.id;
        let work = async move { (node.identity().authenticate(&hello.token).await, hello.attempt) };
        ctx.spawn(work.into_actor(self).map(move |(caller, attempt), device, ctx| match caller {
            Ok(caller) => device.enter(caller, attempt, ctx),
            Err(problem) if problem.code == ErrorCode::Unauthenticated => {
                device.fail(re, problem, close::UNAUTHENTICATED);
            }
            Err(problem) => device.fail(re, problem, 1013),
        }));
    }

    /// Claims the connection's number in the database, then joins the session (rules D3 and D7).
    fn enter(&mut self, caller: Caller, attempt: Option<i64>, ctx: &mut Context<Self>) {
        self.admit(caller, ctx);
        if let Some(place) = &mut self.place {
            place.is_known();
        }
        let node = self.node.clone();
        let number = attempt.map(connection_number).filter(|_| !planted::is(Bug::UnfencedRegistration));
        let is_slow = planted::is(Bug::SlowRegistration) || planted::is(Bug::UnfencedRegistration);
        let wait = Duration::from_millis(u64::from(self.connection.0.as_fields().0 % 256));
        let work = async move {
            if is_slow {
                tokio::time::sleep(wait).await;
            }
            node.store().claim_attempt(caller.device_id, number, Timestamp::now()).await
        };
        ctx.spawn(work.into_actor(self).map(move |claimed, device, ctx| match claimed {
            Ok(Some(number)) => device.join(number, attempt.is_some(), ctx),
            Ok(None) if attempt.is_some() => device.socket.start_close(close::REPLACED, "replaced"),
            Ok(None) => device.socket.start_close(close::DEVICE_REVOKED, "the device is gone"),
            Err(error) => {
                tracing::warn!(%error, "a connection's number could not be claimed");
                device.socket.start_close(1013, "try again later");
            }
        }));
    }

    fn join(&mut self, attempt: i64, explicit: bool, ctx: &mut Context<Self>) {
        let Some(caller) = self.caller else {
            return;
        };
        if self.node.is_draining() {
            return self.socket.start_close(close::DRAINING, "draining");
        }
        let session = self.node.session(caller.user_id);
        let (lease, ended) = oneshot::channel();
        let attach = Attach {
            device_id: caller.device_id,
            connection: self.connection,
            attempt,
            family: caller.session_id,
            explicit,
            socket: ctx.address(),
            lease,
        };
        match tell(&session, attach) {
            Ok(()) => {}
            Err(Refused::Closed) => {
                // The session was just ending: the next one takes us.
                ctx.run_later(Duration::from_millis(5), move |device, ctx| device.join(attempt, explicit, ctx));
                return;
            }
            Err(_) => return self.socket.start_close(1013, "try again later"),
        }
        self.session = Some(session);
        ctx.spawn(ended.into_actor(self).map(move |end, device, ctx| {
            if end.is_err() && matches!(device.phase, Phase::Entering { .. }) {
                // The session ended with our word still in its mailbox: the next one takes us.
                return device.join(attempt, explicit, ctx);
            }
            let code = end.unwrap_or(1013);
            // One turn later: what the session pushed before it is in the mailbox.
            ctx.run_later(Duration::from_millis(1), move |device, _| {
                let reason = close_reason(code);
                if code == close::SLOW_CONSUMER {
                    device.socket.cut(code, reason);
                } else {
                    device.socket.start_close(code, reason);
                }
            });
        }));
    }

    fn request(&mut self, frame: &RawFrame<'_>, ctx: &mut Context<Self>) {
        if let Some(id) = frame.id
            && self.ids.contains(&id)
        {
            return self.refuse(Some(id), Problem::field("/id", "in_use"));
        }
        match frame.t.as_ref() {
            "send_message" => self.send_message(frame, ctx),
            "ack" => self.with(frame, |device, ack: AckFrame| device.ack(ack.n, ctx)),
            "mark_read" => self.with(frame, |device, mark: MarkRead| device.mark_read(frame.id, mark, ctx)),
            "typing" => self.with(frame, |device, typing: Typing| device.typing(typing)),
            "presence" => self.with(frame, |device, presence: PresenceUp| device.presence(presence)),
            "auth" => self.with(frame, |device, auth: Auth| device.auth(frame.id, auth, ctx)),
            "ping" => {
                let body = frame.data().to_owned();
                match RawValue::from_string(body) {
                    Ok(body) => self.write(Frame::new("pong", body).answering(frame.id).to_text()),
                    Err(_) => self.refuse(frame.id, Problem::field("/t", "invalid")),
                }
            }
            "pong" => {}
            "hello" => {
                let problem = Problem::new(ErrorCode::InvalidFrame, "hello was said already");
                self.fail(frame.id, problem, close::PROTOCOL_ERROR);
            }
            _ => self.refuse(frame.id, Problem::field("/t", "unknown_value")),
        }
    }

    fn with<T: DeserializeOwned>(&mut self, frame: &RawFrame<'_>, work: impl FnOnce(&mut Self, T)) {
        match json::read_below("", frame.data().as_bytes()) {
            Ok(body) => work(self, body),
            Err(problem) => self.refuse(frame.id, as_validation(problem)),
        }
    }

    /// Notes a request that will be answered later.
    fn begin(&mut self, re: Option<u64>, bytes: usize, ctx: &mut Context<Self>) -> mpsc::UnboundedSender<Answer> {
        self.unanswered += 1;
        self.unanswered_bytes += bytes;
        self.ids.extend(re);
        if let Some(answers) = &self.answers {
            return answers.clone();
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        ctx.add_stream(futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|answer| (answer, receiver))
        }));
        self.answers = Some(sender.clone());
        sender
    }

    /// One request less. What was not read because of it is read on.
    fn answered(&mut self, bytes: usize) {
        let wanted = self.wants_input();
        self.unanswered = self.unanswered.saturating_sub(1);
        self.unanswered_bytes = self.unanswered_bytes.saturating_sub(bytes);
        if !wanted && self.wants_input() {
            self.socket.look_again();
        }
    }

    fn send_message(&mut self, frame: &RawFrame<'_>, ctx: &mut Context<Self>) {
        let Some(caller) = self.caller else {
            return;
        };
        let message: OutgoingMessage = match json::read_below("", frame.data().as_bytes()) {
            Ok(message) => message,
            Err(problem) => return self.refuse(frame.id, as_validation(problem)),
        };
        if let Err(problem) = message.check(caller.device_id) {
            return self.refuse(frame.id, problem);
        }
        let Some(permit) = self.node.pressure().enter() else {
            self.rest(ctx);
            return self.refuse(frame.id, overloaded());
        };
        let answers = self.begin(frame.id, frame.data().len(), ctx);
        let send = Waiting { re: frame.id, message, bytes: frame.data().len(), permit };
        if self.node.limits().enabled() {
            self.sends.push_back(send);
            self.next_send(ctx);
        } else {
            self.hand_over(send, None, answers);
        }
    }

    /// Asks the limit for one send after the other, so that their order stays.
    fn next_send(&mut self, ctx: &mut Context<Self>) {
        let Some(caller) = self.caller else {
            return;
        };
        if self.sending || self.sends.is_empty() {
            return;
        }
        self.sending = true;
        let node = self.node.clone();
        let work = async move { node.limits().message(caller.user_id).await };
        ctx.spawn(work.into_actor(self).map(|decision, device, ctx| {
            device.sending = false;
            if let (Some(send), Some(answers)) = (device.sends.pop_front(), device.answers.clone()) {
                let limited = (!decision.allowed).then_some(decision);
                device.hand_over(send, limited, answers);
            }
            device.next_send(ctx);
        }));
    }

    fn hand_over(&mut self, send: Waiting, limited: Option<Decision>, answers: mpsc::UnboundedSender<Answer>) {
        let Some(caller) = self.caller else {
            return;
        };
        let Waiting { re, message, bytes, permit } = send;
        let id = message.conversation_id;
        let sender = Sender { user_id: caller.user_id, device_id: caller.device_id };
        let reply = Reply::Queue { answers: answers.clone(), re, bytes };
        if self.node.tell_conversation(id, Send { sender, message, limited, permit, reply }).is_err() {
            let problem = Problem::unavailable("the conversation has too much to do; send again");
            // The stream of answers lives as long as this actor.
            let _ = answers.send(Answer { re, bytes, result: Err(Box::new(problem)) });
        }
    }

    /// Reads nothing for a moment: whoever sends more than can be stored is slowed down, and not refused all the time.
    fn rest(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.rests, true) {
            ctx.run_later(REST, |device, _| {
                device.rests = false;
                device.socket.look_again();
            });
        }
    }

    fn mark_read(&mut self, re: Option<u64>, mark: MarkRead, ctx: &mut Context<Self>) {
        let Some(caller) = self.caller else {
            return;
        };
        let answers = self.begin(re, 0, ctx);
        let node = self.node.clone();
        actix_rt::spawn(async move {
            let result = node.mark_read(caller.user_id, caller.device_id, mark.conversation_id, mark.up_to).await;
            let _ = answers.send(Answer { re, bytes: 0, result: result.map(|()| AnswerBody::Done).map_err(Box::new) });
        });
    }

    fn ack(&mut self, n: u64, ctx: &mut Context<Self>) {
        let Some(session) = &self.session else {
            return;
        };
        if tell(session, Ack { connection: self.connection, n }).is_ok() {
            return;
        }
        // Acknowledgements cover each other: the highest is kept and told again.
        let waits = self.unheard_ack.is_some();
        self.unheard_ack = self.unheard_ack.max(Some(n));
        if !waits {
            ctx.run_later(RETRY_AFTER, |device, ctx| {
                if let Some(n) = device.unheard_ack.take() {
                    device.ack(n, ctx);
                }
            });
        }
    }

    fn typing(&mut self, typing: Typing) {
        let Some(caller) = self.caller else {
            return;
        };
        if self.signals.another(SIGNALS_PER_SECOND, Duration::from_secs(1)) {
            let sender = Sender { user_id: caller.user_id, device_id: caller.device_id };
            let signal = TypingSignal { sender, state: typing.state };
            // Dropped under pressure.
            let _ = self.node.tell_conversation(typing.conversation_id, signal);
        }
    }

    fn presence(&mut self, presence: PresenceUp) {
        if self.signals.another(SIGNALS_PER_SECOND, Duration::from_secs(1))
            && let Some(session) = &self.session
        {
            let _ = tell(session, SetActivity { connection: self.connection, activity: presence.state });
        }
    }

    fn auth(&mut self, re: Option<u64>, auth: Auth, ctx: &mut Context<Self>) {
        let node = self.node.clone();
        self.unanswered += 1;
        let work = async move { node.identity().authenticate(&auth.token).await };
        ctx.spawn(work.into_actor(self).map(move |caller, device, ctx| {
            device.answered(0);
            let known = device.caller.map(|known| known.device_id);
            match caller {
                Ok(caller) if Some(caller.device_id) == known => {
                    device.admit(caller, ctx);
                    if re.is_some() {
                        device.write(Frame::new("ok", Empty {}).answering(re).to_text());
                    }
                }
                Ok(_) => {
                    let problem = Problem::new(ErrorCode::Unauthenticated, "this token is another device's");
                    device.fail(re, problem, close::UNAUTHENTICATED);
                }
                Err(problem) => device.refuse(re, problem),
            }
        }));
    }

    /// Pings, and ends a connection that has been silent for two heartbeats.
    fn beat(&mut self) {
        let heartbeat = self.node.settings().heartbeat;
        self.clock.beat(heartbeat);
        // Timers fire a little early or late: two beats less an eighth are two beats.
        if self.heard.elapsed() > heartbeat * 2 - heartbeat / 8 {
            return self.socket.start_close(close::TIMEOUT, "timeout");
        }
        if self.socket.send_ping(Bytes::new()).is_err() {
            tracing::debug!("no room for a ping");
        }
    }
}

impl Actor for Device {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CAPACITY);
        metrics::gauge!("sotto_connections").increment(1.0);
        drive(ctx);
        if let Some(caller) = self.caller {
            self.phase = Phase::Entering { re: None };
            self.enter(caller, None, ctx);
        } else {
            self.watch(ctx);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        metrics::gauge!("sotto_connections").decrement(1.0);
        self.node.connection_closed();
        if let Some(session) = self.session.take() {
            Detach(self.connection).insist(session);
        }
    }
}

impl SocketOwner for Device {
    type Stream = TcpStream;

    fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn patience(&self) -> SocketPatience {
        SocketPatience { close: CLOSE_PATIENCE, stall: self.node.settings().stall_timeout }
    }

    fn wants_input(&mut self) -> bool {
        // What comes between hello and welcome waits its turn.
        !matches!(self.phase, Phase::Entering { .. })
            && !self.rests
            && self.unanswered < limits::MAX_UNANSWERED
            && self.unanswered_bytes < HIGH_WATER
            && self.socket.queued_bytes() < HIGH_WATER
    }

    fn received(&mut self, incoming: Incoming, ctx: &mut Self::Context) {
        self.heard = Instant::now();
        match incoming {
            Incoming::Text(text) => {
                if !self.socket.is_closing() {
                    self.frame(&text, ctx);
                }
            }
            Incoming::Binary(_) => self.socket.start_close(1003, "text frames only"),
            Incoming::Violation(violation) => {
                let what = match violation {
                    Violation::Protocol(what) => what,
                    Violation::Utf8 => "bad UTF-8",
                    Violation::TooBig => "too big",
                };
                tracing::debug!(connection = %self.connection, what, "a peer broke the framing");
            }
            Incoming::Ping(_) | Incoming::Pong(_) | Incoming::Close(_) => {}
            Incoming::End(end) => tracing::debug!(connection = %self.connection, ?end, "socket ended"),
        }
    }
}

impl Handler<Push> for Device {
    type Result = ();

    fn handle(&mut self, push: Push, _: &mut Self::Context) {
        for text in push.0 {
            self.write(text);
        }
    }
}

impl Handler<Whisper> for Device {
    type Result = ();

    fn handle(&mut self, whisper: Whisper, _: &mut Self::Context) {
        if matches!(self.phase, Phase::Live) && self.socket.queued_bytes() < WHISPER_BELOW {
            self.write(whisper.0);
        }
    }
}

impl Handler<Joined> for Device {
    type Result = ();

    fn handle(&mut self, joined: Joined, _: &mut Self::Context) {
        let (Phase::Entering { re }, Some(caller)) = (&self.phase, self.caller) else {
            return;
        };
        let re = *re;
        let welcome = Welcome {
            session_id: self.connection.0,
            node: self.node.node_id().to_owned(),
            epoch: self.node.epoch(),
            heartbeat_ms: u64::try_from(self.node.settings().heartbeat.as_millis()).unwrap_or(30_000),
            window: u64::try_from(limits::WINDOW_EVENTS).unwrap_or(256),
            max_frame: u64::try_from(limits::MAX_FRAME).unwrap_or(262_144),
            token_expires_at: caller.token_expires_at,
            server_time: Timestamp::now(),
            pending: joined.pending,
        };
        self.phase = Phase::Live;
        self.write(Frame::new("welcome", welcome).answering(re).to_text());
    }
}

impl StreamHandler<Answer> for Device {
    fn handle(&mut self, answer: Answer, _: &mut Self::Context) {
        self.answered(answer.bytes);
        if let Some(id) = answer.re {
            self.ids.retain(|other| *other != id);
        }
        match answer.result {
            Ok(_) if answer.re.is_none() => {}
            Ok(AnswerBody::Sent(sent)) => self.write(Frame::new("ok", sent).answering(answer.re).to_text()),
            Ok(AnswerBody::Done) => self.write(Frame::new("ok", Empty {}).answering(answer.re).to_text()),
            Err(problem) => {
                let goes_on = problem.code != ErrorCode::RateLimited
                    || self.limited.another(REFUSALS_PER_MINUTE, Duration::from_secs(60));
                self.refuse(answer.re, *problem);
                if !goes_on {
                    self.socket.start_close(close::RATE_LIMITED, "rate limited");
                }
            }
        }
    }

    // The stream ends only with the actor.
    fn finished(&mut self, _: &mut Self::Context) {}
}
