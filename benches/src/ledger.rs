//! Where everybody writes: the books of all conversations, of the keys and of ended sessions, the counts, the times.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::Message;
use sotto_client::protocol::{ConversationId, DeviceId, MessageId, Seq};

use crate::book::{Book, Entry, MarkOf, Note};
use crate::content;
use crate::counters::Counters;
use crate::findings::{Findings, Promise};
use crate::keys::{KeyBook, KeyNote};
use crate::sessions::{SessionBook, SessionNote};
use crate::times::Times;

/// Length of a tick: 32 bits of them last for half a day.
const TICK: Duration = Duration::from_micros(10);

/// All books of a run. A conversation has a lock of its own, held for a note.
pub struct Ledger {
    books: HashMap<ConversationId, Mutex<Book>>,
    keys: Mutex<KeyBook>,
    sessions: Mutex<SessionBook>,
    elsewhere: Mutex<Findings>,
    incomplete: Mutex<Vec<String>>,
    connections: AtomicU64,
    size: usize,
    /// What is counted.
    pub counters: Counters,
    /// From an attempt to its ok.
    pub answers: Times,
    /// From an attempt to the event at a device whose backlog had been read before.
    pub deliveries: Times,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Books for these conversations; messages have ciphertexts of so many bytes.
    pub fn new(books: HashMap<ConversationId, Book>, size: usize) -> Self {
        Self {
            books: books.into_iter().map(|(id, book)| (id, Mutex::new(book))).collect(),
            keys: Mutex::default(),
            sessions: Mutex::default(),
            elsewhere: Mutex::default(),
            incomplete: Mutex::default(),
            connections: AtomicU64::new(1),
            size,
            counters: Counters::new(),
            answers: Times::new(),
            deliveries: Times::new(),
        }
    }

    /// A number for a connection.
    pub fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// A moment in ticks.
    pub fn ticks(&self, moment: Instant) -> u32 {
        let passed = moment.saturating_duration_since(self.counters.start).as_micros();
        u32::try_from(passed / TICK.as_micros()).unwrap_or(u32::MAX)
    }

    /// Writes into a conversation's book.
    pub fn note(&self, conversation: ConversationId, note: Note) {
        match self.books.get(&conversation) {
            Some(book) => held(book).note(note),
            None => self.strange(format!("{conversation} is nobody's conversation: {note:?}")),
        }
    }

    /// Looks into a conversation's book.
    pub fn book<T>(&self, conversation: ConversationId, look: impl FnOnce(&Book) -> T) -> Option<T> {
        self.books.get(&conversation).map(|book| look(&held(book)))
    }

    /// Whether a device was not given something that was acknowledged to another.
    pub fn lacks(&self, conversation: ConversationId, by: DeviceId) -> bool {
        self.book(conversation, |book| book.lacks(by)).unwrap_or_default()
    }

    /// Writes into the book of keys.
    pub fn key(&self, note: KeyNote) {
        held(&self.keys).note(note);
    }

    /// Writes into the book of ended sessions.
    pub fn session(&self, note: SessionNote) {
        held(&self.sessions).note(note);
    }

    /// Whether an ended session was seen alive.
    pub fn is_alive(&self, device: DeviceId) -> bool {
        held(&self.sessions).is_alive(device)
    }

    /// Keys that were handed out, and sessions that were ended.
    pub fn keys_and_sessions(&self) -> (u64, usize) {
        (held(&self.keys).given(), held(&self.sessions).revoked())
    }

    /// Something that the contract does not know here.
    pub fn strange(&self, text: String) {
        held(&self.elsewhere).add(Promise::Altered, || text);
    }

    /// Something that could not be done, so that the run vouches for nothing.
    pub fn incomplete(&self, text: String) {
        let mut incomplete = held(&self.incomplete);
        if incomplete.len() < 20 {
            incomplete.push(text);
        }
    }

    /// A message as a book takes it.
    pub fn entry(&self, by: DeviceId, message: &Message) -> Entry {
        Entry {
            seq: message.seq,
            message: message.message_id,
            from: message.from.map(|from| from.device_id),
            body: content::body(message, by, self.size),
        }
    }

    /// When an attempt to send it was begun.
    pub fn sent_at(&self, conversation: ConversationId, message: MessageId) -> Option<Instant> {
        let ticks = self.book(conversation, |book| book.sent_at(message)).flatten()?;
        self.counters.start.checked_add(TICK.saturating_mul(ticks))
    }

    /// Writes a durable event down; a message's place is returned.
    pub fn event(&self, by: DeviceId, event: &Event) -> Option<(ConversationId, Seq)> {
        self.counters.events.add();
        match event {
            Event::NewMessage(message) => {
                self.counters.received.add();
                let entry = self.entry(by, message);
                self.note(message.conversation_id, Note::Got { by, entry, after: message.after_seq });
                return Some((message.conversation_id, message.seq));
            }
            Event::MessageDelivered(told) => {
                let mark = MarkOf::ToldDelivered(told.device_id);
                self.note(told.conversation_id, Note::Marked { by, mark, up_to: told.up_to });
            }
            Event::MessageReadUpdate(told) => {
                let mark = MarkOf::ToldRead(told.user_id);
                self.note(told.conversation_id, Note::Marked { by, mark, up_to: told.up_to });
            }
            _ => {}
        }
        None
    }

    /// Closes all books: what was found, and what could not be done.
    pub fn close(&self) -> (Findings, Vec<String>) {
        let mut all = held(&self.elsewhere).clone();
        all.merge(held(&self.keys).findings());
        all.merge(held(&self.sessions).findings());
        for book in self.books.values() {
            let empty = Book::new(String::new(), 0, &[]);
            all.merge(&std::mem::replace(&mut *held(book), empty).close());
        }
        (all, held(&self.incomplete).clone())
    }
}
