//! A load that runs while somebody else does what he wants to the cluster, and its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use sotto_client::protocol::message::DeviceRef;
use sotto_client::protocol::{ConversationId, DeviceId, ErrorCode, Seq};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::HarnessError;
use crate::account::Account;
use crate::book::Book;
use crate::claims::Claims;
use crate::counters::{Counter, Felt, Mark, View};
use crate::device::{Circle, Device, Phase, Shared};
use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::remove::Removal;
use crate::report::{Figures, Report};
use crate::revoke::{self, Revocation};
use crate::settle;
use crate::targets::Targets;

/// Accounts that are asked about at the same time.
const AT_ONCE: usize = 32;
/// How often an account is asked about before nobody is there.
const ROUNDS: usize = 5;
/// Between them.
const BETWEEN: Duration = Duration::from_millis(500);
/// How long a device that is to be signed out may need to have its sends answered.
const SETTLING: Duration = Duration::from_secs(15);
/// Between two looks for an answer.
const LOOK: Duration = Duration::from_millis(5);

/// A device at work.
struct Slot {
    id: DeviceId,
    account: Arc<Account>,
    conversations: Vec<ConversationId>,
    phase: watch::Sender<Phase>,
    task: JoinHandle<Device>,
}

/// A running load.
pub struct Driver {
    shared: Arc<Shared>,
    slots: Mutex<Vec<Slot>>,
    dice: Mutex<Dice>,
    claims: Option<(watch::Sender<Phase>, JoinHandle<()>)>,
    figures: Figures,
    unwitnessed: Counter,
}

/// What the server said of an account.
enum Standing {
    Member(Vec<(ConversationId, Seq)>),
    Out,
    Unknown,
}

