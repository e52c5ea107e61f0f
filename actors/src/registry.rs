//! Who is where: which device is connected on which node, by which connection.
//!
//! The registry only hastens. Losing it loses nothing: every node sweeps the wakes (rule D1). This is the
//! contract; one file per backend stands beside it.

use crate::node::Node;
use serde::{Deserialize, Serialize};
use sotto_protocol::{DeviceId, SessionId, UserId};
use uuid::Uuid;

pub mod local;
mod redis;

pub use redis::RedisRegistry;

/// One life of a node, from its start to its end: what comes back under the same name is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub Uuid);

impl Incarnation {
    /// For a node that starts now.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }
}

/// A device's connection at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Whose device.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Its connection.
    pub connection: SessionId,
    /// The connection's number, claimed in the database (rule D7).
    pub attempt: i64,
}

/// The number that an `attempt` stands for in the order of a device's connections (rule D7). Between two of them
/// there is room for connections without one, to which the server gives the next number: they must not use up the
/// number that the device itself will count to next.
#[must_use]
pub const fn connection_number(attempt: i64) -> i64 {
    attempt.saturating_add(1).saturating_mul(512)
}

/// Whether the device has counted a connection's number itself.
#[must_use]
pub const fn is_counted(number: i64) -> bool {
    number % 512 == 0
}

/// A backend of the registry.
#[derive(Debug)]
pub enum Registry {
    /// One node: everybody is here.
    Local(local::LocalRegistry),
    /// Several: who is here stands in Redis, too.
    Redis(RedisRegistry),
}

impl Registry {
    fn here(&self) -> &local::LocalRegistry {
        match self {
            Self::Local(local) => local,
            Self::Redis(redis) => redis.here(),
        }
    }

    /// Starts what keeps the registrations of this node alive, on the calling arbiter.
    pub fn start(&self, node: &Node) {
        if let Self::Redis(redis) = self {
            redis.start(node);
        }
    }

    /// Notes a device's connection; a lower number never replaces a higher one (rule D7). Returns whether
    /// this connection is the device's newest here.
    pub fn register(&self, registration: Registration) -> bool {
        self.here().register(registration)
    }

    /// Makes a registration known to the other nodes. Returns when it is, or when that does not work: what is read
    /// afterwards misses nothing that they send (rule D3).
    pub async fn announce(&self, registration: Registration) {
        if let Self::Redis(redis) = self {
            redis.announce(registration).await;
        }
    }

    /// Forgets a device's connection, if it is still the one that is named.
    pub fn unregister(&self, registration: Registration) {
        self.here().unregister(registration.device, registration.connection);
        if let Self::Redis(redis) = self {
            redis.withdraw(registration);
        }
    }

    /// Makes all registrations of this node known again, soon.
    pub fn renew(&self) {
        if let Self::Redis(redis) = self {
            redis.renew();
        }
    }

    /// Returns when nothing waits to be made known or withdrawn.
    pub async fn settle(&self) {
        if let Self::Redis(redis) = self {
            redis.settle().await;
        }
    }

    /// Whether a registration that this node makes up is found where the others would look. One node alone looks nowhere.
    pub async fn canary(&self, number: u64) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Redis(redis) => redis.canary(number).await == Ok(true),
        }
    }

    /// All devices that are connected here.
    #[must_use]
    pub fn all(&self) -> Vec<Registration> {
        self.here().all()
    }

    /// How many devices are connected here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.here().len()
    }

    /// Whether no device is connected here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
