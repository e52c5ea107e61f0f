//! The ledger of one conversation: what was promised there, checked note by note.
//!
//! A book is a function of its notes. It knows nothing of a server and does no I/O, so that made-up notes test it, and
//! it judges while it is written, so that a long run needs little memory. What can only be judged at the end (a message
//! that one device never got) is judged by [`Book::close`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use sotto_client::protocol::{DeviceId, MessageId, Seq, Timestamp, UserId};
use uuid::Uuid;

use crate::bits::Bits;
use crate::findings::{Findings, Promise};

/// Answers of one connection that are kept to compare their order. A server need not take more than 256 requests at
/// once, so that an answer which overtakes more than this is not one of a sound connection.
const ORDERED: usize = 1024;
/// A number so far above what was sent is noted and not stored: a log has no gaps, so that it would be a broken one.
const BEYOND: usize = 1024;
/// Stands at numbers that nobody has told of.
const NOBODY: MessageId = MessageId(Uuid::nil());

/// What a device found in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// No ciphertext.
    Absent,
    /// The ciphertext that the sender made for all.
    Shared,
    /// The ciphertext that the sender made for this device.
    Own,
    /// Something that nobody sent.
    Other,
}

/// A mark, and from where it was seen. Marks of different sources are not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkOf {
    /// `last_seq` of the conversation's description.
    Head,
    /// `delivered_up_to` of the asking user.
    MyDelivered,
    /// `read_up_to` of the asking user, or an answered `mark_read`.
    MyRead,
    /// A member's `delivered_up_to`.
    Delivered(UserId),
    /// A member's `read_up_to`.
    Read(UserId),
    /// The event `message_delivered`.
    ToldDelivered(DeviceId),
    /// The event `message_read_update`.
    ToldRead(UserId),
}

impl fmt::Display for MarkOf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => formatter.write_str("last_seq"),
            Self::MyDelivered => formatter.write_str("its delivered_up_to"),
            Self::MyRead => formatter.write_str("its read_up_to"),
            Self::Delivered(user) => write!(formatter, "delivered_up_to of {user}"),
            Self::Read(user) => write!(formatter, "read_up_to of {user}"),
            Self::ToldDelivered(device) => write!(formatter, "message_delivered of {device}"),
            Self::ToldRead(user) => write!(formatter, "message_read_update of {user}"),
        }
    }
}

/// An entry of the log as history shows it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its number.
    pub seq: Seq,
    /// Its name.
    pub message: MessageId,
    /// The sending device.
    pub from: Option<DeviceId>,
    /// What the reading device found in it.
    pub body: Body,
}

/// Something that happened, told in the order of time of the device that it happened to.
#[derive(Clone, Debug)]
pub enum Note {
    /// A message will be sent for the first time.
    Composed {
        /// Its name.
        message: MessageId,
        /// The sending device.
        by: DeviceId,
        /// One ciphertext for all.
        shared: bool,
        /// When, in ticks of the caller's clock.
        at: u32,
    },
    /// A message is being sent again.
    Repeated {
        /// Which message.
        message: MessageId,
        /// When, in ticks of the caller's clock.
        at: u32,
    },
    /// A send was answered with ok.
    Answered {
        /// Which message.
        message: MessageId,
        /// The connection and the place of the frame on it; none: by REST.
        place: Option<(u64, u64)>,
        /// Its number.
        seq: Seq,
        /// When it was stored.
        time: Timestamp,
        /// Whether an earlier request had stored it.
        duplicate: bool,
    },
    /// All attempts were refused, which changes nothing on the server, and no further one is made.
    Withdrawn {
        /// Which message.
        message: MessageId,
    },
    /// A connection or a page of catching up begins.
    Began {
        /// The device.
        by: DeviceId,
    },
    /// A message came.
    Got {
        /// The device.
        by: DeviceId,
        /// What came.
        entry: Entry,
        /// The number before it on this connection, as the server says.
        after: Option<Seq>,
    },
    /// The device is about to acknowledge messages, which it never loses again.
    Kept {
        /// The device.
        by: DeviceId,
        /// Which ones.
        seqs: Vec<Seq>,
    },
    /// The device has lost what it got and had not acknowledged: that must come again.
    Forgot {
        /// The device.
        by: DeviceId,
        /// Which ones, if it did not keep them before.
        seqs: Vec<Seq>,
    },
    /// `acked` or 204: nothing up to here may come again.
    Confirmed {
        /// The device.
        by: DeviceId,
        /// The highest number that was covered.
        up_to: Seq,
    },
    /// A mark was seen.
    Marked {
        /// Who saw it.
        by: DeviceId,
        /// Which one.
        mark: MarkOf,
        /// Where it stands.
        up_to: Seq,
    },
    /// A mark was set, so that it stands there or higher.
    Raised {
        /// Who set it.
        by: DeviceId,
        /// Which one.
        mark: MarkOf,
        /// How far, at least.
        up_to: Seq,
    },
    /// A page of history was read.
    Page {
        /// Who read.
        by: DeviceId,
        /// It was asked for what comes after this number.
        after: Seq,
        /// What came.
        entries: Vec<Entry>,
        /// Whether it belongs to the reading at the end, in which everything must be found.
        anew: bool,
    },
    /// The log was read to its end, after everything had been answered.
    End {
        /// Who read.
        by: DeviceId,
        /// What the conversation said of its length before.
        last_seq: Seq,
        /// The last number that was read.
        read_to: Seq,
    },
    /// It has held a drained socket for long after the last send of anybody was acknowledged.
    Waited {
        /// The device.
        by: DeviceId,
    },
    /// The device was signed out: nothing is owed to it. What its user has received is the least of his devices, which
    /// is another number with another set of devices, and is compared no more.
    Left {
        /// The device.
        by: DeviceId,
        /// Whose it was.
        user: UserId,
    },
    /// An answer that the contract does not know here.
    Strange(String),
}

