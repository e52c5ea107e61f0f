//! The actor Journal: writes whatever has gathered while the previous transaction was being written.
//!
//! *Owns:* two writing connections and the batch of each: the main one, and a side one for conversations
//! that another transaction holds, so that nobody else waits in a convoy behind them. While nothing waits there, it takes
//! what little has come during a transaction of the main one, so that a message seldom waits for another.
//! *When full:* its mailbox refuses; what waits longer than 5 s is answered "unavailable" and not written.
//! *On death:* the node ends in order; what it held is unanswered, clients repeat, and ids make that safe.
//!
//! There is no timer for messages: a lone one is written at once, and the batch grows with the load by
//! itself. Marks, which nobody waits for at the screen, ride with many messages at most every 40 ms. Where there are few,
//! they would hold them up: they go alone, at most every 100 ms, by the side connection where the database takes two.
//!
//! There are home Journals, each for its part of the conversations, and near ones on the threads of the conversations,
//! for what is alone anyway: [`Route`] chooses.

use crate::node::Node;
use crate::tree::Vital;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use sotto_protocol::{ConversationId, Timestamp};
use sotto_schema::append::{
    AccountMark, Append, Appended, Batch, DeliveredMark, FEW, Outcome, Patience, Raised, ReadMark,
};
use sotto_schema::planted::{self, Bug};
use sotto_schema::{JournalConnection, StoreError};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

mod journals;
mod route;

pub use journals::Journals;
pub use route::{Near, Place, Route};

/// Mailbox: messages that may wait to be taken over into the batch.
const CAPACITY: usize = 16_384;
/// Most messages of one transaction.
const MAX_APPENDS: usize = 512;
/// Most bytes of one transaction, beyond its first message.
const MAX_BYTES: usize = 4 << 20;
/// Most mark requests of one transaction.
const MAX_MARKS: usize = 2048;
/// Marks ride with messages at most so often …
const MARKS_RIDE: Duration = Duration::from_millis(40);
/// … unless so many requests wait.
const MANY_MARKS: usize = 512;
/// Marks alone wait so long for company.
const MARKS_ALONE: Duration = Duration::from_millis(100);
/// Marks that the side lane has had no turn for ride with whatever goes after so long.
const MARKS_LATE: Duration = Duration::from_millis(200);
/// So many messages are not much slower for the marks that ride with them.
const MANY_WRITES: usize = 32;
/// A message that has waited so long is answered and not written.
const TOO_OLD: Duration = Duration::from_secs(5);
/// A place in a near Journal is given back so much later when its message could not be written: PostgreSQL may refuse a
/// near Journal's connections and have those of home, and soon all goes home.
const PLACE_RESTS: Duration = Duration::from_secs(10);
/// On the side lane, where the next turn may be half a second away, already after this time.
const TOO_OLD_ASIDE: Duration = Duration::from_secs(4);

/// What became of a message, told to the conversation that handed it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The number that the conversation gave it.
    pub ticket: u64,
    /// The outcome; `None`: unknown, the client repeats.
    pub outcome: Option<Appended>,
}

/// Appends a message. The answer goes to a queue that never refuses; it is bounded by what the
/// conversation has in flight.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Write {
    /// The message.
    pub append: Arc<Append>,
    /// The conversation's number for it.
    pub ticket: u64,
    /// Where the outcome goes.
    pub reply: mpsc::UnboundedSender<Written>,
    /// Its place in a near Journal.
    pub place: Option<Place>,
}

/// Raises marks, all in this Journal's care.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Delivered marks.
    pub delivered: Vec<DeliveredMark>,
    /// Read marks.
    pub reads: Vec<ReadMark>,
    /// Places in account logs.
    pub accounts: Vec<AccountMark>,
}

impl Marks {
    /// Whether there is nothing to raise.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delivered.is_empty() && self.reads.is_empty() && self.accounts.is_empty()
    }
}

/// Raises marks and answers after the commit: `true` when they are durable.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Raise {
    /// What to raise.
    pub marks: Marks,
    /// Where the answer goes.
    pub reply: oneshot::Sender<bool>,
}

/// Answers when everything that was handed over before has been written: for the drain.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Flush(pub oneshot::Sender<()>);

#[derive(Debug)]
struct Waiting {
    write: Write,
    since: Instant,
}

/// One connection with its queue.
#[derive(Debug)]
struct Lane {
    /// Away while a transaction runs.
    connection: Option<JournalConnection>,
    writes: VecDeque<Waiting>,
    marks: VecDeque<Raise>,
    /// What the gauge was last told of its depth.
    told_depth: f64,
}

