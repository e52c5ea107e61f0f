//! The actor Session: a user's devices that are connected here, and what each of them has been sent.
//!
//! *Owns:* per device its connection, cursors, heads and window; the marks that wait for their commit.
//! *When full:* whoever tells it something notes that, and the sweep tells it again; the backlog is in the
//! database.
//! *On death:* its devices are closed and come back.
//!
//! Rule D2: a wake, from wherever, only raises a head. Events go out from the cursor upward, in order. A
//! payload is a shortcut, taken only when it is the very next one and the backlog has been sent.

use crate::device::{Joined, Whisper};
use crate::mailbox::tell;
use crate::node::Node;
use crate::registry::Registration;
use crate::render;
use crate::window::{Item, Window};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use bytes::Bytes;
use sotto_protocol::event::Event;
use sotto_protocol::frame::{Activity, Empty, Frame, GoAway};
use sotto_protocol::{ConversationId, DeviceId, Seq, SessionId, Timestamp, UserId, close};
use sotto_schema::StoreError;
use sotto_schema::planted::{self, Bug};
use sotto_schema::rows::{Arrival, BacklogRow, MessageRow, ReceiptRow};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

mod attached;
mod marks;
mod messages;
mod presence;

pub use messages::{
    AccountMoved, Ack, Attach, Deliver, Delivery, Detach, Drain, End, Ephemeral, MarkedElsewhere, PresenceWanted,
    ReadAgain, ReceiptsMoved, Replace, SetActivity, StockIsLow,
};

use attached::{
    Attached, READ_AT_ONCE, next_read_size, number, take_account, take_marks, take_messages, take_receipts,
};
use presence::presence_of;

/// Mailbox: news and acknowledgements that may wait.
const CAPACITY: usize = 2048;
/// After the first, receipts of a conversation are sent at most this often.
const RECEIPTS_EVERY: Duration = Duration::from_secs(1);
/// Marks of what was only passed over wait so long for company.
const PASSED_OVER_AFTER: Duration = Duration::from_millis(300);
/// The same news of a stock of keys is told at most this often.
const STOCK_EVERY: Duration = Duration::from_secs(60);
/// Before marks that could not be written, or a backlog that could not be read, are tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// A user's devices here.
pub struct Session {
    user: UserId,
    node: Node,
    devices: Vec<Attached>,
    /// The presence that others got last, and when.
    online: bool,
    online_since: Option<Instant>,
    /// Whether the devices' activity is looked at in a moment.
    presence_waits: bool,
}

/// What a read brought.
enum Read {
    Place(ConversationId, Option<BacklogRow>),
    Messages { conversation: ConversationId, up_to: Seq, limit: usize, rows: Vec<MessageRow> },
    Receipts { conversation: ConversationId, up_to: i64, limit: usize, rows: Vec<ReceiptRow> },
    Account { events: Vec<(i64, Option<Event>)>, up_to: i64, full: bool },
}

impl Session {
    /// A session without devices yet.
    #[must_use]
    pub const fn new(user: UserId, node: Node) -> Self {
        Self { user, node, devices: Vec::new(), online: false, online_since: None, presence_waits: false }
    }

    fn place_of(&self, connection: SessionId) -> Option<usize> {
        self.devices.iter().position(|device| device.connection == connection)
    }

    /// Reads what waits for a new connection; what arrives meanwhile only raises heads.
    fn join(&self, connection: SessionId, device_id: DeviceId, ctx: &mut Context<Self>) {
        let node = self.node.clone();
        let user = self.user;
        let own = self.devices.iter().find(|device| device.connection == connection);
        let family = own.map(|device| device.family);
        // Read again, it is known already.
        let registration = own.filter(|device| !device.joined).map(|device| device.registration(user));
        let work = async move {
            if let Some(registration) = registration {
                node.registry().announce(registration).await;
            }
            let live = match family {
                Some(family) => node.identity().is_live(family).await,
                None => false,
            };
            if !live {
                return Ok(None);
            }
            node.store().arrival(user, device_id, Timestamp::now()).await
        };
        ctx.spawn(work.into_actor(self).map(move |found, session, ctx| session.joined(connection, found, ctx)));
    }