struct Sending {
    by: DeviceId,
    /// Where it stands; 0: nobody has said.
    seq: Seq,
    /// When it was stored, as the first answer said.
    time: Timestamp,
    at: u32,
    /// The highest number that was acknowledged when it was sent for the first time.
    floor: u32,
    flags: u8,
}

const SHARED: u8 = 1;
const ANSWERED: u8 = 2;
const NEW: u8 = 4;
const STORED: u8 = 8;
const WITHDRAWN: u8 = 16;

impl Sending {
    const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[derive(Default)]
struct Reader {
    /// The number before on this connection.
    last: Option<Seq>,
    confirmed: Seq,
    /// What it got, counted from the base.
    got: Bits,
    /// What it has acknowledged of that, counted from the base.
    kept: Bits,
    /// What was passed over, counted from the base.
    passed: Bits,
    /// Answers to its sends on the present connection: frame and number.
    answers: (u64, BTreeMap<u64, Seq>),
    marks: HashMap<MarkOf, Seq>,
    has_left: bool,
}

/// One conversation's ledger.
pub struct Book {
    name: String,
    /// Where the log stood before the first note; what is at or below it is not judged by content.
    base: Seq,
    /// Who stands at which number above the base.
    log: Vec<MessageId>,
    sendings: HashMap<MessageId, Sending>,
    readers: HashMap<DeviceId, Reader>,
    /// The highest acknowledged number.
    head: Seq,
    reads: u64,
    /// Users of whom a device was signed out.
    fewer: HashSet<UserId>,
    findings: Findings,
}

/// Judges notes about one conversation whose log had `base` entries before them.
#[must_use]
pub fn check(base: Seq, readers: &[DeviceId], notes: impl IntoIterator<Item = Note>) -> Findings {
    let mut book = Book::new("the conversation".to_owned(), base, readers);
    for note in notes {
        book.note(note);
    }
    book.close()
}

impl Book {
    /// An empty book. `name` stands in the examples; `readers` are the devices that every message is for.
    #[must_use]
    pub fn new(name: String, base: Seq, readers: &[DeviceId]) -> Self {
        Self {
            name,
            base,
            log: Vec::new(),
            sendings: HashMap::new(),
            readers: readers.iter().map(|device| (*device, Reader::default())).collect(),
            head: base,
            reads: 0,
            fewer: HashSet::new(),
            findings: Findings::default(),
        }
    }

