//! A device and what its owner does with it: one life after another, by socket, by REST, away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sotto_client::Error;
use sotto_client::protocol::message::{DeviceRef, Envelope, Kind, OutgoingMessage, Sent};
use sotto_client::protocol::{ConversationId, DeviceId, ErrorCode, MessageId, Problem, Seq, Timestamp};
use tokio::sync::watch;

use crate::account::Account;
use crate::book::Note;
use crate::content;
use crate::counters::Counters;
use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::targets::{Target, Targets};

/// Larger device lists than this get one ciphertext for all: the contract takes 500 envelopes, frames are bounded too.
const MOST_ENVELOPES: usize = 200;
/// How often a message is made anew for another device list before it is strange.
const MOST_LISTS: u32 = 50;
/// Waited where the server does not say how long.
const SHORT: Duration = Duration::from_millis(150);
const LIMIT: Duration = Duration::from_secs(1);

/// What all devices of a run share.
pub struct Shared {
    /// Where everybody writes.
    pub ledger: Ledger,
    /// Where everybody goes.
    pub targets: Targets,
    /// How it is to be done.
    pub plan: Plan,
    /// Devices that are driven.
    pub devices: u32,
    /// Devices that we have signed out.
    pub gone: Mutex<HashSet<DeviceId>>,
    /// Members that we have taken out of a conversation, or are about to.
    pub removed: Mutex<HashSet<(DeviceId, ConversationId)>>,
    /// Messages per second of all, as bits.
    rate: AtomicU64,
}

impl Shared {
    /// Everything that a run has in common.
    pub fn new(ledger: Ledger, targets: Targets, plan: Plan, devices: u32) -> Self {
        let rate = AtomicU64::new(plan.rate.to_bits());
        Self { ledger, targets, plan, devices, gone: Mutex::default(), removed: Mutex::default(), rate }
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        &self.ledger.counters
    }

    /// Changes the speed.
    pub fn set_rate(&self, rate: f64) {
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// Between two messages of one device; nothing at full speed.
    pub fn interval(&self) -> Duration {
        let rate = f64::from_bits(self.rate.load(Ordering::Relaxed));
        if rate <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(f64::from(self.devices.max(1)) / rate).unwrap_or(Duration::from_secs(3600))
    }

    /// Whether a device may be refused as somebody who was taken out of a conversation.
    pub fn may_be_out(&self, device: DeviceId) -> bool {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed.iter().any(|(other, _)| *other == device)
    }

    /// Whether we have signed a device out.
    pub fn is_gone(&self, device: DeviceId) -> bool {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).contains(&device)
    }
}

/// A conversation and the devices in it.
pub struct Circle {
    /// The conversation.
    pub id: ConversationId,
    /// Whom a message is for, as far as the driver knows; the server's 409 corrects it.
    pub listed: Mutex<Vec<DeviceRef>>,
}

/// Whether devices go on living.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// They do.
    Live,
    /// They send nothing more, and whoever has a socket holds it until it was given everything.
    Linger,
    /// They stop where they are.
    Stop,
}

/// A message that was made and is not answered.
pub struct Pending {
    /// What is sent.
    pub message: OutgoingMessage,
    /// Where it goes; its sender may be taken out of it before the answer comes.
    circle: Arc<Circle>,
    /// How often it was.
    attempts: u32,
    /// Lists that did not fit.
    lists: u32,
    /// Whether an attempt may have stored it.
    pub may_be_stored: bool,
}

/// What an answer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing more.
    Done,
    /// The same again, not before the device's `hold`.
    Again,
}

/// A page of catching up that was not acknowledged.
pub type Page = (String, HashMap<ConversationId, Seq>);

/// A device.
pub struct Device {
    /// Who it is.
    pub account: Arc<Account>,
    /// Where it takes part.
    pub circles: Vec<Arc<Circle>>,
    /// Its choices.
    pub dice: Dice,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Sent or about to be, and not answered, in order.
    pub pending: BTreeMap<u64, Pending>,
    /// The last attempt to connect.
    pub attempt: i64,
    /// No send before.
    pub hold: Instant,
    /// No request before.
    pub quiet: Instant,
    /// The node that has just failed.
    pub failed: Option<String>,
    /// Nobody knows its token any more.
    pub is_dead: bool,
    /// To be acknowledged late.
    pub late: Option<Page>,
    composed: u64,
    next_send: Instant,
}

impl Device {
    /// A device that has done nothing yet.
    pub fn new(account: Account, circles: Vec<Arc<Circle>>, mut dice: Dice, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        // Not all at the same moment.
        let first = shared.interval().min(Duration::from_secs(60)).mul_f64(f64::from(part(&mut dice)) / 1000.0);
        Self {
            account: Arc::new(account),
            circles,
            dice,
            shared,
            pending: BTreeMap::new(),
            // Above every number of an earlier run.
            attempt: Timestamp::now().as_micros() / 1000,
            hold: now,
            quiet: now,
            failed: None,
            is_dead: false,
            late: None,
            composed: 0,
            next_send: now + first,
        }
    }