impl Lane {
    const fn new(connection: JournalConnection) -> Self {
        Self { connection: Some(connection), writes: VecDeque::new(), marks: VecDeque::new(), told_depth: 0.0 }
    }

    /// Adds what has changed to the gauge that all Journals share.
    fn tell_depth(&mut self, name: &'static str) {
        let depth = count(self.writes.len() + self.marks.len());
        metrics::gauge!("sotto_mailbox_depth", "actor" => name).increment(depth - self.told_depth);
        self.told_depth = depth;
    }

    /// Takes everybody's marks, up to so many.
    fn take_marks(&mut self, most: usize) -> Vec<Raise> {
        self.marks.drain(..self.marks.len().min(most)).collect()
    }

    fn is_idle(&self) -> bool {
        self.connection.is_some() && self.writes.is_empty() && self.marks.is_empty()
    }
}

/// What one transaction carries, and whom to answer.
struct Load {
    batch: Arc<Batch>,
    patience: Patience,
    writes: Vec<Waiting>,
    marks: Vec<Raise>,
    /// Conversations of the messages that were too old.
    late: Vec<ConversationId>,
}

impl Load {
    /// Whether it carries marks that nothing has held up so far.
    fn has_main_marks(&self) -> bool {
        self.patience == Patience::Skip && !self.marks.is_empty()
    }
}

/// A Journal.
#[derive(Debug)]
pub struct Journal {
    node: Node,
    main: Lane,
    side: Lane,
    /// Conversations of the transaction that the main lane is busy with.
    away: Vec<ConversationId>,
    /// When its last transaction ended, if more waited: from then on nothing but the Journal has held that up.
    main_ended: Option<Instant>,
    /// Conversations whose messages go by the side lane, with how many are there.
    aside: HashMap<ConversationId, usize>,
    /// Whether two transactions may be under way at once.
    takes_two: bool,
    /// Whether a transaction is under way that carries marks of the main lane: one is enough.
    marks_away: bool,
    marks_written: Instant,
    timer_set: bool,
    flushing: Vec<oneshot::Sender<()>>,
    _life: Vital,
}

impl Journal {
    /// A Journal that writes to the node's store.
    #[must_use]
    pub fn new(node: Node) -> Self {
        let connection = || node.store().journal();
        Self {
            main: Lane::new(connection()),
            side: Lane::new(connection()),
            away: Vec::new(),
            main_ended: None,
            aside: HashMap::new(),
            takes_two: node.store().takes_two_writers(),
            marks_away: false,
            marks_written: Instant::now(),
            timer_set: false,
            flushing: Vec::new(),
            _life: node.vital("journal"),
            node,
        }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        self.start_main(ctx);
        self.start_side(ctx);
        if self.main.is_idle() && self.side.is_idle() {
            for flushed in self.flushing.drain(..) {
                // Who drains may have lost patience.
                let _ = flushed.send(());
            }
        }
    }

    /// Begins a transaction on the main lane if its connection is free and something waits for it.
    fn start_main(&mut self, ctx: &mut Context<Self>) {
        self.main.tell_depth("journal");
        if self.main.connection.is_none() {
            return;
        }
        let has_turn = self.side.is_idle() || self.marks_written.elapsed() < MARKS_LATE;
        let left_to_side = self.takes_two && self.main.writes.len() < MANY_WRITES && has_turn;
        let waits_for = if self.main.writes.is_empty() { MARKS_ALONE } else { MARKS_RIDE };
        let rides = !left_to_side && self.are_marks_due(waits_for, ctx);
        let marks = if rides { self.main.take_marks(MAX_MARKS) } else { Vec::new() };
        if self.main.writes.is_empty() && marks.is_empty() {
            return;
        }
        let load = take(&mut self.main.writes, false, marks, Patience::Skip);
        self.launch(false, load, ctx);
    }

    /// The same for the side lane: what went aside, one conversation at a time, waiting for its lock. When nothing did,
    /// marks that have no messages to ride with, or the few messages that have come since the main lane became busy.
    fn start_side(&mut self, ctx: &mut Context<Self>) {
        self.side.tell_depth("journal_side");
        if self.side.connection.is_none() {
            return;
        }
        if !self.side.writes.is_empty() || !self.side.marks.is_empty() {
            let marks = self.side.take_marks(MAX_MARKS);
            let mut load = take(&mut self.side.writes, true, marks, Patience::Wait);
            for conversation in std::mem::take(&mut load.late) {
                self.leave_side(conversation);
            }
            return self.launch(true, load, ctx);
        }
        if !self.takes_two {
            return;
        }
        let load = if self.are_marks_due(MARKS_ALONE, ctx) {
            let marks = self.main.take_marks(MAX_MARKS);
            take(&mut VecDeque::new(), true, marks, Patience::Skip)
        } else if self.main.connection.is_none() && (1..=FEW).contains(&self.main.writes.len()) {
            self.take_beside()
        } else {
            return;
        };
        self.launch(true, load, ctx);
    }