    /// Writes a note and judges it as far as it can be judged now.
    pub fn note(&mut self, note: Note) {
        match note {
            Note::Composed { message, by, shared, at } => self.composed(message, by, shared, at),
            Note::Repeated { message, at } => {
                if let Some(sending) = self.sendings.get_mut(&message) {
                    sending.at = at;
                }
            }
            Note::Answered { message, place, seq, time, duplicate } => {
                self.answered(message, place, seq, time, duplicate);
            }
            Note::Withdrawn { message } => {
                if let Some(sending) = self.sendings.get_mut(&message) {
                    sending.flags |= WITHDRAWN;
                }
            }
            Note::Began { by } => {
                if let Some(reader) = self.readers.get_mut(&by) {
                    reader.last = None;
                }
            }
            Note::Got { by, entry, after } => self.got(by, entry, after),
            Note::Confirmed { by, up_to } => {
                if let Some(reader) = self.readers.get_mut(&by) {
                    reader.confirmed = reader.confirmed.max(up_to);
                }
            }
            Note::Marked { by, mark, up_to } => self.marked(by, mark, up_to),
            Note::Raised { by, mark, up_to } => {
                if let Some(reader) = self.readers.get_mut(&by) {
                    let highest = reader.marks.entry(mark).or_default();
                    *highest = (*highest).max(up_to);
                }
            }
            Note::Page { by, after, entries, anew } => self.page(by, after, &entries, anew),
            Note::End { by, last_seq, read_to } => self.end(by, last_seq, read_to),
            Note::Kept { by, seqs } => {
                if let Some(reader) = self.readers.get_mut(&by) {
                    seqs.into_iter().for_each(|seq| reader.kept.insert(seq - self.base));
                }
            }
            Note::Forgot { by, seqs } => {
                if let Some(reader) = self.readers.get_mut(&by) {
                    for seq in seqs.into_iter().filter(|seq| !reader.kept.has(seq - self.base)) {
                        reader.got.remove(seq - self.base);
                    }
                }
            }
            Note::Waited { by } => self.waited(by),
            Note::Left { by, user } => {
                self.fewer.insert(user);
                if let Some(reader) = self.readers.get_mut(&by) {
                    reader.has_left = true;
                }
            }
            Note::Strange(text) => self.findings.add(Promise::Altered, || text),
        }
    }

    /// When a message was sent last, in the caller's ticks.
    #[must_use]
    pub fn sent_at(&self, message: MessageId) -> Option<u32> {
        self.sendings.get(&message).map(|sending| sending.at)
    }

    /// Where the log stood before the first note.
    #[must_use]
    pub const fn base(&self) -> Seq {
        self.base
    }

    /// The highest acknowledged number.
    #[must_use]
    pub const fn head(&self) -> Seq {
        self.head
    }

    /// Whether a device was not given something that was acknowledged to another.
    #[must_use]
    pub fn lacks(&self, by: DeviceId) -> bool {
        self.owed(by).next().is_some()
    }

    /// What was acknowledged to others, and was not given to a device.
    fn owed(&self, by: DeviceId) -> impl Iterator<Item = (&MessageId, &Sending)> {
        let reader = self.readers.get(&by).filter(|reader| !reader.has_left);
        reader.into_iter().flat_map(move |reader| {
            let is_owed = move |sending: &Sending| {
                sending.is(ANSWERED) && sending.by != by && !reader.got.has(sending.seq - self.base)
            };
            self.sendings.iter().filter(move |(_, sending)| is_owed(sending))
        })
    }

    /// What has been found so far.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Judges what only the end tells.
    #[must_use]
    pub fn close(mut self) -> Findings {
        let (id, findings) = (&self.name, &mut self.findings);
        for (message, sending) in &self.sendings {
            if !sending.is(ANSWERED) {
                if !sending.is(WITHDRAWN) {
                    findings.add(Promise::Lost, || format!("{message} to {id} was never answered"));
                } else if sending.seq != 0 {
                    let seq = sending.seq;
                    findings.add(Promise::Altered, || format!("{message} was refused and stands at {seq} of {id}"));
                }
                continue;
            }
            if self.reads > 0 && !sending.is(STORED) {
                findings.add(Promise::Lost, || format!("{message} was acknowledged, and is not in {id}"));
            }
            let seq = sending.seq;
            for (device, reader) in &self.readers {
                if *device != sending.by && !reader.has_left && !reader.got.has(seq - self.base) {
                    findings.add(Promise::Lost, || format!("{device} never got {message}, {seq} of {id}"));
                }
            }
        }
        for (place, message) in self.log.iter().enumerate() {
            let Some(sending) = self.sendings.get(message) else { continue };
            let from_base = Seq::try_from(place).unwrap_or(Seq::MAX).saturating_add(1);
            for (device, reader) in &self.readers {
                if *device != sending.by && reader.passed.has(from_base) {
                    let seq = self.base + from_base;
                    findings.add(Promise::Gap, || format!("{device} was led past {seq} of {id}, which is for it"));
                }
            }
        }
        self.findings
    }

    fn composed(&mut self, message: MessageId, by: DeviceId, shared: bool, at: u32) {
        let floor = u32::try_from(self.head - self.base).unwrap_or(u32::MAX);
        let flags = if shared { SHARED } else { 0 };
        let sending = Sending { by, seq: 0, time: Timestamp::default(), at, floor, flags };
        if self.sendings.insert(message, sending).is_some() {
            self.findings.add(Promise::Altered, || format!("the driver itself used {message} twice"));
        }
    }