    /// Its id.
    pub fn id(&self) -> DeviceId {
        self.account.device_id
    }

    /// Where everybody writes.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// A node by chance, another one than that which has just failed.
    pub fn target(&mut self) -> Option<Arc<Target>> {
        self.shared.targets.pick(&mut self.dice, self.failed.as_deref())
    }

    /// Lives one way after the other until it is told to stop.
    pub async fn live(mut self, mut phase: watch::Receiver<Phase>) -> Self {
        while !self.is_dead && *phase.borrow() == Phase::Live && phase.has_changed().is_ok() {
            let mix = &self.shared.plan.mix;
            let (socket, rest, away) = (u64::from(mix.socket), u64::from(mix.rest), u64::from(mix.away));
            let longest = mix.longest.saturating_sub(mix.shortest);
            let until = Instant::now() + mix.shortest + longest.mul_f64(f64::from(part(&mut self.dice)) / 1000.0);
            let life = self.dice.within(0, socket + rest + away);
            if life < socket {
                self.by_socket(crate::line::Goal::Live { until }, &mut phase).await;
            } else if life < socket + rest {
                self.by_rest(until, &mut phase).await;
            } else {
                pause_until(until, &mut phase).await;
            }
        }
        self
    }

    /// Forgets conversations that it was taken out of.
    pub fn leave_circles(&mut self) {
        let removed = self.shared.removed.lock().unwrap_or_else(PoisonError::into_inner);
        let id = self.account.device_id;
        self.circles.retain(|circle| !removed.contains(&(id, circle.id)));
    }

    /// When the next message may be made.
    pub fn due(&self) -> Instant {
        self.next_send.max(self.hold)
    }

    /// Makes a message; `None` while too many wait.
    pub fn compose(&mut self, now: Instant) -> Option<u64> {
        if self.pending.len() > self.shared.plan.depth {
            return None;
        }
        self.leave_circles();
        let circle = Arc::clone(self.dice.pick(&self.circles)?);
        let id = MessageId::ordered();
        let is_shared = self.dice.percent(self.shared.plan.mix.shared);
        let message = OutgoingMessage {
            message_id: id,
            conversation_id: circle.id,
            kind: Kind::Text,
            ciphertext: Some(content::shared(id, self.shared.plan.size)),
            envelopes: None,
            reply_to: None,
            expires_in: None,
            client_seq: None,
            roster: None,
        };
        let mut pending = Pending { message, circle: Arc::clone(&circle), attempts: 0, lists: 0, may_be_stored: false };
        let is_shared = is_shared || !self.envelop(&mut pending);
        let at = self.ledger().ticks(now);
        self.ledger().counters.composed.add();
        self.ledger().note(circle.id, Note::Composed { message: id, by: self.id(), shared: is_shared, at });
        self.composed += 1;
        self.pending.insert(self.composed, pending);
        let interval = self.shared.interval();
        if !interval.is_zero() {
            // Whoever was away does not make up for more than one message.
            let step = interval.mul_f64(f64::from(500 + part(&mut self.dice)) / 1000.0);
            self.next_send = self.next_send.max(now.checked_sub(interval).unwrap_or(now)) + step;
        }
        Some(self.composed)
    }

    /// Gives a message an envelope per device; `false`: they are too many.
    fn envelop(&self, pending: &mut Pending) -> bool {
        let Pending { message, circle, .. } = pending;
        let listed = circle.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() > MOST_ENVELOPES {
            return false;
        }
        let others = listed.iter().filter(|other| other.device_id != self.account.device_id);
        let envelope = |other: &DeviceRef| Envelope {
            user_id: other.user_id,
            device_id: other.device_id,
            registration_id: None,
            kind: 1,
            ciphertext: content::own(message.message_id, other.device_id, self.shared.plan.size),
        };
        let envelopes = others.map(envelope).collect();
        message.envelopes = Some(envelopes);
        message.ciphertext = None;
        true
    }

    /// A message that is going out now.
    pub fn begin(&mut self, place: u64, now: Instant) -> Option<OutgoingMessage> {
        let ledger = &self.shared.ledger;
        let pending = self.pending.get_mut(&place)?;
        ledger.counters.begun.add();
        ledger.counters.under_way.add();
        pending.attempts += 1;
        if pending.attempts > 1 {
            if pending.attempts == 2 {
                ledger.counters.repeated.add();
            }
            let (message, at) = (pending.message.message_id, ledger.ticks(now));
            ledger.note(pending.message.conversation_id, Note::Repeated { message, at });
        }
        Some(pending.message.clone())
    }

    /// The connection of an attempt is gone before its answer came; by our own will it is no fault.
    pub fn unknown(&mut self, place: u64, is_fault: bool) {
        let counters = &self.shared.ledger.counters;
        counters.under_way.take();
        if is_fault {
            counters.unknown.add();
        }
        if let Some(pending) = self.pending.get_mut(&place) {
            pending.may_be_stored = true;
        }
    }