    /// Takes what waits of conversations that the main lane is not busy with. What follows in them stands behind it.
    fn take_beside(&mut self) -> Load {
        let is_away = |waiting: &Waiting| self.away.contains(&waiting.write.append.conversation_id);
        let (stay, mut beside): (VecDeque<_>, VecDeque<_>) = self.main.writes.drain(..).partition(is_away);
        self.main.writes = stay;
        let load = take(&mut beside, false, Vec::new(), Patience::Skip);
        for waiting in &load.writes {
            *self.aside.entry(waiting.write.append.conversation_id).or_default() += 1;
        }
        load
    }

    /// Whether marks of the main lane wait whose time has come. If it has not, a timer will look again.
    fn are_marks_due(&mut self, wait: Duration, ctx: &mut Context<Self>) -> bool {
        if self.main.marks.is_empty() || self.marks_away {
            return false;
        }
        let waited = self.marks_written.elapsed();
        let is_due = waited >= wait || self.main.marks.len() >= MANY_MARKS || !self.flushing.is_empty();
        if !is_due && !self.timer_set {
            self.timer_set = true;
            ctx.run_later(wait.saturating_sub(waited), |journal, ctx| {
                journal.timer_set = false;
                journal.step(ctx);
            });
        }
        is_due
    }

    fn launch(&mut self, side: bool, load: Load, ctx: &mut Context<Self>) {
        let lane = if side { &mut self.side } else { &mut self.main };
        if load.batch.is_empty() {
            // What there was was too old, and has been answered.
            answer_marks(load.marks, false);
            if !lane.writes.is_empty() {
                self.step_later(ctx);
            }
            return;
        }
        let Some(connection) = lane.connection.take() else {
            return;
        };
        if !side {
            self.away.extend(load.writes.iter().map(|waiting| waiting.write.append.conversation_id));
        }
        if load.has_main_marks() {
            self.marks_away = true;
            self.marks_written = Instant::now();
        }
        metrics::counter!("sotto_batches_total").increment(1);
        metrics::histogram!("sotto_batch_size").record(count(load.batch.appends.len()));
        let begun = Instant::now();
        let work = write(connection, load);
        ctx.spawn(work.into_actor(self).map(move |done, journal, ctx| {
            if !side {
                journal.note(done.load.writes.len(), begun);
            }
            journal.finish(side, done, ctx);
        }));
    }

    /// Tells how fast the main lane is while more waits than it takes.
    fn note(&mut self, written: usize, begun: Instant) {
        let more = !self.main.writes.is_empty();
        let since = std::mem::replace(&mut self.main_ended, more.then(Instant::now)).unwrap_or(begun);
        if more {
            self.node.pressure().note(written, since.elapsed());
        }
    }

    fn finish(&mut self, side: bool, done: Done, ctx: &mut Context<Self>) {
        if side {
            self.side.connection = Some(done.connection);
        } else {
            self.main.connection = Some(done.connection);
            self.away.clear();
        }
        if done.load.has_main_marks() {
            self.marks_away = false;
        }
        let mut held = Vec::new();
        for (waiting, outcome) in done.load.writes.into_iter().zip(done.appended) {
            if outcome == Some(Appended::Locked) && done.load.patience == Patience::Skip {
                held.push(waiting);
                continue;
            }
            if side {
                self.leave_side(waiting.write.append.conversation_id);
            }
            let outcome = outcome.filter(|outcome| *outcome != Appended::Locked);
            // A conversation that died has nobody to tell; its clients repeat.
            let _ = waiting.write.reply.send(Written { ticket: waiting.write.ticket, outcome });
            if let Some(place) = waiting.write.place.filter(|_| outcome.is_none()) {
                ctx.run_later(PLACE_RESTS, move |_, _| drop(place));
            }
        }
        // Before what has come to the side meanwhile: of the same conversation it is later.
        for waiting in held.into_iter().rev() {
            // What went beside is counted already.
            if !side && !planted::is(Bug::OvertakenAside) {
                *self.aside.entry(waiting.write.append.conversation_id).or_default() += 1;
            }
            self.side.writes.push_front(waiting);
        }
        if !side {
            self.move_aside();
        }
        let (skipped, done_marks) = split_marks(done.load.marks, &done.skipped);
        answer_marks(done_marks, done.marks_durable);
        self.side.marks.extend(skipped);
        self.node.tell_raised(done.raised);
        self.step(ctx);
    }

