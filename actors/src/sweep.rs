//! The actor Sweep: reads what every transaction of every node has left behind, and raises the heads here.
//!
//! *Owns:* the position up to which the wakes have been read, and what a full mailbox refused.
//! *When full:* nobody sends to it.
//! *On death:* the node is not ready; it ends in order.
//!
//! Rule D1: this is how delivery holds. Everything else only makes it faster.

use crate::cluster::{self, canary::WakeCanary};
use crate::node::Node;
use crate::tree::Vital;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use sotto_protocol::{ConversationId, Seq};
use sotto_schema::StoreError;
use sotto_schema::append::Wake;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How often the wakes are read.
const EVERY: Duration = Duration::from_secs(1);
/// Wakes live so long; a node that read none for longer reads all backlogs again.
const WAKES_LIVE: Duration = Duration::from_secs(600);
/// How often old wakes are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Reads wakes, second by second.
#[derive(Debug)]
pub struct Sweep {
    node: Node,
    position: i64,
    last: Instant,
    pruned: Instant,
    busy: bool,
    _life: Vital,
}

impl Sweep {
    /// A sweep that begins at a position of the wakes, from before the node's first session.
    #[must_use]
    pub fn new(node: Node, position: i64) -> Self {
        let life = node.vital("sweep");
        Self { node, position, last: Instant::now(), pruned: Instant::now(), busy: false, _life: life }
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        self.busy = true;
        let store = self.node.store().clone();
        let position = self.position;
        let prune = self.pruned.elapsed() >= PRUNE_EVERY;
        if prune {
            self.pruned = Instant::now();
        }
        let node = self.node.clone();
        let work = async move {
            if prune {
                store.prune_wakes().await?;
            }
            let (wakes, position) = store.wakes_since(position).await?;
            Ok((concerning(&node, fold(wakes)).await?, position))
        };
        ctx.spawn(work.into_actor(self).map(|found, sweep, _| sweep.found(found)));
    }

    fn found(&mut self, found: Result<(Swept, i64), StoreError>) {
        self.busy = false;
        let (swept, position) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the wakes could not be read; trying again");
                return;
            }
        };
        if self.last.elapsed() > WAKES_LIVE {
            tracing::warn!("no wake was read for longer than they live: all backlogs are read again");
            self.node.read_all_again();
        } else if position < self.position {
            tracing::warn!("the database's transactions count from a lower number: all backlogs are read again");
            self.node.read_all_again();
        }
        self.last = Instant::now();
        self.position = position;
        self.node.swept();
        for canary in swept.canaries {
            self.node.canary(cluster::Swept(canary));
        }
        for (id, seq) in swept.members {
            self.node.members_moved(id, seq);
        }
        self.node.wake(&swept.wake, false);
        self.node.repair();
    }
}

/// What many wakes come to.
struct Swept {
    wake: Wake,
    /// Conversations whose members have changed, with the newest entry.
    members: HashMap<ConversationId, Seq>,
    canaries: Vec<WakeCanary>,
}

fn fold(wakes: Vec<Wake>) -> Swept {
    let mut conversations = HashMap::new();
    let mut users = HashMap::new();
    let mut members = HashMap::new();
    let mut canaries = Vec::new();
    for wake in wakes {
        if let Some(canary) = WakeCanary::of(&wake) {
            canaries.push(canary);
            continue;
        }
        if !wake.users.is_empty() {
            // A change of members: the only thing that moves a log and accounts at once.
            for (id, seq, _) in &wake.conversations {
                let last: &mut i64 = members.entry(*id).or_default();
                *last = (*last).max(*seq);
            }
        }
        for (id, seq, receipts) in wake.conversations {
            let head: &mut (i64, i64) = conversations.entry(id).or_default();
            *head = (head.0.max(seq), head.1.max(receipts));
        }
        for (user, seq) in wake.users {
            let head: &mut i64 = users.entry(user).or_default();
            *head = (*head).max(seq);
        }
    }
    let conversations = conversations.into_iter().map(|(id, (seq, receipts))| (id, seq, receipts));
    Swept {
        wake: Wake { conversations: conversations.collect(), users: users.into_iter().collect() },
        members,
        canaries,
    }
}

/// Leaves out conversations that nobody here has read: those of a whole cluster would fill every node's memory.
async fn concerning(node: &Node, mut swept: Swept) -> Result<Swept, StoreError> {
    let is_active = |id: &ConversationId| node.conversations().get(id).is_some();
    let quiet: Vec<ConversationId> =
        swept.wake.conversations.iter().map(|(id, _, _)| *id).filter(|id| !is_active(id)).collect();
    if quiet.is_empty() {
        return Ok(swept);
    }
    let readers = if node.sessions().is_empty() { Vec::new() } else { node.store().readers(quiet.clone()).await? };
    let here = readers.into_iter().filter(|(_, user)| node.sessions().get(user).is_some());
    let read_here: HashSet<ConversationId> = here.map(|(id, _)| id).collect();
    let nobody: HashSet<ConversationId> = quiet.into_iter().filter(|id| !read_here.contains(id)).collect();
    swept.wake.conversations.retain(|(id, _, _)| !nobody.contains(id));
    swept.members.retain(|id, _| !nobody.contains(id));
    Ok(swept)
}

impl Actor for Sweep {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sweep(ctx);
        ctx.run_interval(EVERY, Self::sweep);
    }
}