    /// An attempt is over.
    pub fn answered(
        &mut self,
        message: &OutgoingMessage,
        place: u64,
        frame: Option<(u64, u64)>,
        begun: Instant,
        answer: Result<Sent, Error>,
    ) -> Next {
        let error = match answer {
            Ok(sent) => {
                self.stored(message, frame, begun, &sent);
                self.pending.remove(&place);
                return Next::Done;
            }
            Err(error) => error,
        };
        if let Some(code) = error.code() {
            self.ledger().counters.refuse(code);
        }
        if error.is_unknown_outcome() {
            self.unknown(place, true);
            self.hold = self.hold.max(Instant::now() + wait(&error).unwrap_or(SHORT));
            return Next::Again;
        }
        self.ledger().counters.under_way.take();
        match error.code() {
            Some(ErrorCode::RateLimited | ErrorCode::Blocked) => {
                self.ledger().counters.waits.add();
                self.hold = self.hold.max(Instant::now() + wait(&error).unwrap_or(LIMIT));
                Next::Again
            }
            Some(ErrorCode::DeviceListMismatch | ErrorCode::DeviceStale)
                if error.problem().is_some_and(|problem| self.correct(place, problem)) =>
            {
                Next::Again
            }
            Some(ErrorCode::Unauthenticated) => {
                self.die("its token is not taken any more");
                Next::Again
            }
            // What was stored before stays, and its repeat is not refused: the end of the log will tell.
            Some(ErrorCode::Forbidden | ErrorCode::NotFound) if self.shared.may_be_out(self.id()) => {
                self.withdraw(place);
                Next::Done
            }
            _ => {
                let id = message.message_id;
                self.ledger().strange(format!("the send of {id} by {}: {error}", self.id()));
                self.withdraw(place);
                Next::Done
            }
        }
    }

    fn stored(&self, message: &OutgoingMessage, frame: Option<(u64, u64)>, begun: Instant, sent: &Sent) {
        let ledger = self.ledger();
        let id = message.message_id;
        ledger.counters.under_way.take();
        ledger.counters.ok(begun);
        ledger.answers.record(begun.elapsed());
        if sent.duplicate {
            ledger.counters.duplicates.add();
        }
        if self.pending.values().any(|pending| pending.message.message_id == id) {
            ledger.counters.acknowledged.add();
        }
        if sent.message_id != id || sent.conversation_id != message.conversation_id {
            return ledger.strange(format!("{id} was answered with {sent:?}"));
        }
        let (seq, time, duplicate) = (sent.seq, sent.server_time, sent.duplicate);
        ledger.note(message.conversation_id, Note::Answered { message: id, place: frame, seq, time, duplicate });
    }

    /// Takes the device list that a refusal tells of; `false`: it never fits.
    fn correct(&mut self, place: u64, problem: &Problem) -> bool {
        let named = |member: &str| -> Vec<DeviceRef> {
            let list = problem.more.get(member).cloned();
            list.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
        };
        let Some(mut pending) = self.pending.remove(&place) else { return false };
        {
            let mut listed = pending.circle.listed.lock().unwrap_or_else(PoisonError::into_inner);
            let extra = named("extra");
            listed.retain(|device| !extra.contains(device));
            for missing in named("missing") {
                if !listed.contains(&missing) {
                    listed.push(missing);
                }
            }
        }
        pending.lists += 1;
        let fits = pending.lists < MOST_LISTS && pending.message.envelopes.is_some() && self.envelop(&mut pending);
        self.pending.insert(place, pending);
        fits
    }

    /// Gives a message up of which every attempt was refused.
    pub fn withdraw(&mut self, place: u64) {
        if let Some(pending) = self.pending.remove(&place) {
            let message = pending.message.message_id;
            self.ledger().counters.withdrawn.add();
            self.ledger().note(pending.message.conversation_id, Note::Withdrawn { message });
        }
    }

    /// Nothing more can be done with it.
    pub fn die(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_dead, true) && !self.shared.is_gone(self.id()) {
            self.ledger().incomplete(format!("device {} was given up: {why}", self.id()));
        }
    }
}

/// 0 … 999.
pub fn part(dice: &mut Dice) -> u32 {
    u32::try_from(dice.within(0, 1000)).unwrap_or_default()
}

/// How long the server wants us to wait.
pub fn wait(error: &Error) -> Option<Duration> {
    error.problem()?.retry_after_ms.map(Duration::from_millis)
}

/// Waits for a moment, or until the phase is over.
pub async fn pause_until(moment: Instant, phase: &mut watch::Receiver<Phase>) {
    if *phase.borrow() == Phase::Live {
        tokio::select! {
            () = tokio::time::sleep_until(moment.into()) => {}
            _ = phase.changed() => {}
        }
    }
}
