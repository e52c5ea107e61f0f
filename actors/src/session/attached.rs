//! A connected device as its session sees it: cursors, heads, window, and the marks that wait.

use crate::device::{Device, Push};
use crate::journal::Marks;
use crate::mailbox::tell;
use crate::pressure::Pressure;
use crate::registry::Registration;
use crate::render;
use crate::session::Delivery;
use crate::window::{Item, Window};
use actix::Addr;
use bytes::Bytes;
use sotto_protocol::event::{Event, KeysLow};
use sotto_protocol::frame::{Ack as AckFrame, Activity, Frame};
use sotto_protocol::{ConversationId, DeviceId, Seq, SessionId, UserId, close};
use sotto_schema::append::{AccountMark, DeliveredMark};
use sotto_schema::planted::{self, Bug};
use sotto_schema::rows::{BacklogRow, MessageRow, ReceiptRow};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uuid::Uuid;

/// Where a device stands in one conversation.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Whether `sent` and the rest come from the database; before, only the heads mean something.
    pub(super) known: bool,
    /// The cursor: everything up to here was sent or passed over.
    pub(super) sent: Seq,
    /// The last message that this connection was given; before the first, the mark it started from.
    pub(super) told: Seq,
    /// The last number that is known.
    pub(super) head: Seq,
    /// Everything up to here was acknowledged, as far as it was handed to the Journal.
    pub(super) mark: Seq,
    pub(super) receipts_sent: i64,
    pub(super) receipts_head: i64,
    pub(super) receipts_at: Option<Instant>,
    /// Whether a timer will look at the receipts again.
    pub(super) receipts_pause: bool,
    /// When its mark last went to the Journals.
    pub(super) flushed: Option<Instant>,
    /// Events of this conversation that are not acknowledged.
    pub(super) in_flight: usize,
    /// Whether the conversation waits for a read, or is being read.
    pub(super) queued: bool,
    /// Messages that came while the conversation was being read, in their order: what follows the read need not be
    /// read again. Without them a conversation with a steady stream would be read for every message, for ever.
    pub(super) ahead: VecDeque<Arc<Delivery>>,
}

/// A connected device.
pub(super) struct Attached {
    pub(super) device_id: DeviceId,
    pub(super) connection: SessionId,
    pub(super) attempt: i64,
    pub(super) family: Uuid,
    pub(super) socket: Addr<Device>,
    pub(super) lease: Option<oneshot::Sender<u16>>,
    pub(super) window: Window,
    pub(super) places: HashMap<ConversationId, Place>,
    /// Conversations with something to read.
    pub(super) ready: VecDeque<ConversationId>,
    pub(super) account_sent: i64,
    pub(super) account_head: i64,
    /// What the first look found waiting: number and receipt per conversation, and the account event.
    pub(super) backlog: BTreeMap<ConversationId, (Seq, i64)>,
    pub(super) backlog_account: i64,
    pub(super) joined: bool,
    pub(super) drained: bool,
    pub(super) reading: bool,
    /// Marks that wait for the Journal, and the acknowledgement that they confirm.
    pub(super) marks: BTreeMap<ConversationId, DeliveredMark>,
    pub(super) account_mark: i64,
    pub(super) confirm: Option<u64>,
    pub(super) flushing: bool,
    /// Whether the device has acknowledged its whole backlog.
    pub(super) caught_up: bool,
    pub(super) flush_set: bool,
    pub(super) last_ack: u64,
    pub(super) due_since: Option<Instant>,
    pub(super) watching: bool,
    pub(super) activity: Activity,
    /// What was told of the stock of keys, and when: the same is not told again at once.
    pub(super) stock_told: Option<(KeysLow, Instant)>,
    pub(super) out: Vec<Bytes>,
    /// Size of what is kept ahead of reads.
    pub(super) ahead_bytes: usize,
    /// Messages that are about as many bytes as a read should bring.
    pub(super) read_size: usize,
}

