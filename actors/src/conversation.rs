//! The actor Conversation: checks what is sent to one conversation, hands it to a Journal, and tells its
//! members after the commit.
//!
//! *Owns:* members, roles and device lists as they were last read, the ids of recent messages, what is in
//! flight to the Journal, and the order of the fan-out.
//! *When full:* answers `unavailable` with a time to wait.
//! *On death:* is read from the database again at the next message.
//!
//! What it knows may be old: another node may have changed it. So nothing is refused by old knowledge, it is
//! read again first; and nothing is accepted by old knowledge, for the Journal compares the versions again
//! under the lock (rule D8).

use crate::bus::event::Event;
use crate::journal::{Marks, Raise, Route, Write, Written};
use crate::mailbox::tell;
use crate::node::Node;
use crate::pressure::Permit;
use crate::rate_limit::Decision;
use crate::reply::Reply;
use crate::session::Delivery;
use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, StreamHandler, WrapFuture};
use bytes::Bytes;
use sotto_protocol::conversation::ConversationType;
use sotto_protocol::message::{OutgoingMessage, Sender, Sent};
use sotto_protocol::{ConversationId, ErrorCode, MessageId, Problem, Seq, Timestamp, UserId, limits};
use sotto_schema::append::{Append, Appended, ReadMark};
use sotto_schema::planted::{self, Bug};
use sotto_schema::rows::{ConversationState, MessageRow};
use sotto_schema::{PackedEnvelopes, StoreError};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

mod fan_out;
mod messages;
mod recent;
mod state;
mod typing;

pub use messages::{MarksRaised, MembersMoved, ReadUpTo, Send, TypingSignal, Wake};

pub use state::roster;

use recent::{Recent, Stored};
use state::{State, check_devices};

/// Mailbox: sends and news that may wait.
pub(crate) const CAPACITY: usize = 1024;
/// Most sends waiting and in flight together.
const MAX_PENDING: usize = 4096;
/// Checks of one message against versions that moved meanwhile.
const MAX_TRIES: u32 = 3;
/// A conversation that nobody uses for so long is forgotten.
const IDLE: Duration = Duration::from_secs(90);
/// Before a look at the database that failed is repeated, where news wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A send on its way.
struct Request {
    ticket: u64,
    sender: Sender,
    /// Its content is taken out when it is first handed over; what is checked stays.
    message: OutgoingMessage,
    content: Option<Content>,
    limited: Option<Decision>,
    _permit: Permit,
    reply: Reply,
    /// Whether the database was asked for this very message since it came: only then it may be refused.
    looked_up: bool,
    tries: u32,
}

/// What a message carries and the server does not read, in one copy for the database and all readers.
struct Content {
    ciphertext: Option<Bytes>,
    envelopes: Option<Bytes>,
}

impl Content {
    /// Takes the content out of a message. The list of its envelopes' devices stays: it may have to be checked again.
    fn take(message: &mut OutgoingMessage) -> Self {
        let ciphertext = message.ciphertext.as_mut().map(|shared| std::mem::take(&mut shared.0).into());
        let envelopes = message.envelopes.as_mut().map(|envelopes| {
            let packed = PackedEnvelopes::pack(envelopes).0.into();
            for envelope in envelopes {
                std::mem::take(&mut envelope.ciphertext);
            }
            packed
        });
        Self { ciphertext, envelopes }
    }
}

/// A send that the Journal has.
struct InFlight {
    request: Box<Request>,
    append: Arc<Append>,
}

/// A read mark on its way.
struct PendingRead {
    read: ReadUpTo,
    arrived: Instant,
}

/// What is to be done with a send.
enum Verdict {
    Append { first_of_sender: bool, device_versions: Option<i64> },
    Refuse(Problem),
}