impl Driver {
    /// Asks where every log stands, and lets the devices live. Accounts that were signed out before are left out.
    ///
    /// # Errors
    /// [`HarnessError::Address`], [`HarnessError::Plan`] when no two devices share a conversation, and
    /// [`HarnessError::NoServer`] when an account gets no answer at any address.
    pub async fn start(mut plan: Plan) -> Result<Self, HarnessError> {
        let targets = Targets::new(&plan.urls)?;
        let accounts = std::mem::take(&mut plan.accounts);
        plan.depth = plan.depth.max(1);
        let (accounts, bases) = present(accounts, &targets, plan.patience).await?;
        let mut listed: HashMap<ConversationId, Vec<DeviceRef>> = HashMap::new();
        for account in &accounts {
            for id in &account.conversations {
                let device = DeviceRef { user_id: account.user_id, device_id: account.device_id };
                listed.entry(*id).or_default().push(device);
            }
        }
        if !listed.values().any(|devices| devices.len() > 1) {
            let text = format!("no two of {} usable devices share a conversation", accounts.len());
            return Err(HarnessError::Plan(text));
        }
        let book = |(id, devices): (&ConversationId, &Vec<DeviceRef>)| {
            let readers: Vec<_> = devices.iter().map(|device| device.device_id).collect();
            (*id, Book::new(id.to_string(), bases.get(id).copied().unwrap_or_default(), &readers))
        };
        let ledger = Ledger::new(listed.iter().map(book).collect(), plan.size);
        let figures = Figures { devices: accounts.len(), conversations: listed.len(), ..Figures::default() };
        let circles: HashMap<_, _> = listed
            .into_iter()
            .map(|(id, devices)| (id, Arc::new(Circle { id, listed: Mutex::new(devices) })))
            .collect();
        let mut dice = Dice::new(plan.seed);
        let has_claims = plan.mix.claims;
        let count = u32::try_from(accounts.len()).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared::new(ledger, targets, plan, count));
        let claims = has_claims.then(|| {
            let claims = Claims::new(accounts.clone(), Dice::new(dice.roll()), Arc::clone(&shared));
            let (phase, watched) = watch::channel(Phase::Live);
            (phase, tokio::spawn(claims.run(watched)))
        });
        let slots = accounts.into_iter().map(|account| {
            let own = account.conversations.iter().filter_map(|id| circles.get(id).cloned()).collect();
            slot(Device::new(account, own, Dice::new(dice.roll()), Arc::clone(&shared)))
        });
        let slots = Mutex::new(slots.collect());
        Ok(Self { shared, slots, dice: Mutex::new(dice), claims, figures, unwitnessed: Counter::default() })
    }

    /// What counts on when the driver itself is settling.
    pub(crate) fn counters(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Other nodes from now on: for the next connection of each device, and its next request.
    ///
    /// # Errors
    /// As [`Driver::start`]; nothing has changed then.
    pub fn set_urls(&self, urls: &[String]) -> Result<(), HarnessError> {
        self.shared.targets.set(urls)
    }

    /// Another speed from now on: messages per second of all devices together; 0: as fast as answers come.
    pub fn set_rate(&self, rate: f64) {
        self.shared.set_rate(rate);
    }

    /// The counters as they are now.
    #[must_use]
    pub fn view(&self) -> View {
        self.shared.ledger.counters.view()
    }

    /// A moment to compare with.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { at: Instant::now(), view: self.view() }
    }

    /// What clients have felt since.
    #[must_use]
    pub fn felt_since(&self, mark: &Mark) -> Felt {
        Felt::between(&mark.view, &self.view())
    }

    /// Waits until a send that was begun after the mark is answered with ok, and tells how long after the mark that
    /// was; `None`: not within the patience, counted from now.
    pub async fn answered_after(&self, mark: &Mark, patience: Duration) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if self.shared.ledger.counters.newest_ok().is_some_and(|newest| newest > mark.at) {
                return Some(mark.at.elapsed());
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// Signs a device out while it holds a socket, and watches every node for as long as it may take. What it had under
    /// way is answered before. A conversation keeps a device, and at least one keeps two.
    ///
    /// # Errors
    /// [`HarnessError::Plan`] when there are too few devices, [`HarnessError::NoServer`] when its sends were not
    /// answered; it lives on then.
    pub async fn revoke_one(&self) -> Result<Revocation, HarnessError> {
        let Slot { phase, task, .. } = self.take_slot()?;
        phase.send_replace(Phase::Stop);
        let Ok(mut device) = task.await else {
            return Err(HarnessError::Plan("a device ended by itself".to_owned()));
        };
        device.settle_sends(Instant::now() + SETTLING).await;
        if device.is_dead || !device.pending.is_empty() {
            self.held().push(slot(device));
            return Err(HarnessError::NoServer("sends of the device to be signed out are not answered".to_owned()));
        }
        let revocation = revoke::revoke(&mut device).await;
        if revocation == Revocation::Unwitnessed {
            self.unwitnessed.add();
        }
        Ok(revocation)
    }

    /// Takes somebody out of a group of three or more: while he sends, or, every other time, just after the answer to
    /// what he sent was lost on its way. What he had sent before stays, and its repeat is answered; nothing else is
    /// owed to him.
    ///
    /// # Errors
    /// [`HarnessError::Plan`] when there is no such group, [`HarnessError::NoServer`] when nobody does it.
    pub async fn remove_one(&self) -> Result<(), HarnessError> {
        let few = || HarnessError::Plan("no group is large enough to take somebody out".to_owned());
        let groups = self.groups();
        let mut dice = Dice::new(self.dice.lock().unwrap_or_else(PoisonError::into_inner).roll());
        let id = *dice.pick(&groups).ok_or_else(few)?;
        let removal = Removal::choose(&self.shared, &self.members(id), id, &mut dice).await?;
        let deaf = if dice.percent(50) { removal.device() } else { None };
        let Some(Slot { phase, task, .. }) = deaf.and_then(|device| take_out(&mut self.held(), device)) else {
            return removal.carry_out(&self.shared, &mut dice).await;
        };
        phase.send_replace(Phase::Stop);
        let mut device = task.await.map_err(|_| HarnessError::Plan("a device ended by itself".to_owned()))?;
        device.lose_an_answer(id).await;
        let removed = removal.carry_out(&self.shared, &mut dice).await;
        // Only now does it come again with what it was not told of.
        self.held().push(slot(device));
        removed
    }

    /// Groups with at least three that are in it.
    fn groups(&self) -> Vec<ConversationId> {
        let mut groups: Vec<_> = self.held().iter().flat_map(|slot| slot.conversations.clone()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.retain(|id| self.members(*id).len() > 2);
        groups
    }

    /// Whoever is in a conversation.
    fn members(&self, id: ConversationId) -> Vec<Arc<Account>> {
        let removed = self.shared.removed.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = self.held();
        let inside = slots.iter().filter(|slot| slot.conversations.contains(&id) && !removed.contains(&(slot.id, id)));
        inside.map(|slot| Arc::clone(&slot.account)).collect()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_slot(&self) -> Result<Slot, HarnessError> {
        let mut slots = self.held();
        let mut sizes: HashMap<ConversationId, usize> = HashMap::new();
        for id in slots.iter().flat_map(|slot| &slot.conversations) {
            *sizes.entry(*id).or_default() += 1;
        }
        let pairs = sizes.values().filter(|size| **size > 1).count();
        let may_go: Vec<DeviceId> = slots
            .iter()
            .filter(|slot| {
                let size = |id: &&ConversationId| sizes.get(*id).copied().unwrap_or_default();
                let broken = slot.conversations.iter().filter(|id| size(id) == 2).count();
                slot.conversations.iter().all(|id| size(&id) > 1) && broken < pairs
            })
            .map(|slot| slot.id)
            .collect();
        let chosen = self.dice.lock().unwrap_or_else(PoisonError::into_inner).pick(&may_go).copied();
        let few = || HarnessError::Plan("too few devices to sign one out".to_owned());
        chosen.and_then(|device| take_out(&mut slots, device)).ok_or_else(few)
    }

    /// Ends the load: no new sends, everything unanswered is repeated, everybody catches up by socket and by REST, and
    /// every log is read anew at every address. What is not done within the patience stands in the report.
    pub async fn settle(self, patience: Duration) -> Report {
        let load_seconds = self.shared.ledger.counters.start.elapsed().as_secs_f64();
        let begun = Instant::now();
        if let Some((phase, task)) = self.claims {
            phase.send_replace(Phase::Stop);
            drop(task.await);
        }
        let slots = self.slots.into_inner().unwrap_or_else(PoisonError::into_inner);
        for slot in &slots {
            slot.phase.send_replace(Phase::Linger);
        }
        let mut devices = Vec::new();
        for slot in slots {
            match slot.task.await {
                Ok(device) => devices.push(device),
                Err(_) => self.shared.ledger.incomplete(format!("device {} ended by itself", slot.id)),
            }
        }
        let histories = settle::settle(devices, begun + patience).await;
        let ledger = &self.shared.ledger;
        let (findings, incomplete) = ledger.close();
        let (keys_given, revoked) = ledger.keys_and_sessions();
        let counters = &ledger.counters;
        let figures = Figures {
            sent: counters.composed.get(),
            acknowledged: counters.acknowledged.get(),
            withdrawn: counters.withdrawn.get(),
            repeated: counters.repeated.get(),
            duplicates: counters.duplicates.get(),
            events: counters.events.get(),
            received: counters.received.get(),
            confirmed: counters.confirmed.get(),
            keys_given,
            revoked,
            unwitnessed: self.unwitnessed.get(),
            histories,
            ok_p50_ms: ledger.answers.percentile(50.0),
            ok_p99_ms: ledger.answers.percentile(99.0),
            delivery_p50_ms: ledger.deliveries.percentile(50.0),
            delivery_p99_ms: ledger.deliveries.percentile(99.0),
            load_seconds,
            settle_seconds: begun.elapsed().as_secs_f64(),
            ..self.figures
        };
        Report { seed: self.shared.plan.seed, findings, incomplete, figures, view: counters.view() }
    }
}

fn take_out(slots: &mut Vec<Slot>, device: DeviceId) -> Option<Slot> {
    let place = slots.iter().position(|slot| slot.id == device)?;
    Some(slots.swap_remove(place))
}

fn slot(device: Device) -> Slot {
    let (phase, watched) = watch::channel(Phase::Live);
    let (id, account) = (device.id(), Arc::clone(&device.account));
    let conversations = account.conversations.clone();
    Slot { id, account, conversations, phase, task: tokio::spawn(device.live(watched)) }
}

/// The accounts that the server knows, and where their logs stand.
async fn present(
    accounts: Vec<Account>,
    targets: &Targets,
    patience: Duration,
) -> Result<(Vec<Account>, HashMap<ConversationId, Seq>), HarnessError> {
    let count = accounts.len();
    let asked = stream::iter(accounts.into_iter().enumerate()).map(|(place, account)| async move {
        let standing = standing(&account, place, targets, patience).await;
        (place, account, standing)
    });
    let mut asked: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    asked.sort_by_key(|(place, ..)| *place);
    let mut bases: HashMap<ConversationId, Seq> = HashMap::new();
    let mut present = Vec::new();
    for (_, account, standing) in asked {
        match standing {
            Standing::Member(logs) => {
                for (id, last_seq) in logs {
                    let base = bases.entry(id).or_default();
                    *base = (*base).max(last_seq);
                }
                present.push(account);
            }
            Standing::Out => {}
            Standing::Unknown => {
                let text = format!("nobody answers for device {} at any address", account.device_id);
                return Err(HarnessError::NoServer(text));
            }
        }
    }
    if present.is_empty() {
        return Err(HarnessError::NoServer(format!("the server takes none of the {count} access tokens")));
    }
    Ok((present, bases))
}

async fn standing(account: &Account, place: usize, targets: &Targets, patience: Duration) -> Standing {
    let all = targets.all();
    let mut logs = Vec::new();
    'conversations: for id in &account.conversations {
        for round in 0..ROUNDS * all.len() {
            let Some(target) = all.get((place + round) % all.len().max(1)) else { return Standing::Unknown };
            let rest = target.rest.with_token(&account.access_token);
            match tokio::time::timeout(patience, rest.conversation(*id)).await {
                Ok(Ok(described)) => {
                    logs.push((*id, described.last_seq));
                    continue 'conversations;
                }
                Ok(Err(error)) => match error.code() {
                    Some(ErrorCode::Unauthenticated | ErrorCode::NotFound) => return Standing::Out,
                    _ => tokio::time::sleep(crate::device::wait(&error).unwrap_or(BETWEEN)).await,
                },
                Err(_) => {}
            }
        }
        return Standing::Unknown;
    }
    Standing::Member(logs)
}