/// Between writes of a device's mark in one conversation, at least. The contract confirms an acknowledgement within a
/// second.
const MARKS_EVERY: Duration = Duration::from_millis(350);
/// Messages of a first read, whose size nobody knows.
pub(super) const READ_AT_ONCE: usize = 64;
/// Bytes that every later one should bring, about.
const READ_BYTES: usize = 256 * 1024;
/// Messages of a read while the node has more to store than it can: what has been read stays in memory until its socket
/// has taken it.
const READ_UNDER_PRESSURE: usize = 16;
/// Most bytes of messages that a connection keeps ahead of a read …
const AHEAD_BYTES: usize = 64 * 1024;
/// … and most messages of one conversation.
const AHEAD: usize = 64;

impl Attached {
    pub(super) const fn registration(&self, user: UserId) -> Registration {
        Registration { user, device: self.device_id, connection: self.connection, attempt: self.attempt }
    }

    /// How many messages the next read asks for. Whoever has just come back may have much to catch up on, and gets it fast.
    pub(super) fn read_limit(&self, pressure: &Pressure) -> usize {
        let most = if self.drained && pressure.is_heavy() { READ_UNDER_PRESSURE } else { self.read_size };
        self.window.room().min(most)
    }

    /// Keeps a message whose predecessors are being read. What does not fit is read in its turn.
    pub(super) fn keep_ahead(&mut self, delivery: &Arc<Delivery>) {
        let size = delivery.row.as_ref().map_or(usize::MAX, size_of_row);
        let fits = self.window.has_room() && self.ahead_bytes.saturating_add(size) <= AHEAD_BYTES;
        let Some(place) = self.places.get_mut(&delivery.conversation_id) else {
            return;
        };
        let follows = place.ahead.back().is_none_or(|last| last.seq + 1 == delivery.seq);
        if fits && follows && place.ahead.len() < AHEAD {
            self.ahead_bytes += size;
            place.ahead.push_back(Arc::clone(delivery));
        }
    }

    /// Sends what was kept, as far as it is next now, and forgets what was sent otherwise.
    pub(super) fn catch_up(&mut self, conversation: ConversationId) {
        while let Some(place) = self.places.get_mut(&conversation)
            && place.known
            && let Some(first) = place.ahead.front()
        {
            let is_old = first.seq <= place.sent;
            let is_next = first.seq == place.sent + 1 && self.drained && self.window.has_room();
            if !is_old && !is_next {
                return;
            }
            let Some(delivery) = place.ahead.pop_front() else {
                return;
            };
            self.ahead_bytes -= delivery.row.as_ref().map_or(0, size_of_row);
            if let (Some(row), false) = (&delivery.row, is_old) {
                self.emit_message(conversation, row, Some(&delivery.shared_text));
            }
        }
    }

    pub(super) fn enqueue(&mut self, conversation: ConversationId) {
        let place = self.places.entry(conversation).or_default();
        if !place.queued {
            place.queued = true;
            self.ready.push_back(conversation);
        }
    }

    pub(super) fn is_behind(place: &Place) -> bool {
        !place.known || place.sent < place.head || place.receipts_sent < place.receipts_head
    }

    /// Puts an event into the window and into the next push.
    pub(super) fn emit(&mut self, item: Item, text: impl FnOnce(u64) -> String) {
        let text = Bytes::from(text(self.window.next()));
        self.window.push(item, text.len());
        self.due_since.get_or_insert_with(Instant::now);
        self.out.push(text);
        metrics::counter!("sotto_deliveries_total").increment(1);
    }

    pub(super) fn emit_message(
        &mut self,
        conversation: ConversationId,
        row: &MessageRow,
        shared: Option<&OnceLock<String>>,
    ) {
        let Some(place) = self.places.get_mut(&conversation) else {
            return;
        };
        place.sent = row.seq;
        #[cfg(feature = "planted-bugs")]
        planted::sent(self.device_id, conversation, row.seq);
        if !row.is_for(self.device_id) {
            return;
        }
        let after = std::mem::replace(&mut place.told, row.seq);
        place.in_flight += 1;
        let device = self.device_id;
        let item = Item::Message { conversation_id: conversation, seq: row.seq };
        self.emit(item, |n| render::new_message(n, row, device, after, shared));
    }