/// A conversation that somebody here uses.
pub struct Conversation {
    id: ConversationId,
    node: Node,
    route: Route,
    state: Option<State>,
    loading: bool,
    /// What is being read may be older than a change of the members: it is read again.
    outdated: bool,
    // A queue keeps the room that it once needed: of pointers, it is little.
    waiting: VecDeque<Box<Request>>,
    in_flight: BTreeMap<u64, InFlight>,
    in_flight_versions: (i64, i64),
    /// Whether some of it was checked against the device list.
    in_flight_listed: bool,
    next_ticket: u64,
    written: Option<mpsc::UnboundedSender<Written>>,
    recent: Recent,
    told_seq: Seq,
    /// Receipts up to here were told to everybody whom they concern.
    told_receipts: i64,
    /// A run of receipts told beyond that: what lies between was raised at other nodes, and is the sweep's to tell.
    receipts_ahead: (i64, i64),
    /// News that came before the members were known.
    wake: Option<Wake>,
    /// Numbers that were heard of while sends up to a ticket were in flight.
    early: VecDeque<(Seq, u64)>,
    /// What was committed here before the members were known, to be told to other nodes: number and receipt.
    untold: (Seq, i64),
    typing: Option<TypingSignal>,
    typing_told: typing::Told,
    reads: Vec<PendingRead>,
    used: Instant,
}

/// How much one look at the database brings.
struct Look {
    state: Result<Option<ConversationState>, StoreError>,
    /// The message at the head of the queue, if the conversation has it already.
    known: Option<(MessageId, UserId, Seq, Timestamp)>,
    /// The message that was asked for.
    asked: Option<u64>,
    began: Instant,
}

impl Conversation {
    /// A conversation that reads itself from the store when it is first needed.
    #[must_use]
    pub fn new(id: ConversationId, node: Node, route: Route) -> Self {
        Self {
            id,
            node,
            route,
            state: None,
            loading: false,
            outdated: false,
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            in_flight_versions: (0, 0),
            in_flight_listed: false,
            next_ticket: 0,
            written: None,
            recent: Recent::default(),
            told_seq: 0,
            told_receipts: 0,
            receipts_ahead: (0, 0),
            wake: None,
            early: VecDeque::new(),
            untold: (0, 0),
            typing: None,
            typing_told: typing::Told::default(),
            reads: Vec::new(),
            used: Instant::now(),
        }
    }

