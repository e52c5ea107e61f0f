//! A device of the run, as its generator thread keeps it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use super::ledger::Incoming;
use super::link::Link;
use super::users::User;

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not connected.
    Away,
    /// Connecting or signing in.
    Connecting,
    /// Signed in; its backlog comes.
    Reading,
    /// Has its backlog.
    Here,
    /// Has said goodbye.
    Leaving,
}

/// A device of the run.
pub struct Device {
    /// Whose it is.
    pub user: Rc<User>,
    /// Where it is.
    pub stage: Stage,
    /// Its connection.
    pub link: Option<Link>,
    /// When it began to connect.
    pub since: Instant,
    /// The last event of this connection, the last one that was acknowledged, and the last one that was confirmed.
    pub last: u64,
    /// See `last`.
    pub acknowledged: u64,
    /// See `last`.
    pub confirmed: u64,
    /// Whether a moment for the next acknowledgement is noted.
    pub is_ack_noted: bool,
    /// The number of the last message that came on this connection; 0 before the first.
    pub last_seq: u64,
    /// What came, by the place of its sender in the conversation.
    pub incoming: Vec<Incoming>,
    /// Sends without an answer.
    pub in_flight: u32,
    /// How many it keeps unanswered by itself; 0: it sends what it is told.
    pub window: u32,
    /// How many it sends by itself at most.
    pub limit: u32,
    /// It was told to wait until then.
    pub hold: Option<Instant>,
    /// Messages that wait for room.
    pub queue: VecDeque<Planned>,
    /// Its connection for requests, if it sends by them.
    pub rest: Option<Link>,
    /// Counts of the messages that are under way there, in order.
    pub asked: VecDeque<u32>,
}

/// A message that is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// When it was meant to be.
    pub at: Instant,
    /// Bytes of ciphertext.
    pub size: usize,
    /// By a request of its own instead of the socket.
    pub by_rest: bool,
}

impl Device {
    /// One that is away.
    pub fn new(user: Rc<User>) -> Self {
        Self {
            user,
            stage: Stage::Away,
            link: None,
            since: Instant::now(),
            last: 0,
            acknowledged: 0,
            confirmed: 0,
            is_ack_noted: false,
            last_seq: 0,
            incoming: Vec::new(),
            in_flight: 0,
            window: 0,
            limit: u32::MAX,
            hold: None,
            queue: VecDeque::new(),
            rest: None,
            asked: VecDeque::new(),
        }
    }

    /// A connection begins: its numbers begin anew.
    pub fn begin(&mut self, link: Link, now: Instant) {
        (self.last, self.acknowledged, self.confirmed, self.last_seq) = (0, 0, 0, 0);
        self.is_ack_noted = false;
        for incoming in &mut self.incoming {
            incoming.reconnect();
        }
        self.stage = Stage::Connecting;
        self.since = now;
        self.link = Some(link);
    }

    /// What came from the sender at this place.
    pub fn incoming(&mut self, place: usize) -> Option<&mut Incoming> {
        if self.incoming.len() <= place {
            self.incoming.resize_with(place + 1, Incoming::default);
        }
        self.incoming.get_mut(place)
    }

    /// Whether what came is acknowledged, and that confirmed.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed == self.last
    }
}
