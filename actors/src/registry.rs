//! Who is where: which device is connected on which node, by which connection.
//!
//! The registry only hastens. Losing it loses nothing: every node sweeps the wakes (rule D1). This is the
//! contract; one file per backend stands beside it.

use sotto_protocol::{DeviceId, SessionId, UserId};

pub mod local;

/// A backend of the registry.
#[derive(Debug)]
pub enum Registry {
    /// One node: everybody is here.
    Local(local::LocalRegistry),
}

impl Registry {
    /// Notes a device's connection; a lower `attempt` never replaces a higher one (rule D7). Returns whether
    /// this connection is the device's newest.
    pub fn register(&self, user: UserId, device: DeviceId, connection: SessionId, attempt: i64) -> bool {
        match self {
            Self::Local(local) => local.register(user, device, connection, attempt),
        }
    }

    /// Forgets a device's connection, if it is still the one that is named.
    pub fn unregister(&self, device: DeviceId, connection: SessionId) {
        match self {
            Self::Local(local) => local.unregister(device, connection),
        }
    }

    /// How many devices are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Local(local) => local.len(),
        }
    }

    /// Whether no device is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a device is connected anywhere.
    #[must_use]
    pub fn is_connected(&self, device: DeviceId) -> bool {
        match self {
            Self::Local(local) => local.is_connected(device),
        }
    }
}