    /// Takes as many sends as can be decided now, in their order.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        while let Some(request) = self.waiting.front() {
            if self.loading {
                return;
            }
            let is_member = |state: &State| state.members.contains_key(&request.sender.user_id);
            let is_checked = !planted::is(Bug::KnownAfterMembership) || self.state.as_ref().is_some_and(is_member);
            if is_checked && let Some(sent) = self.recently(request) {
                self.pop_and_answer(Ok(sent), true);
                continue;
            }
            let Some(state) = &self.state else {
                return self.look(ctx);
            };
            // What is in flight was checked against older versions and may come back: it goes first.
            if !self.in_flight.is_empty() && self.in_flight_versions != state.versions() {
                return;
            }
            match self.judge(state, request) {
                Verdict::Append { first_of_sender, device_versions } => {
                    self.hand_over(first_of_sender, device_versions);
                }
                Verdict::Refuse(_) if !request.looked_up => return self.look(ctx),
                Verdict::Refuse(problem) => self.pop_and_answer(Err(problem), false),
            }
        }
    }

    fn pop_and_answer(&mut self, answer: Result<Sent, Problem>, repeat: bool) {
        if let Some(request) = self.waiting.pop_front() {
            if repeat && request.limited.is_none() {
                self.node.limits().refund_message(request.sender.user_id);
            }
            request.reply.send(answer);
        }
    }

    /// Reads members, devices and versions, and whether the waiting message is known.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.loading {
            return;
        }
        self.loading = true;
        let store = self.node.store().clone();
        let id = self.id;
        let message = self.waiting.front().map(|request| request.message.message_id);
        let asked = self.waiting.front().map(|request| request.ticket);
        let work = async move {
            let began = Instant::now();
            let mut state = store.conversation_state(id).await;
            let mut known = None;
            if let Some(message) = message {
                match store.known_message(id, message).await {
                    Ok(Some((seq, Some(user), at))) => known = Some((message, user, seq, at)),
                    Ok(_) => {}
                    // Without this answer nothing may be refused.
                    Err(error) => state = Err(error),
                }
            }
            Look { state, known, asked, began }
        };
        ctx.spawn(work.into_actor(self).map(|look, actor, ctx| actor.looked(look, ctx)));
    }

    fn looked(&mut self, look: Look, ctx: &mut Context<Self>) {
        self.loading = false;
        if look.state.is_ok()
            && let Some(request) = self.waiting.front_mut()
            && look.asked == Some(request.ticket)
        {
            request.looked_up = true;
        }
        if let Some((message, user, seq, at)) = look.known {
            self.remember(message, user, seq, at);
        }
        if std::mem::take(&mut self.outdated) && look.state.is_ok() {
            return self.look(ctx);
        }
        match look.state {
            Ok(Some(state)) => {
                // What was told is not raised by what is read: another node's commit that was not swept yet
                // would then never be told here (rule D1).
                let mut fresh = State::of(state, look.began);
                // What was stored while it was read counts, or a limit would be passed.
                fresh.last_seq = fresh.last_seq.max(self.told_seq);
                self.state = Some(fresh);
                if let Some(wake) = self.wake.take() {
                    self.spread_wake(wake);
                }
                self.tell_untold();
                if let Some(signal) = self.typing.take() {
                    self.hear_typing(signal, ctx);
                }
                for read in std::mem::take(&mut self.reads) {
                    self.read(read, ctx);
                }
                self.advance(ctx);
            }
            Ok(None) => {
                while !self.waiting.is_empty() {
                    self.pop_and_answer(Err(Problem::not_found()), false);
                }
                for read in self.reads.drain(..) {
                    let _ = read.read.reply.send(Err(Problem::not_found()));
                }
                self.node.conversations().remove(&self.id, &ctx.address());
                ctx.stop();
            }
            Err(error) => {
                tracing::warn!(%error, conversation = %self.id, "a conversation could not be read");
                if self.wake.is_some() {
                    // Nobody brings this news a second time.
                    ctx.run_later(LOOK_AGAIN, |actor, ctx| actor.look(ctx));
                }
                while !self.waiting.is_empty() {
                    self.pop_and_answer(Err(busy()), false);
                }
                for read in self.reads.drain(..) {
                    let _ = read.read.reply.send(Err(busy()));
                }
            }
        }
    }

    fn recently(&self, request: &Request) -> Option<Sent> {
        let Stored { message, user, seq, at } = *self.recent.find(request.message.message_id)?;
        (user == request.sender.user_id).then(|| self.sent(message, seq, at, true))
    }

    const fn sent(&self, message_id: MessageId, seq: Seq, at: Timestamp, duplicate: bool) -> Sent {
        Sent { message_id, conversation_id: self.id, seq, server_time: at, duplicate }
    }

    /// The order of the contract: repeat (answered before), membership, limits, device list.
    fn judge(&self, state: &State, request: &Request) -> Verdict {
        let user = request.sender.user_id;
        let Some(member) = state.members.get(&user) else {
            return Verdict::Refuse(if state.former.contains_key(&user) {
                Problem::new(ErrorCode::Forbidden, "you are no longer a member of this conversation")
            } else {
                Problem::not_found()
            });
        };
        if self.recent.find(request.message.message_id).is_some() {
            return Verdict::Refuse(Problem::new(
                ErrorCode::Conflict,
                "another user has used this message id in the conversation",
            ));
        }
        if let Some(decision) = request.limited {
            return Verdict::Refuse(decision.refusal("messages"));
        }
        if self.is_unanswered(state, user) {
            return Verdict::Refuse(Problem::new(
                ErrorCode::Blocked,
                "the other has neither written nor read here yet; wait for an answer",
            ));
        }
        let device_versions = match check_devices(state, &request.message, request.sender.device_id) {
            Ok(used) => used.then_some(state.device_versions),
            Err(problem) => return Verdict::Refuse(problem),
        };
        Verdict::Append { first_of_sender: !member.has_sent, device_versions }
    }

    /// Until the other member of a direct conversation has written or read, three messages are enough.
    fn is_unanswered(&self, state: &State, sender: UserId) -> bool {
        if state.kind != ConversationType::Direct || !self.node.limits().enabled() {
            return false;
        }
        let answered =
            state.members.iter().any(|(user, member)| *user != sender && (member.has_sent || member.has_read));
        let pending = i64::try_from(self.in_flight.len()).unwrap_or(i64::MAX);
        !answered && state.last_seq.saturating_add(pending) >= limits::MAX_UNANSWERED_CONTACT
    }

    /// Hands the first waiting send to the Journal.
    fn hand_over(&mut self, first_of_sender: bool, device_versions: Option<i64>) {
        let Some(mut request) = self.waiting.pop_front() else {
            return;
        };
        let (Some(state), Some(reply)) = (&self.state, &self.written) else {
            return request.reply.send(Err(busy()));
        };
        self.in_flight_versions = state.versions();
        // One that needs no list behind one that does: if that one comes back, this one must too, or it would
        // pass it by.
        self.in_flight_listed = device_versions.is_some() || (self.in_flight_listed && !self.in_flight.is_empty());
        let device_versions = self.in_flight_listed.then_some(state.device_versions);
        let content = request.content.take().unwrap_or_else(|| Content::take(&mut request.message));
        let message = &request.message;
        let append = Arc::new(Append {
            conversation_id: self.id,
            message_id: message.message_id,
            sender: request.sender,
            kind: message.kind,
            ciphertext: content.ciphertext,
            envelopes: content.envelopes,
            reply_to: message.reply_to,
            client_seq: message.client_seq,
            expires_in: message.expires_in,
            membership_version: state.membership_version,
            device_versions,
            first_of_sender,
        });
        let (journal, place) = self.route.choose(!self.in_flight.is_empty(), self.node.pressure());
        let write = Write { append: Arc::clone(&append), ticket: request.ticket, reply: reply.clone(), place };
        if tell(journal, write).is_err() {
            request.reply.send(Err(busy()));
            return;
        }
        self.in_flight.insert(request.ticket, InFlight { request, append });
    }

    /// Tells the nodes where other members may be what was committed here.
    fn tell_nodes(&self, event: impl FnOnce() -> Event) {
        if let Some(state) = &self.state {
            self.node.bus().tell(|| state.members.keys().copied().collect(), event);
        }
    }

    fn tell_untold(&mut self) {
        let (seq, receipts) = std::mem::take(&mut self.untold);
        if seq > 0 {
            let delivery = Delivery { conversation_id: self.id, seq, row: None, shared_text: OnceLock::new() };
            self.tell_nodes(|| Event::Delivered(Arc::new(delivery)));
        }
        if receipts > 0 {
            self.tell_nodes(|| Event::Receipts(self.id, receipts));
        }
    }

    fn remember(&mut self, message: MessageId, user: UserId, seq: Seq, at: Timestamp) {
        if planted::is(Bug::NoDedupe) {
            return;
        }
        self.recent.keep(Stored { message, user, seq, at });
    }

    fn stored(&mut self, reply: Reply, append: &Append, seq: Seq, at: Timestamp) {
        self.remember(append.message_id, append.sender.user_id, seq, at);
        reply.send(Ok(self.sent(append.message_id, seq, at, false)));
        metrics::counter!("sotto_messages_total").increment(1);
        if let Some(state) = &mut self.state {
            state.last_seq = state.last_seq.max(seq);
            if let Some(member) = state.members.get_mut(&append.sender.user_id) {
                member.has_sent = true;
            }
        }
        self.told_seq = self.told_seq.max(seq);
        if self.state.is_none() {
            // Members are being read again: they are told when they are known.
            self.untold.0 = self.untold.0.max(seq);
            return self.keep(Wake { seq, receipts: 0, again: true });
        }
        let row = row_of(append, seq, at);
        let delivery =
            Arc::new(Delivery { conversation_id: self.id, seq, row: Some(row), shared_text: OnceLock::new() });
        self.spread(&delivery);
        self.tell_nodes(|| Event::Delivered(delivery));
    }

    fn read(&mut self, pending: PendingRead, ctx: &mut Context<Self>) {
        let Some(state) = &self.state else {
            self.reads.push(pending);
            return self.look(ctx);
        };
        let read = &pending.read;
        let refusal = if !state.members.contains_key(&read.user) {
            Some(if state.former.contains_key(&read.user) {
                Problem::new(ErrorCode::Forbidden, "you are no longer a member of this conversation")
            } else {
                Problem::not_found()
            })
        } else if read.up_to > state.last_seq {
            Some(Problem::field("/up_to", "above_last_seq"))
        } else {
            None
        };
        match refusal {
            // Nothing is refused by what was read before it came.
            Some(problem) if state.read_at > pending.arrived => {
                let _ = pending.read.reply.send(Err(problem));
            }
            Some(_) => {
                self.reads.push(pending);
                self.look(ctx);
            }
            None => self.write_read(pending.read, ctx),
        }
    }

    fn write_read(&mut self, read: ReadUpTo, ctx: &mut Context<Self>) {
        if let Some(member) = self.state.as_mut().and_then(|state| state.members.get_mut(&read.user)) {
            member.has_read = member.has_read || read.up_to > 0;
        }
        let mark = ReadMark { conversation_id: self.id, user_id: read.user, device_id: read.device, up_to: read.up_to };
        let marks = Marks { reads: vec![mark], ..Marks::default() };
        let (reply, durable) = oneshot::channel();
        if tell(self.route.home(), Raise { marks, reply }).is_err() {
            let _ = read.reply.send(Err(busy()));
            return;
        }
        let work = async move {
            let answer = if durable.await == Ok(true) { Ok(()) } else { Err(busy()) };
            let _ = read.reply.send(answer);
        };
        ctx.spawn(work.into_actor(self));
    }

    /// A message came back because a version moved: it goes to its old place in the queue.
    fn again(&mut self, mut request: Box<Request>, append: &Append) {
        let (ciphertext, envelopes) = (append.ciphertext.clone(), append.envelopes.clone());
        request.content = Some(Content { ciphertext, envelopes });
        request.tries += 1;
        if request.tries > MAX_TRIES {
            return request.reply.send(Err(busy()));
        }
        request.looked_up = false;
        self.state = None;
        let place = self.waiting.iter().position(|other| other.ticket > request.ticket);
        self.waiting.insert(place.unwrap_or(self.waiting.len()), request);
    }
}