    fn joined(&mut self, connection: SessionId, found: Result<Option<Arrival>, StoreError>, ctx: &mut Context<Self>) {
        let Some(index) = self.place_of(connection) else {
            return;
        };
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let Arrival { account_head, account_seen, backlog: rows, low } = match found {
            Ok(Some(arrival)) => arrival,
            Ok(None) => return device.end(close::DEVICE_REVOKED),
            Err(error) => {
                tracing::warn!(%error, "a backlog could not be read");
                if device.joined {
                    let device_id = device.device_id;
                    ctx.run_later(RETRY_AFTER, move |session, ctx| session.join(connection, device_id, ctx));
                    return;
                }
                // 1013: try again later.
                return device.end(1013);
            }
        };
        device.merge(&rows);
        device.account_head = device.account_head.max(account_head);
        if device.joined {
            return self.pump(index, ctx);
        }
        device.joined = true;
        device.account_sent = device.account_sent.max(account_seen);
        device.backlog_account = account_head;
        device.backlog = rows.iter().map(|row| (row.conversation_id, (row.head, row.receipts_version))).collect();
        // Heads that grew before the look, of conversations that had no backlog then.
        let grown: Vec<ConversationId> =
            device.places.iter().filter(|(_, place)| !place.known).map(|(id, _)| *id).collect();
        for conversation in grown {
            device.enqueue(conversation);
        }
        let pending = !device.backlog.is_empty() || account_head > account_seen || !low.is_empty();
        if tell(&device.socket, Joined { pending }).is_err() {
            return device.end(close::SLOW_CONSUMER);
        }
        for low in low {
            let event = Event::KeysLow(low);
            device.emit(Item::State, |n| render::event(n, &event));
        }
        self.pump(index, ctx);
        self.presence(true);
    }