    /// Adds to the marks that wait: they only grow.
    pub(super) fn mark(
        &mut self,
        user: UserId,
        conversation: ConversationId,
        up_to: Seq,
        receipts_seen: i64,
        told: bool,
    ) {
        let device_id = self.device_id;
        let Some(place) = self.places.get_mut(&conversation) else {
            return;
        };
        let fresh = DeliveredMark {
            conversation_id: conversation,
            user_id: user,
            device_id,
            after: place.mark,
            up_to: place.mark,
            receipts_seen: 0,
            told: false,
        };
        let mark = self.marks.entry(conversation).or_insert(fresh);
        mark.up_to = mark.up_to.max(up_to);
        mark.receipts_seen = mark.receipts_seen.max(receipts_seen);
        mark.told |= told;
        place.mark = place.mark.max(up_to);
    }

    /// How long the marks that wait may wait on for company: those of a steady stream, and only they, a moment that differs
    /// for each connection, so that those that came together do not write together for ever.
    pub(super) fn marks_wait(&self) -> Option<Duration> {
        if self.account_mark > 0 {
            return None;
        }
        let own = f64::from(self.connection.0.as_fields().0 % 1024) / 1024.0;
        let every = MARKS_EVERY + MARKS_EVERY.mul_f64(own);
        let flushed = self.marks.keys().map(|id| self.places.get(id).and_then(|place| place.flushed));
        flushed.map(|at| every.checked_sub(at?.elapsed())).min().flatten()
    }

    /// Lets the marks that wait go at once.
    pub(super) fn hurry(&mut self) {
        for id in self.marks.keys() {
            if let Some(place) = self.places.get_mut(id) {
                place.flushed = None;
            }
        }
    }

    /// What was only passed over is marked when nothing of the conversation is in flight (rule D10).
    pub(super) fn pass_over(&mut self, user: UserId, conversation: ConversationId) -> bool {
        match self.places.get(&conversation) {
            Some(place) if place.known && place.in_flight == 0 && place.sent > place.mark => {
                let sent = place.sent;
                self.mark(user, conversation, sent, 0, false);
                true
            }
            _ => false,
        }
    }

    pub(super) fn push(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let frames = std::mem::take(&mut self.out);
        if tell(&self.socket, Push(frames)).is_err() {
            // What is in the window has not reached the socket: this connection must not go on, or the
            // next acknowledgement would cover it.
            self.end(close::SLOW_CONSUMER);
        }
    }

    pub(super) fn end(&mut self, code: u16) {
        if let Some(lease) = self.lease.take() {
            let _ = lease.send(code);
        }
    }