fn busy() -> Problem {
    Problem::unavailable("the message could not be confirmed; send it again with the same id")
}

fn row_of(append: &Append, seq: Seq, at: Timestamp) -> MessageRow {
    MessageRow {
        conversation_id: append.conversation_id,
        seq,
        message_id: append.message_id,
        sender_user: Some(append.sender.user_id),
        sender_device: Some(append.sender.device_id),
        kind: append.kind,
        ciphertext: append.ciphertext.clone(),
        envelopes: append.envelopes.clone(),
        reply_to: append.reply_to,
        client_seq: append.client_seq,
        system: None,
        expires_at: append.expires_at(at),
        edited_at: None,
        deleted_at: None,
        created_at: at,
    }
}

impl Actor for Conversation {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.written = Some(sender);
        ctx.add_stream(futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|written| (written, receiver))
        }));
        ctx.run_interval(IDLE / 3, |actor, ctx| {
            let busy = actor.loading || !actor.waiting.is_empty() || !actor.in_flight.is_empty();
            if !busy && actor.used.elapsed() > IDLE {
                actor.node.conversations().remove(&actor.id, &ctx.address());
                ctx.stop();
            }
        });
    }
}

impl Handler<Send> for Conversation {
    type Result = ();

    fn handle(&mut self, send: Send, ctx: &mut Self::Context) {
        self.used = Instant::now();
        if self.waiting.len() + self.in_flight.len() >= MAX_PENDING {
            return send.reply.send(Err(busy()));
        }
        self.next_ticket += 1;
        self.waiting.push_back(Box::new(Request {
            ticket: self.next_ticket,
            sender: send.sender,
            message: send.message,
            content: None,
            limited: send.limited,
            _permit: send.permit,
            reply: send.reply,
            looked_up: false,
            tries: 0,
        }));
        self.advance(ctx);
    }
}