    /// Sends as much as the window allows; starts the next read when something waits.
    fn pump(&mut self, index: usize, ctx: &mut Context<Self>) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        if device.lease.as_ref().is_none_or(oneshot::Sender::is_closed) || !device.joined {
            return;
        }
        let mut next = None;
        let mut passed_over = false;
        while !device.reading && next.is_none() && device.window.has_room() {
            let Some(conversation) = device.ready.pop_front() else {
                break;
            };
            device.catch_up(conversation);
            passed_over |= device.pass_over(self.user, conversation);
            let Some(place) = device.places.get_mut(&conversation) else {
                continue;
            };
            if !place.known || place.sent < place.head {
                next = Some(conversation);
            } else if place.receipts_sent < place.receipts_head {
                let since = place.receipts_at.map(|at| at.elapsed());
                match since.and_then(|since| RECEIPTS_EVERY.checked_sub(since)) {
                    Some(wait) if !wait.is_zero() => {
                        // Messages of the conversation go on meanwhile: only its receipts pause.
                        place.queued = false;
                        if !std::mem::replace(&mut place.receipts_pause, true) {
                            let connection = device.connection;
                            ctx.run_later(wait, move |session, ctx| session.end_pause(connection, conversation, ctx));
                        }
                    }
                    _ => next = Some(conversation),
                }
            } else {
                place.queued = false;
                device.left_backlog(conversation);
            }
        }
        if let Some(conversation) = next {
            self.read(index, conversation, ctx);
        } else if !device.reading
            && device.ready.is_empty()
            && device.account_sent < device.account_head
            && device.window.has_room()
        {
            self.read_account(index, ctx);
        }
        if passed_over {
            self.flush_soon(index, ctx);
        }
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        if !device.drained && device.is_drained() {
            device.drained = true;
            device.out.push(Bytes::from(Frame::new("drained", Empty {}).to_text()));
        }
        device.push();
        self.watch(index, ctx);
    }

    /// The pause between receipts of a conversation is over.
    fn end_pause(&mut self, connection: SessionId, conversation: ConversationId, ctx: &mut Context<Self>) {
        let Some(index) = self.place_of(connection) else {
            return;
        };
        if let Some(device) = self.devices.get_mut(index) {
            if let Some(place) = device.places.get_mut(&conversation) {
                place.receipts_pause = false;
            }
            device.enqueue(conversation);
        }
        self.pump(index, ctx);
    }

    fn read(&mut self, index: usize, conversation: ConversationId, ctx: &mut Context<Self>) {
        let user = self.user;
        let store = self.node.store().clone();
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let Some(place) = device.places.get(&conversation) else {
            return;
        };
        device.reading = true;
        let (connection, device_id) = (device.connection, device.device_id);
        let room = device.window.room();
        let (known, after, up_to) = (place.known, place.sent, place.head);
        let limit = device.read_limit(self.node.pressure());
        let (receipts_sent, receipts_head) = (place.receipts_sent, place.receipts_head);
        let what = match known {
            false => "place",
            true if after < up_to => "messages",
            true => "receipts",
        };
        metrics::counter!("sotto_reads_total", "what" => what).increment(1);
        let work = async move {
            if !known {
                return Ok(Read::Place(conversation, store.place(user, device_id, conversation).await?));
            }
            if after < up_to {
                let rows = store.messages(conversation, user, after, up_to, number(limit)).await?;
                return Ok(Read::Messages { conversation, up_to, limit, rows });
            }
            let rows = store.receipts(conversation, user, device_id, receipts_sent, number(room)).await?;
            Ok(Read::Receipts { conversation, up_to: receipts_head, limit: room, rows })
        };
        ctx.spawn(work.into_actor(self).map(move |read, session, ctx| {
            session.have_read(connection, Some(conversation), read, ctx);
        }));
    }

    fn read_account(&mut self, index: usize, ctx: &mut Context<Self>) {
        let (user, node) = (self.user, self.node.clone());
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        device.reading = true;
        let (connection, device_id) = (device.connection, device.device_id);
        let (after, up_to) = (device.account_sent, device.account_head);
        let limit = device.window.room().min(READ_AT_ONCE);
        let work = async move {
            let events = node.account_events(user, device_id, after, limit).await?;
            Ok(Read::Account { full: events.len() >= limit, events, up_to })
        };
        ctx.spawn(work.into_actor(self).map(move |read, session, ctx| {
            session.have_read(connection, None, read, ctx);
        }));
    }

    fn have_read(
        &mut self,
        connection: SessionId,
        conversation: Option<ConversationId>,
        read: Result<Read, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let Some(index) = self.place_of(connection) else {
            return;
        };
        let user = self.user;
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let mut passed_over = false;
        match read {
            Err(error) => {
                tracing::warn!(%error, "a read for a device failed; it is tried again");
                ctx.run_later(RETRY_AFTER, move |session, ctx| {
                    if let Some(index) = session.place_of(connection)
                        && let Some(device) = session.devices.get_mut(index)
                    {
                        device.reading = false;
                        if let Some(conversation) = conversation {
                            device.ready.push_front(conversation);
                        }
                        session.pump(index, ctx);
                    }
                });
                return;
            }
            Ok(Read::Place(conversation, row)) => match row {
                Some(row) => {
                    device.merge(&[row]);
                    device.ready.push_back(conversation);
                }
                None => {
                    device.places.remove(&conversation);
                }
            },
            Ok(Read::Messages { conversation, up_to, limit, rows }) => {
                device.read_size = next_read_size(&rows);
                passed_over = take_messages(device, user, conversation, up_to, limit, &rows);
            }
            Ok(Read::Receipts { conversation, up_to, limit, rows }) => {
                passed_over = take_receipts(device, user, conversation, up_to, limit, rows);
            }
            Ok(Read::Account { events, up_to, full }) => take_account(device, events, up_to, full),
        }
        device.reading = false;
        if let Some(conversation) = conversation {
            device.left_backlog(conversation);
        }
        if passed_over {
            self.flush_soon(index, ctx);
        }
        self.pump(index, ctx);
    }

    /// Forgets a device's socket at once; its own farewell finds nothing here.
    fn forget(&mut self, index: usize) {
        let mut device = self.devices.remove(index);
        self.node.registry().unregister(device.registration(self.user));
        let marks = take_marks(&mut device);
        if !marks.is_empty() {
            // Nobody is left to confirm it to; what is not written is sent again.
            let node = self.node.clone();
            tokio::task::spawn_local(async move { node.raise(marks).await });
        }
    }

    fn remove(&mut self, index: usize, ctx: &mut Context<Self>) {
        self.forget(index);
        self.presence(false);
        if self.devices.is_empty() {
            self.node.sessions().remove(&self.user, &ctx.address());
            ctx.stop();
        }
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CAPACITY);
    }
}

impl Handler<Attach> for Session {
    type Result = ();