    fn answered(&mut self, message: MessageId, place: Option<(u64, u64)>, seq: Seq, time: Timestamp, duplicate: bool) {
        let id = &self.name;
        let Some(sending) = self.sendings.get_mut(&message) else {
            return self.findings.add(Promise::Altered, || format!("an answer to {message}, which {id} never saw"));
        };
        if !duplicate && sending.is(NEW) {
            self.findings.add(Promise::StoredTwice, || format!("{message} was new more than once in {id}"));
        }
        let by = sending.by;
        if !duplicate {
            sending.flags |= NEW;
        }
        if sending.is(ANSWERED) {
            if (sending.seq, sending.time) != (seq, time) {
                let first = sending.seq;
                self.findings.add(Promise::StoredTwice, || format!("{message} is {first} of {id}, then {seq}"));
            }
        } else {
            sending.flags |= ANSWERED;
            sending.time = time;
            let floor = self.base + Seq::from(sending.floor);
            if seq <= floor {
                let text = || format!("{message} got {seq} of {id}, sent after {floor} was acknowledged");
                self.findings.add(Promise::Reordered, text);
            }
            self.head = self.head.max(seq);
            self.stands(seq, message, Promise::StoredTwice, "its sender");
        }
        if let Some((connection, frame)) = place.filter(|_| !duplicate) {
            self.in_order(by, connection, frame, seq);
        }
    }

    /// Sends of one connection to one conversation are numbered in the order of their frames.
    fn in_order(&mut self, by: DeviceId, connection: u64, frame: u64, seq: Seq) {
        let Some(reader) = self.readers.get_mut(&by) else { return };
        let (present, frames) = &mut reader.answers;
        if *present != connection {
            *present = connection;
            frames.clear();
        }
        let before = frames.range(..frame).next_back().map(|(_, seq)| *seq);
        let behind = frames.range(frame + 1..).next().map(|(_, seq)| *seq);
        frames.insert(frame, seq);
        if frames.len() > ORDERED {
            frames.pop_first();
        }
        if before.is_some_and(|before| before >= seq) || behind.is_some_and(|behind| behind <= seq) {
            let id = &self.name;
            let text = || format!("frame {frame} of connection {connection} is {seq} of {id}, out of order");
            self.findings.add(Promise::Reordered, text);
        }
    }

    /// Notes that somebody saw a message at a number, and compares it with what others saw.
    fn stands(&mut self, seq: Seq, message: MessageId, otherwise: Promise, whose: &str) {
        let Ok(place) = usize::try_from(seq - self.base - 1) else { return };
        let id = &self.name;
        if place > self.sendings.len() + BEYOND {
            return self.findings.add(Promise::Gap, || format!("{seq} of {id} is far above what was sent"));
        }
        if self.log.len() <= place {
            self.log.resize(place + 1, NOBODY);
        }
        if let Some(stands) = self.log.get_mut(place) {
            if *stands == NOBODY {
                *stands = message;
            } else if *stands != message {
                let first = *stands;
                let text = || format!("{seq} of {id} is {first} for others, {message} for {whose}");
                self.findings.add(Promise::Different, text);
            }
        }
        if let Some(sending) = self.sendings.get_mut(&message) {
            if sending.seq == 0 {
                sending.seq = seq;
            } else if sending.seq != seq {
                let first = sending.seq;
                self.findings.add(otherwise, || format!("{message} stands at {first} and {seq} of {id} for {whose}"));
            }
        }
    }

    /// Content and sender are those of the message.
    fn is_intact(&self, by: DeviceId, entry: &Entry) -> bool {
        // The server's own: somebody came or went.
        if entry.from.is_none() && entry.body == Body::Absent && !self.sendings.contains_key(&entry.message) {
            return true;
        }
        self.sendings.get(&entry.message).is_some_and(|sending| {
            let expected = match (sending.by == by, sending.is(SHARED)) {
                // Its own message comes without content.
                (true, _) => Body::Absent,
                (false, true) => Body::Shared,
                (false, false) => Body::Own,
            };
            entry.from == Some(sending.by) && entry.body == expected
        })
    }