impl StreamHandler<Written> for Conversation {
    fn handle(&mut self, written: Written, ctx: &mut Self::Context) {
        let Some(InFlight { request, append }) = self.in_flight.remove(&written.ticket) else {
            return;
        };
        match written.outcome {
            Some(Appended::Stored { seq, at }) => self.stored(request.reply, &append, seq, at),
            Some(Appended::Known { seq, at }) => {
                self.remember(request.message.message_id, request.sender.user_id, seq, at);
                self.node.limits().refund_message(request.sender.user_id);
                request.reply.send(Ok(self.sent(request.message.message_id, seq, at, true)));
            }
            Some(Appended::Conflict) => request.reply.send(Err(Problem::new(
                ErrorCode::Conflict,
                "another user has used this message id in the conversation",
            ))),
            Some(Appended::Missing) => request.reply.send(Err(Problem::not_found())),
            Some(Appended::Stale) => self.again(request, &append),
            Some(Appended::Locked) | None => request.reply.send(Err(busy())),
        }
        self.tell_early();
        if self.state.is_none() && self.wake.is_some() {
            self.look(ctx);
        }
        self.advance(ctx);
    }
}

impl Handler<Wake> for Conversation {
    type Result = ();

    fn handle(&mut self, wake: Wake, ctx: &mut Self::Context) {
        let wake = self.hold_early(wake);
        if self.state.is_some() {
            return self.spread_wake(wake);
        }
        self.keep(wake);
        self.look(ctx);
    }
}