    /// What follows in a conversation that went aside goes there too, so that its order stays.
    fn move_aside(&mut self) {
        let goes = |waiting: &Waiting| self.aside.contains_key(&waiting.write.append.conversation_id);
        if self.aside.is_empty() || !self.main.writes.iter().any(goes) {
            return;
        }
        let (aside, stay): (Vec<_>, Vec<_>) = self.main.writes.drain(..).partition(goes);
        self.main.writes = stay.into();
        for waiting in aside {
            *self.aside.entry(waiting.write.append.conversation_id).or_default() += 1;
            self.side.writes.push_back(waiting);
        }
    }

    fn leave_side(&mut self, conversation: ConversationId) {
        if let Some(count) = self.aside.get_mut(&conversation) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.aside.remove(&conversation);
            }
        }
    }
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Takes what fits into one transaction; what went aside goes one conversation at a time.
fn take(queue: &mut VecDeque<Waiting>, side: bool, marks: Vec<Raise>, patience: Patience) -> Load {
    let mut writes = Vec::new();
    let mut bytes = 0;
    let only = queue.front().map(|first| first.write.append.conversation_id);
    let mut passed_by = Vec::new();
    let mut late = Vec::new();
    let too_old = if side { TOO_OLD_ASIDE } else { TOO_OLD };
    while let Some(waiting) = queue.pop_front() {
        let append = &waiting.write.append;
        if waiting.since.elapsed() > too_old {
            late.push(append.conversation_id);
            // As in `finish`: a conversation that died has nobody to tell.
            let _ = waiting.write.reply.send(Written { ticket: waiting.write.ticket, outcome: None });
            continue;
        }
        if side && Some(append.conversation_id) != only {
            passed_by.push(waiting);
            continue;
        }
        bytes += append.ciphertext.as_ref().map_or(0, bytes::Bytes::len)
            + append.envelopes.as_ref().map_or(0, bytes::Bytes::len);
        if !writes.is_empty() && (writes.len() >= MAX_APPENDS || bytes > MAX_BYTES) {
            passed_by.push(waiting);
            break;
        }
        writes.push(waiting);
    }
    // The rest of the queue, which may be long, stays where it is.
    for waiting in passed_by.into_iter().rev() {
        queue.push_front(waiting);
    }
    let batch = Arc::new(batch_of(&writes, &marks));
    Load { batch, patience, writes, marks, late }
}

fn batch_of(writes: &[Waiting], marks: &[Raise]) -> Batch {
    let all = || marks.iter().map(|raise| &raise.marks);
    Batch {
        appends: writes.iter().map(|waiting| Arc::clone(&waiting.write.append)).collect(),
        delivered: all().flat_map(|marks| marks.delivered.iter().cloned()).collect(),
        reads: all().flat_map(|marks| marks.reads.iter().cloned()).collect(),
        accounts: all().flat_map(|marks| marks.accounts.iter().cloned()).collect(),
    }
}

fn answer_marks(marks: Vec<Raise>, durable: bool) {
    for raise in marks {
        // A session that has ended reads the marks again when it comes back.
        let _ = raise.reply.send(durable);
    }
}

/// Parts the mark requests whose conversations were skipped from those that are done.
fn split_marks(marks: Vec<Raise>, skipped: &[ConversationId]) -> (Vec<Raise>, Vec<Raise>) {
    if skipped.is_empty() {
        return (Vec::new(), marks);
    }
    let (mut again, mut done) = (Vec::new(), Vec::new());
    for mut raise in marks {
        raise.marks.delivered.retain(|mark| skipped.contains(&mark.conversation_id));
        raise.marks.reads.retain(|mark| skipped.contains(&mark.conversation_id));
        raise.marks.accounts.clear();
        if raise.marks.is_empty() {
            done.push(raise);
        } else {
            again.push(raise);
        }
    }
    (again, done)
}

/// What a transaction, or several after a failure, came to.
struct Done {
    connection: JournalConnection,
    load: Load,
    /// One per message; `None`: unknown.
    appended: Vec<Option<Appended>>,
    raised: Vec<Raised>,
    skipped: Vec<ConversationId>,
    marks_durable: bool,
}