    /// Takes what the database says of the backlog; heads that grew meanwhile stay.
    pub(super) fn merge(&mut self, rows: &[BacklogRow]) {
        for row in rows {
            let place = self.places.entry(row.conversation_id).or_default();
            if !place.known {
                place.known = true;
                let off = i64::from(planted::is(Bug::CursorAhead)) - i64::from(planted::is(Bug::CursorBehind));
                place.sent = place.sent.max(row.mark + off);
                place.told = place.sent;
                place.mark = place.mark.max(row.mark);
                place.receipts_sent = place.receipts_sent.max(row.receipts_seen);
            }
            place.head = place.head.max(row.head);
            place.receipts_head = place.receipts_head.max(row.receipts_version);
            self.enqueue(row.conversation_id);
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.account_sent >= self.backlog_account
    }

    pub(super) fn left_backlog(&mut self, conversation: ConversationId) {
        if let (Some((seq, receipts)), Some(place)) = (self.backlog.get(&conversation), self.places.get(&conversation))
            && place.sent >= *seq
            && place.receipts_sent >= *receipts
        {
            self.backlog.remove(&conversation);
        }
    }
}

pub(super) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn acked(n: u64) -> Bytes {
    Bytes::from(Frame::new("acked", AckFrame { n }).to_text())
}

pub(super) fn take_marks(device: &mut Attached) -> Marks {
    let delivered = std::mem::take(&mut device.marks).into_values().collect();
    let seen = std::mem::take(&mut device.account_mark);
    let accounts = if seen > 0 { vec![AccountMark { device_id: device.device_id, seen }] } else { Vec::new() };
    Marks { delivered, reads: Vec::new(), accounts }
}

/// Sends the messages of a range that was read. The range decides how far the cursor moves: absent
/// numbers are not waited for (rule D10).
pub(super) fn take_messages(
    device: &mut Attached,
    user: UserId,
    conversation: ConversationId,
    up_to: Seq,
    limit: usize,
    rows: &[MessageRow],
) -> bool {
    let mut all = rows.len() < limit;
    for row in rows {
        let sent = device.places.get(&conversation).map_or(0, |place| place.sent);
        if row.seq <= sent {
            continue;
        }
        if !device.window.has_room() {
            all = false;
            break;
        }
        device.emit_message(conversation, row, None);
    }
    if let Some(place) = device.places.get_mut(&conversation) {
        if all {
            place.sent = place.sent.max(up_to);
        }
        if Attached::is_behind(place) {
            device.ready.push_back(conversation);
        } else {
            place.queued = false;
        }
    }
    device.pass_over(user, conversation)
}

/// Sends receipts that were read. `true`: the backlog held none for this device, which is to be kept, or every
/// connection would read them again.
pub(super) fn take_receipts(
    device: &mut Attached,
    user: UserId,
    conversation: ConversationId,
    up_to: i64,
    limit: usize,
    rows: Vec<ReceiptRow>,
) -> bool {
    let mut all = rows.len() < limit;
    let none_at_all = rows.is_empty() && device.backlog.contains_key(&conversation);
    let mut sent = 0_usize;
    for row in rows {
        // It was acknowledged by REST while it was being read.
        if device.places.get(&conversation).is_some_and(|place| row.version <= place.receipts_sent) {
            continue;
        }
        if !device.window.has_room() {
            all = false;
            break;
        }
        if let Some(place) = device.places.get_mut(&conversation) {
            place.receipts_sent = place.receipts_sent.max(row.version);
        }
        let item = Item::Receipt { conversation_id: conversation, version: row.version };
        let event = render::receipt(conversation, &row);
        device.emit(item, |n| render::event(n, &event));
        sent += 1;
    }
    if let Some(place) = device.places.get_mut(&conversation) {
        if all {
            place.receipts_sent = place.receipts_sent.max(up_to);
        }
        place.in_flight += sent;
        if sent > 0 {
            place.receipts_at = Some(Instant::now());
        }
        if Attached::is_behind(place) {
            device.ready.push_back(conversation);
        } else {
            place.queued = false;
        }
        if none_at_all && place.in_flight == 0 {
            let (mark, seen) = (place.mark, place.receipts_sent);
            device.mark(user, conversation, mark, seen, false);
            return true;
        }
    }
    false
}

pub(super) fn take_account(device: &mut Attached, events: Vec<(i64, Option<Event>)>, up_to: i64, full: bool) {
    let mut all = !full;
    for (seq, event) in events {
        if seq <= device.account_sent {
            continue;
        }
        if !device.window.has_room() {
            all = false;
            break;
        }
        device.account_sent = device.account_sent.max(seq);
        if let Some(event) = event {
            device.emit(Item::Account { seq }, |n| render::event(n, &event));
        }
    }
    if all {
        device.account_sent = device.account_sent.max(up_to);
    }
}

/// How many messages the next read may ask for, by the size of those that the last one brought.
pub(super) fn next_read_size(rows: &[MessageRow]) -> usize {
    let bytes: usize = rows.iter().map(size_of_row).sum();
    let each = bytes.checked_div(rows.len()).unwrap_or_default();
    READ_BYTES.checked_div(each).map_or(READ_AT_ONCE, |fitting| fitting.max(1))
}

/// What a message takes, about.
fn size_of_row(row: &MessageRow) -> usize {
    512 + row.content_size()
}