    fn handle(&mut self, attach: Attach, ctx: &mut Self::Context) {
        if let Some(index) = self.devices.iter().position(|device| device.device_id == attach.device_id)
            && let Some(older) = self.devices.get_mut(index)
        {
            if older.attempt >= attach.attempt {
                // One that does not count its attempts may come back: only its own number says "stop" (rule D7).
                let _ = attach.lease.send(if attach.explicit { close::REPLACED } else { close::DRAINING });
                return;
            }
            older.end(if attach.explicit { close::REPLACED } else { close::DRAINING });
            self.forget(index);
        }
        let settings = self.node.settings();
        if settings.limits.enabled && self.devices.len() >= settings.max_sockets_per_user {
            let _ = attach.lease.send(close::CONNECTION_LIMIT);
            return;
        }
        let (connection, device_id) = (attach.connection, attach.device_id);
        let registration = Registration { user: self.user, device: device_id, connection, attempt: attach.attempt };
        self.node.registry().register(registration);
        // Most users have one device here, and one takes half a KiB.
        self.devices.reserve_exact(1);
        self.devices.push(Attached {
            device_id,
            connection,
            attempt: attach.attempt,
            family: attach.family,
            socket: attach.socket,
            lease: Some(attach.lease),
            window: Window::default(),
            places: HashMap::new(),
            ready: VecDeque::new(),
            account_sent: 0,
            account_head: 0,
            backlog: BTreeMap::new(),
            backlog_account: 0,
            joined: false,
            drained: false,
            reading: false,
            marks: BTreeMap::new(),
            account_mark: 0,
            confirm: None,
            flushing: false,
            caught_up: false,
            flush_set: false,
            last_ack: 0,
            due_since: None,
            watching: false,
            activity: Activity::Active,
            stock_told: None,
            out: Vec::new(),
            ahead_bytes: 0,
            read_size: READ_AT_ONCE,
        });
        self.join(connection, device_id, ctx);
    }
}

impl Handler<Detach> for Session {
    type Result = ();

    fn handle(&mut self, detach: Detach, ctx: &mut Self::Context) {
        if let Some(index) = self.place_of(detach.0) {
            self.remove(index, ctx);
        }
    }
}

impl Handler<Ack> for Session {
    type Result = ();

    fn handle(&mut self, ack: Ack, ctx: &mut Self::Context) {
        let user = self.user;
        let Some(index) = self.place_of(ack.connection) else {
            return;
        };
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let acked = match device.window.ack(ack.n) {
            Ok(acked) => acked,
            Err(error) => {
                tracing::debug!(%error, "a device acknowledged what was never sent");
                return device.end(close::PROTOCOL_ERROR);
            }
        };
        if ack.n < device.last_ack || ack.n == 0 {
            return;
        }
        device.last_ack = ack.n;
        if acked.events > 0 {
            // The same again acknowledges nothing.
            device.due_since = (!device.window.is_empty()).then(Instant::now);
        }
        for (conversation, here) in acked.conversations {
            let Some(place) = device.places.get_mut(&conversation) else {
                continue;
            };
            place.in_flight = place.in_flight.saturating_sub(here.events);
            let (up_to, receipts) =
                if place.in_flight == 0 { (place.sent, place.receipts_sent) } else { (here.seq, here.version) };
            device.mark(user, conversation, up_to, receipts, here.seq > 0);
        }
        device.account_mark = device.account_mark.max(acked.account);
        device.confirm = Some(ack.n);
        if device.drained && device.window.is_empty() && !std::mem::replace(&mut device.caught_up, true) {
            // It may have come for its backlog alone, and wait for this to leave.
            device.hurry();
        }
        self.flush(index, ctx);
        self.pump(index, ctx);
    }
}

impl Handler<Deliver> for Session {
    type Result = ();

    fn handle(&mut self, message: Deliver, ctx: &mut Self::Context) {
        let delivery = message.0;
        let conversation = delivery.conversation_id;
        let user = self.user;
        for index in 0..self.devices.len() {
            let Some(device) = self.devices.get_mut(index) else {
                continue;
            };
            let drained = device.drained;
            let has_room = device.window.has_room();
            let place = device.places.entry(conversation).or_default();
            place.head = place.head.max(delivery.seq);
            if !device.joined || (place.known && delivery.seq <= place.sent) {
                continue;
            }
            let next = place.known && !place.queued && drained && has_room && place.sent + 1 == delivery.seq;
            let next = next || (has_room && planted::is(Bug::PayloadBeforeBacklog));
            let mut passed_over = false;
            match &delivery.row {
                Some(row) if next => {
                    device.emit_message(conversation, row, Some(&delivery.shared_text));
                    passed_over = device.pass_over(user, conversation);
                }
                _ => {
                    device.keep_ahead(&delivery);
                    device.enqueue(conversation);
                }
            }
            if passed_over {
                self.flush_soon(index, ctx);
            }
            self.pump(index, ctx);
        }
    }
}

impl Handler<ReceiptsMoved> for Session {
    type Result = ();

    fn handle(&mut self, moved: ReceiptsMoved, ctx: &mut Self::Context) {
        for index in 0..self.devices.len() {
            let Some(device) = self.devices.get_mut(index) else {
                continue;
            };
            let place = device.places.entry(moved.conversation_id).or_default();
            place.receipts_head = place.receipts_head.max(moved.version);
            if device.joined {
                device.enqueue(moved.conversation_id);
                self.pump(index, ctx);
            }
        }
    }
}

impl Handler<AccountMoved> for Session {
    type Result = ();

