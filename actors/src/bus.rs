//! From node to node: what was committed here is told to the nodes where its readers are.
//!
//! The bus only hastens, like the registry: whatever it loses, the sweep brings. This is the contract; one file per
//! backend stands beside it. A single node has nobody to tell.

pub mod event;
mod redis;
pub mod seal;

pub use redis::RedisBus;

use crate::node::Node;
use event::{Event, Parcel, Receivers};
use sotto_protocol::UserId;

/// A backend of the bus.
#[derive(Debug)]
pub enum Bus {
    /// One node: there is nobody else.
    Local,
    /// Other nodes, by way of Redis.
    Redis(RedisBus),
}

impl Bus {
    /// Begins to send and to hear, on the calling arbiter. Returns when others are heard, or after 2 s without.
    pub async fn start(&self, node: &Node) {
        if let Self::Redis(bus) = self {
            bus.start(node).await;
        }
    }

    /// Tells the other nodes where these users are. `users` and `event` are asked for only if there is anybody.
    pub fn tell(&self, users: impl FnOnce() -> Vec<UserId>, event: impl FnOnce() -> Event) {
        if let Self::Redis(bus) = self
            && bus.has_peers()
        {
            bus.post(Parcel { to: Receivers::Users(users()), event: event() });
        }
    }

    /// Tells one node, even this one.
    pub fn tell_node(&self, parcel: Parcel) {
        if let Self::Redis(bus) = self {
            bus.post(parcel);
        }
    }

    /// How many other nodes there are: with none, nobody is looked for.
    pub fn set_peers(&self, count: usize) {
        if let Self::Redis(bus) = self {
            bus.set_peers(count);
        }
    }

    /// Whether letters come in; `None`: nobody could send any.
    #[must_use]
    pub fn hears(&self) -> Option<bool> {
        match self {
            Self::Local => None,
            Self::Redis(bus) => Some(bus.hears()),
        }
    }
}