async fn write(mut connection: JournalConnection, load: Load) -> Done {
    let patience = load.patience;
    let started = Instant::now();
    let result = connection.write(Arc::clone(&load.batch), patience, Timestamp::now()).await;
    metrics::histogram!("sotto_journal_seconds").record(started.elapsed().as_secs_f64());
    match result {
        Ok(outcome) => done(connection, load, outcome),
        Err(StoreError::Unavailable(reason)) => {
            tracing::warn!(%reason, "a batch could not be written; its outcome is unknown");
            metrics::counter!("sotto_batches_failed_total").increment(1);
            failed(connection, load)
        }
        Err(StoreError::Busy(reason)) if patience == Patience::Wait => {
            // One conversation that somebody holds: it had its time, and others wait for theirs.
            tracing::warn!(%reason, "a conversation is held by another transaction");
            metrics::counter!("sotto_batches_failed_total").increment(1);
            failed(connection, load)
        }
        Err(error) => {
            tracing::warn!(%error, "a batch failed; repeating it one conversation at a time");
            metrics::counter!("sotto_batches_failed_total").increment(1);
            one_by_one(connection, load).await
        }
    }
}

fn done(connection: JournalConnection, load: Load, outcome: Outcome) -> Done {
    Done {
        connection,
        load,
        appended: outcome.appended.into_iter().map(Some).collect(),
        raised: outcome.raised,
        skipped: outcome.skipped_marks,
        marks_durable: true,
    }
}

fn failed(connection: JournalConnection, load: Load) -> Done {
    Done {
        connection,
        appended: vec![None; load.writes.len()],
        load,
        raised: Vec::new(),
        skipped: Vec::new(),
        marks_durable: false,
    }
}

/// Rule D11: what one row poisons must not hold up the others.
async fn one_by_one(mut connection: JournalConnection, load: Load) -> Done {
    let patience = load.patience;
    let mut appended = vec![None; load.writes.len()];
    let mut raised = Vec::new();
    let mut skipped = Vec::new();
    let mut order: Vec<ConversationId> = Vec::new();
    for append in &load.batch.appends {
        if !order.contains(&append.conversation_id) {
            order.push(append.conversation_id);
        }
    }
    for conversation in order {
        let places: Vec<usize> = load
            .batch
            .appends
            .iter()
            .enumerate()
            .filter(|(_, append)| append.conversation_id == conversation)
            .map(|(place, _)| place)
            .collect();
        let batch = Batch {
            appends: places.iter().filter_map(|place| load.batch.appends.get(*place)).cloned().collect(),
            ..Batch::default()
        };
        match connection.write(Arc::new(batch), patience, Timestamp::now()).await {
            Ok(outcome) => {
                for (place, outcome) in places.iter().zip(outcome.appended) {
                    if let Some(slot) = appended.get_mut(*place) {
                        *slot = Some(outcome);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, %conversation, "messages of a conversation could not be written"),
        }
    }
    let marks = Batch { appends: Vec::new(), ..Batch::clone(&load.batch) };
    let mut marks_durable = true;
    if !marks.is_empty() {
        match connection.write(Arc::new(marks), patience, Timestamp::now()).await {
            Ok(outcome) => {
                raised = outcome.raised;
                skipped = outcome.skipped_marks;
            }
            Err(error) => {
                tracing::warn!(%error, "marks could not be written");
                marks_durable = false;
            }
        }
    }
    Done { connection, load, appended, raised, skipped, marks_durable }
}

impl Actor for Journal {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CAPACITY);
    }
}

impl Handler<Write> for Journal {
    type Result = ();

    fn handle(&mut self, write: Write, ctx: &mut Self::Context) {
        let conversation = write.append.conversation_id;
        let waiting = Waiting { write, since: Instant::now() };
        if let Some(count) = self.aside.get_mut(&conversation) {
            *count += 1;
            self.side.writes.push_back(waiting);
        } else {
            self.main.writes.push_back(waiting);
        }
        // Not at once: what else is in the mailbox belongs into the same transaction.
        if self.main.connection.is_some() || self.side.connection.is_some() {
            self.step_later(ctx);
        }
    }
}

impl Journal {
    fn step_later(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(async {}.into_actor(self).map(|(), journal, ctx| journal.step(ctx)));
    }
}

impl Handler<Raise> for Journal {
    type Result = ();

    fn handle(&mut self, raise: Raise, ctx: &mut Self::Context) {
        self.main.marks.push_back(raise);
        if self.main.connection.is_some() || self.takes_two && self.side.connection.is_some() {
            self.step_later(ctx);
        }
    }
}

impl Handler<Flush> for Journal {
    type Result = ();

    fn handle(&mut self, flush: Flush, ctx: &mut Self::Context) {
        self.flushing.push(flush.0);
        self.step(ctx);
    }
}