    fn got(&mut self, by: DeviceId, entry: Entry, after: Option<Seq>) {
        let Entry { seq, message, .. } = entry;
        if seq > self.base {
            if !self.is_intact(by, &entry) {
                let id = &self.name;
                self.findings
                    .add(Promise::Altered, || format!("{message}, {seq} of {id}, is not what was sent to {by}"));
            } else if entry.from == Some(by) {
                let id = &self.name;
                self.findings.add(Promise::Altered, || format!("{by} got its own {message}, {seq} of {id}"));
            }
            self.stands(seq, message, Promise::Different, "a device");
        }
        let (base, id) = (self.base, &self.name);
        let most = Seq::try_from(self.log.len()).unwrap_or(Seq::MAX);
        let Some(reader) = self.readers.get_mut(&by) else { return };
        let findings = &mut self.findings;
        if seq <= reader.confirmed {
            findings.add(Promise::DeliveredTwice, || format!("{by} got {seq} of {id} after its mark was confirmed"));
        }
        let before = reader.last.replace(seq);
        match (before, after) {
            (Some(before), _) if seq == before => {
                findings.add(Promise::DeliveredTwice, || format!("{by} got {seq} of {id} twice on one connection"));
            }
            (Some(before), _) if seq < before => {
                findings.add(Promise::Reordered, || format!("{by} got {seq} of {id} after {before}"));
            }
            (Some(before), Some(after)) if before != after => {
                findings.add(Promise::Gap, || format!("{by}: {seq} of {id} says after {after}, it was {before}"));
            }
            (None, Some(after)) if after < reader.confirmed => {
                let confirmed = reader.confirmed;
                let text = || format!("{by}: the mark of {id} is {after}, confirmed was {confirmed}");
                findings.add(Promise::MarkBack, text);
            }
            _ => {}
        }
        if let Some(passed) = before.or(after) {
            for passed in (passed + 1).max(base + 1)..seq.min(base + most + 1) {
                reader.passed.insert(passed - base);
            }
        }
        if seq > base && seq - base <= most {
            reader.got.insert(seq - base);
        }
    }

    fn waited(&mut self, by: DeviceId) {
        let owed: Vec<_> = self.owed(by).map(|(message, sending)| (*message, sending.seq)).collect();
        for (message, seq) in owed {
            let id = &self.name;
            let text = || format!("{by} was there and not given {message}, {seq} of {id}, in time");
            self.findings.add(Promise::Lost, text);
        }
    }

    fn marked(&mut self, by: DeviceId, mark: MarkOf, up_to: Seq) {
        if matches!(mark, MarkOf::Delivered(user) if self.fewer.contains(&user)) {
            return;
        }
        let Some(reader) = self.readers.get_mut(&by).filter(|reader| !reader.has_left) else { return };
        let highest = reader.marks.entry(mark).or_default();
        if up_to < *highest {
            let (id, highest) = (&self.name, *highest);
            self.findings.add(Promise::MarkBack, || format!("{by}: {mark} of {id} was {highest}, now {up_to}"));
        }
        *highest = (*highest).max(up_to);
    }

    fn page(&mut self, by: DeviceId, after: Seq, entries: &[Entry], anew: bool) {
        let mut expected = after + 1;
        for entry in entries {
            let (seq, message, id) = (entry.seq, entry.message, &self.name);
            if seq < expected {
                let text = || format!("history of {id} for {by}: {seq} where {expected} was next");
                self.findings.add(Promise::Reordered, text);
            } else if seq > expected {
                let text = || format!("history of {id} for {by}: {seq} where {expected} was next");
                self.findings.add(Promise::Gap, text);
            }
            expected = seq + 1;
            if seq <= self.base {
                continue;
            }
            if !self.is_intact(by, entry) {
                let text = || format!("{message}, {seq} of {id}, is not what was sent, in the history of {by}");
                self.findings.add(Promise::Altered, text);
            }
            if let Some(sending) = self.sendings.get_mut(&message).filter(|_| anew) {
                sending.flags |= STORED;
            }
            self.stands(seq, message, Promise::StoredTwice, "a history");
        }
    }

    fn end(&mut self, by: DeviceId, last_seq: Seq, read_to: Seq) {
        self.reads += 1;
        let id = &self.name;
        if last_seq > read_to {
            let text = || format!("{id} says {last_seq} for {by}, its history ends at {read_to}");
            self.findings.add(Promise::Gap, text);
        }
        if read_to < self.head {
            let missing = self.sendings.values().filter(|sending| sending.is(ANSWERED) && sending.seq > read_to);
            for _ in missing {
                let text = || format!("acknowledged above {read_to}, where the history of {id} for {by} ends");
                self.findings.add(Promise::Lost, text);
            }
        }
    }
}

#[cfg(test)]
mod tests;
