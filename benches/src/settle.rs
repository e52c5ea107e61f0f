//! The end of a run: everything is answered, everybody has caught up by both ways, and all logs are read anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto_client::protocol::ConversationId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::book::Note;
use crate::device::{Device, Phase};
use crate::line::Goal;
use crate::targets::Target;

/// Who reads a log anew at each node, at most.
const READERS: usize = 3;
/// Devices that read at the same time.
const AT_ONCE: usize = 32;
/// Messages of one round by REST.
const ROUND: usize = 8;
/// Events of a page of catching up.
const PAGE: u32 = 200;

/// Settles everybody and reads everything; the number of logs that were read.
pub async fn settle(mut devices: Vec<Device>, deadline: Instant) -> u64 {
    for step in 0..3 {
        let mut tasks = JoinSet::new();
        for mut device in devices.drain(..) {
            tasks.spawn(async move {
                device.step(step, deadline).await;
                device
            });
        }
        devices = tasks.join_all().await;
        devices.sort_by_key(Device::id);
    }
    read_anew(devices, deadline).await
}

impl Device {
    async fn step(&mut self, step: u32, deadline: Instant) {
        let by_socket = self.dice.percent(50);
        self.leave_circles();
        match step {
            0 => self.settle_sends(deadline).await,
            1 => self.catch_up(by_socket, deadline).await,
            // Nothing may come again.
            _ => {
                self.catch_up(true, deadline).await;
                self.catch_up(false, deadline).await;
                if !self.is_dead {
                    self.look_at_marks().await;
                }
            }
        }
    }

    /// Repeats what may have been stored until it is answered, and gives up what never was.
    pub async fn settle_sends(&mut self, deadline: Instant) {
        let refused: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| !pending.may_be_stored).map(|(place, _)| *place).collect();
        for place in refused {
            self.withdraw(place);
        }
        while !self.pending.is_empty() && !self.is_dead && Instant::now() < deadline {
            wait_until(self.hold, deadline).await;
            if self.dice.percent(50) {
                self.hold_socket(deadline).await;
            } else {
                let places: Vec<u64> = self.pending.keys().copied().take(ROUND).collect();
                self.send_by_rest(&places).await;
            }
        }
    }

    async fn hold_socket(&mut self, deadline: Instant) -> bool {
        let (_live, mut phase) = watch::channel(Phase::Live);
        self.by_socket(Goal::Settle { deadline }, &mut phase).await
    }

    async fn catch_up(&mut self, by_socket: bool, deadline: Instant) {
        while !self.is_dead {
            let is_done = if by_socket {
                self.hold_socket(deadline).await
            } else {
                wait_until(self.quiet, deadline).await;
                self.sync(Some(PAGE), true).await == Some(false)
            };
            if is_done {
                return;
            }
            if Instant::now() >= deadline {
                let way = if by_socket { "socket" } else { "REST" };
                return self.ledger().incomplete(format!("device {} did not catch up by {way}", self.id()));
            }
        }
    }

    /// Reads a whole log, as far as it belongs to this run, at one node.
    async fn read_log(&mut self, id: ConversationId, target: &Target, deadline: Instant) -> bool {
        let Some(base) = self.ledger().book(id, crate::book::Book::base) else { return false };
        let rest = self.rest(target);
        let mut last_seq = None;
        let mut after = base;
        while Instant::now() < deadline && !self.is_dead {
            wait_until(self.quiet, deadline).await;
            let Some(end) = last_seq else {
                last_seq = self.ask(target, "conversation", rest.conversation(id)).await.map(|told| told.last_seq);
                continue;
            };
            match self.page(target, id, after, true).await {
                Some(last) if last > after => after = last,
                Some(_) => {
                    let by = self.id();
                    self.ledger().note(id, Note::End { by, last_seq: end, read_to: after });
                    return true;
                }
                None => {}
            }
        }
        self.ledger().incomplete(format!("the log of {id} could not be read at {}", target.url));
        false
    }
}

async fn wait_until(moment: Instant, deadline: Instant) {
    if moment > Instant::now() {
        tokio::time::sleep_until(moment.min(deadline).into()).await;
    }
}

/// Every log at every node, by several of its devices where it has several.
async fn read_anew(devices: Vec<Device>, deadline: Instant) -> u64 {
    let Some(shared) = devices.first().map(|device| Arc::clone(&device.shared)) else { return 0 };
    let targets = shared.targets.all();
    let mut readers: HashMap<ConversationId, usize> = HashMap::new();
    let mut jobs = Vec::new();
    for device in devices {
        let mut own = Vec::new();
        for circle in &device.circles {
            let count = readers.entry(circle.id).or_default();
            for (place, target) in targets.iter().enumerate() {
                // The first readers go everywhere, the others to one node each.
                if *count < READERS || *count % targets.len().max(1) == place {
                    own.push((circle.id, Arc::clone(target)));
                }
            }
            *count += 1;
        }
        jobs.push((device, own));
    }
    let mut tasks = JoinSet::new();
    let mut read = 0;
    for (mut device, own) in jobs {
        if tasks.len() >= AT_ONCE {
            read += tasks.join_next().await.and_then(Result::ok).unwrap_or(0);
        }
        tasks.spawn(async move {
            let mut read = 0;
            for (id, target) in own {
                read += u64::from(device.read_log(id, &target, deadline + Duration::from_secs(5)).await);
            }
            read
        });
    }
    read + tasks.join_all().await.into_iter().sum::<u64>()
}
