//! Admission control for connections: limits their total number and the number per network.
//!
//! A connection gets a [`Place`] before any memory is kept for it, and holds the place until it ends, also after it has become
//! a socket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Limits on the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most connections at once.
    pub most: usize,
    /// Most connections of one network at once.
    pub per_network: usize,
}

/// The connections of a listener. Clones are the same.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: ConnectionLimits,
    count: AtomicUsize,
    networks: Mutex<HashMap<IpAddr, usize>>,
}

/// The limit that refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The limit of all connections is reached.
    Node,
    /// The limit of the connection's network is reached.
    Network,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self(Arc::new(Inner { limits, count: AtomicUsize::new(0), networks: Mutex::default() }))
    }

    /// Admits one more connection. `network` is its network, as one address; with `None` the network is not known yet, and the
    /// connection counts against no network.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn enter(&self, network: Option<IpAddr>) -> Result<Place, Full> {
        let before = self.0.count.fetch_add(1, Ordering::Relaxed);
        // From here on the place gives back what was counted.
        let mut place = Place { connections: self.clone(), network: None };
        if before >= self.0.limits.most {
            return Err(Full::Node);
        }
        if let Some(network) = network {
            place.belongs_to(network)?;
        }
        Ok(place)
    }

    /// Whether more than three quarters of the room is taken.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        let limits = &self.0.limits;
        self.0.count.load(Ordering::Relaxed) > limits.most - limits.most / 4
    }

    fn networks(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place. Dropped, it is free.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    network: Option<IpAddr>,
}

impl Place {
    /// Counts the connection for this network from now on.
    ///
    /// # Errors
    /// The network has as many as it may; the connection counts as before.
    pub fn belongs_to(&mut self, network: IpAddr) -> Result<(), Full> {
        if self.network == Some(network) {
            return Ok(());
        }
        let mut networks = self.connections.networks();
        let count = networks.entry(network).or_default();
        // An entry is made with the first one, and a limit is at least 1: none stays behind empty.
        if *count >= self.connections.0.limits.per_network.max(1) {
            return Err(Full::Network);
        }
        *count += 1;
        if let Some(before) = self.network.replace(network) {
            leave(&mut networks, before);
        }
        Ok(())
    }

    /// Counts the connection for no network any more: who holds it is known, and has limits as a user.
    pub fn is_known(&mut self) {
        if let Some(network) = self.network.take() {
            leave(&mut self.connections.networks(), network);
        }
    }

    /// The connections that it is one of.
    #[must_use]
    pub const fn connections(&self) -> &Connections {
        &self.connections
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.0.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(network) = self.network {
            leave(&mut self.connections.networks(), network);
        }
    }
}

fn leave(networks: &mut HashMap<IpAddr, usize>, network: IpAddr) {
    if let Some(count) = networks.get_mut(&network) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            networks.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_moved() {
        let network = |last: u8| IpAddr::from([192, 0, 2, last]);
        let connections = Connections::new(ConnectionLimits { most: 4, per_network: 2 });
        let first = connections.enter(Some(network(1))).unwrap();
        let second = connections.enter(Some(network(1))).unwrap();
        assert_eq!(connections.enter(Some(network(1))).unwrap_err(), Full::Network);
        let mut proxied = connections.enter(None).unwrap();
        assert_eq!(proxied.belongs_to(network(1)), Err(Full::Network));
        assert_eq!(proxied.belongs_to(network(2)), Ok(()));
        assert_eq!(proxied.belongs_to(network(2)), Ok(()), "it is counted once");
        assert!(!connections.is_pressed());
        let fourth = connections.enter(Some(network(2))).unwrap();
        assert!(connections.is_pressed());
        assert_eq!(connections.enter(Some(network(3))).unwrap_err(), Full::Node);
        drop(first);
        assert_eq!(proxied.belongs_to(network(1)), Ok(()), "there is room again");
        drop((second, proxied, fourth));
        assert!(connections.networks().is_empty());
        assert_eq!(connections.0.count.load(Ordering::Relaxed), 0);
    }
}