    fn handle(&mut self, moved: AccountMoved, ctx: &mut Self::Context) {
        for index in 0..self.devices.len() {
            if let Some(device) = self.devices.get_mut(index) {
                device.account_head = device.account_head.max(moved.0);
            }
            self.pump(index, ctx);
        }
    }
}

impl Handler<Ephemeral> for Session {
    type Result = ();

    fn handle(&mut self, whisper: Ephemeral, _: &mut Self::Context) {
        for device in &self.devices {
            if device.joined && whisper.except != Some(device.device_id) {
                let _ = tell(&device.socket, Whisper(whisper.text.clone()));
            }
        }
    }
}

impl Handler<MarkedElsewhere> for Session {
    type Result = ();

    fn handle(&mut self, marked: MarkedElsewhere, ctx: &mut Self::Context) {
        let Some(index) = self.devices.iter().position(|device| device.device_id == marked.device_id) else {
            return;
        };
        if let Some(device) = self.devices.get_mut(index) {
            for (conversation, seq, receipts) in marked.conversations {
                // Even one that is not known yet: what is just being read of it may be older than this.
                let place = device.places.entry(conversation).or_default();
                place.sent = place.sent.max(seq);
                place.mark = place.mark.max(seq);
                place.receipts_sent = place.receipts_sent.max(receipts);
                device.left_backlog(conversation);
            }
            device.account_sent = device.account_sent.max(marked.account);
        }
        self.pump(index, ctx);
    }
}

impl Handler<End> for Session {
    type Result = ();

    fn handle(&mut self, end: End, _: &mut Self::Context) {
        let is_heard = !planted::is(Bug::DeafToSignOut);
        let ended = |d: &&mut Attached| is_heard && d.device_id == end.device_id && d.family == end.family;
        for device in self.devices.iter_mut().filter(ended) {
            device.end(end.code);
        }
    }
}

impl Handler<Replace> for Session {
    type Result = ();

    fn handle(&mut self, replace: Replace, ctx: &mut Self::Context) {
        let Some(index) = self.place_of(replace.connection) else {
            return;
        };
        if let Some(device) = self.devices.get_mut(index) {
            device.end(if replace.explicit { close::REPLACED } else { close::DRAINING });
        }
        self.remove(index, ctx);
    }
}

impl Handler<StockIsLow> for Session {
    type Result = ();

    fn handle(&mut self, stock: StockIsLow, ctx: &mut Self::Context) {
        let Some(index) = self.devices.iter().position(|device| device.device_id == stock.device_id) else {
            return;
        };
        if let Some(device) = self.devices.get_mut(index)
            && device.joined
            && device.window.has_room()
            && device.stock_told.as_ref().is_none_or(|(low, at)| *low != stock.low || at.elapsed() > STOCK_EVERY)
        {
            device.stock_told = Some((stock.low.clone(), Instant::now()));
            let event = Event::KeysLow(stock.low);
            device.emit(Item::State, |n| render::event(n, &event));
        }
        self.pump(index, ctx);
    }
}

impl Handler<SetActivity> for Session {
    type Result = ();

    fn handle(&mut self, set: SetActivity, ctx: &mut Self::Context) {
        if let Some(index) = self.place_of(set.connection)
            && let Some(device) = self.devices.get_mut(index)
        {
            device.activity = set.activity;
        }
        self.presence_soon(ctx);
    }
}

impl Handler<PresenceWanted> for Session {
    type Result = ();

    fn handle(&mut self, wanted: PresenceWanted, _: &mut Self::Context) {
        if self.online {
            self.node.whisper(&[wanted.0], &presence_of(self.user, true), None);
        }
    }
}

impl Handler<Drain> for Session {
    type Result = ();

    fn handle(&mut self, drain: Drain, _: &mut Self::Context) {
        let go = GoAway { reason: "draining".to_owned(), reconnect_after_ms: drain.reconnect_after_ms };
        let text = Bytes::from(Frame::new("goaway", go).to_text());
        for device in &mut self.devices {
            // Nothing comes before `welcome`.
            if device.joined {
                device.out.push(text.clone());
                device.push();
            }
            device.end(close::DRAINING);
        }
    }
}

impl Handler<ReadAgain> for Session {
    type Result = ();

    fn handle(&mut self, _: ReadAgain, ctx: &mut Self::Context) {
        let joined: Vec<_> = self
            .devices
            .iter()
            .filter(|device| device.joined)
            .map(|device| (device.connection, device.device_id))
            .collect();
        for (connection, device_id) in joined {
            self.join(connection, device_id, ctx);
        }
    }
}
