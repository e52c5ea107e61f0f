//! The actor Sweep: reads what every transaction of every node has left behind, and raises the heads here.
//!
//! *Owns:* the position up to which the wakes have been read, and what a full mailbox refused.
//! *When full:* nobody sends to it.
//! *On death:* the node is not ready; it ends in order.
//!
//! Rule D1: this is how delivery holds. Everything else only makes it faster.

use crate::node::Node;
use crate::tree::Vital;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use sotto_protocol::Timestamp;
use sotto_schema::StoreError;
use sotto_schema::append::Wake;
use std::collections::HashMap;
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
        let work = async move {
            if prune {
                store.prune_wakes(Timestamp::now().minus(WAKES_LIVE)).await?;
            }
            store.wakes_since(position).await
        };
        ctx.spawn(work.into_actor(self).map(|found, sweep, _| sweep.found(found)));
    }

    fn found(&mut self, found: Result<(Vec<Wake>, i64), StoreError>) {
        self.busy = false;
        let (wakes, position) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the wakes could not be read; trying again");
                return;
            }
        };
        if self.last.elapsed() > WAKES_LIVE {
            tracing::warn!("no wake was read for longer than they live: all backlogs are read again");
            self.node.read_all_again();
        }
        self.last = Instant::now();
        self.position = position;
        self.node.swept();
        let mut conversations = HashMap::new();
        let mut users = HashMap::new();
        let mut members = HashMap::new();
        for wake in wakes {
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
        let wake = Wake {
            conversations: conversations.into_iter().map(|(id, (seq, receipts))| (id, seq, receipts)).collect(),
            users: users.into_iter().collect(),
        };
        for (id, seq) in members {
            self.node.members_moved(id, seq);
        }
        self.node.wake(&wake, false);
        self.node.repair();
    }
}

impl Actor for Sweep {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sweep(ctx);
        ctx.run_interval(EVERY, Self::sweep);
    }
}