impl Handler<MarksRaised> for Conversation {
    type Result = ();

    fn handle(&mut self, message: MarksRaised, ctx: &mut Self::Context) {
        self.used = Instant::now();
        let Some(state) = &mut self.state else {
            let receipts = message.0.iter().map(|raised| raised.version).max().unwrap_or(0);
            self.untold.1 = self.untold.1.max(receipts);
            return Handler::<Wake>::handle(self, Wake { seq: 0, receipts, again: true }, ctx);
        };
        let large = state.members.len() > limits::MAX_MEMBERS_WITH_RECEIPTS;
        let first = message.0.iter().map(|raised| raised.version).min().unwrap_or(0);
        let mut version = 0;
        let mut told = HashSet::new();
        for raised in &message.0 {
            version = version.max(raised.version);
            let is_read = raised.device_id.is_none();
            // A delivered mark is news to others, a read mark to the reader's other devices too; in
            // large conversations receipts stay with the reader.
            told.extend(state.members.keys().filter(|user| if **user == raised.user_id { is_read } else { !large }));
            if raised.device_id.is_none()
                && let Some(member) = state.members.get_mut(&raised.user_id)
            {
                member.has_read = true;
            }
        }
        self.spread_receipts(version, Some(&told));
        self.node.bus().tell(|| told.into_iter().collect(), || Event::Receipts(self.id, version));
        if first <= self.told_receipts + 1 {
            self.told_receipts = self.told_receipts.max(version);
        } else if first == self.receipts_ahead.1 + 1 {
            self.receipts_ahead.1 = version;
        } else {
            self.receipts_ahead = (first, version);
        }
    }
}

impl Handler<MembersMoved> for Conversation {
    type Result = ();

    fn handle(&mut self, moved: MembersMoved, ctx: &mut Self::Context) {
        self.used = Instant::now();
        // Who is a member must be read before anybody is told.
        self.state = None;
        self.outdated = self.loading;
        let wake = Wake { seq: moved.seq, receipts: 0, again: true };
        Handler::<Wake>::handle(self, wake, ctx);
    }
}

impl Handler<ReadUpTo> for Conversation {
    type Result = ();

    fn handle(&mut self, read: ReadUpTo, ctx: &mut Self::Context) {
        self.used = Instant::now();
        self.read(PendingRead { read, arrived: self.used }, ctx);
    }
}

impl Handler<TypingSignal> for Conversation {
    type Result = ();

    fn handle(&mut self, signal: TypingSignal, ctx: &mut Self::Context) {
        if self.state.is_some() {
            return self.hear_typing(signal, ctx);
        }
        self.typing = Some(signal);
        self.look(ctx);
    }
}
