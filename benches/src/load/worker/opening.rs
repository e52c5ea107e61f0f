//! How a generator thread connects its devices, and how it lets go of them.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Token;

use super::{By, Worker};
use crate::load::LoadError;
use crate::load::device::{Device, Stage};
use crate::load::link::Link;
use crate::load::number::count;
use crate::load::wire::{Content, Opening, Protocol};

/// How long a connection may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

impl Worker {
    /// Where a device connects to, from where, and as whom.
    fn opening(&self, index: usize) -> Option<(SocketAddr, Option<IpAddr>, Opening)> {
        let members = self.shared.members.max(1);
        let start = index - index % members;
        let place = if members == 1 { self.number(index) } else { index % members };
        let addresses = &self.shared.addresses;
        let (address, host) = addresses.get(self.only.unwrap_or(place) % addresses.len().max(1))?;
        let source = self.shared.sources.get(index % self.shared.sources.len().max(1)).copied();
        // A shared ciphertext names nobody; of a pair the other one is told in any case, for protocols that address people.
        let names_others = members == 2 || self.shared.content == Content::Envelopes;
        let is_named = |other: &usize| names_others && *other != index;
        let others = (start..start + members).filter(is_named).filter_map(|other| self.devices.get(other));
        let others: Vec<_> = others.map(|device| Rc::clone(&device.user)).collect();
        let opening = Opening {
            host: host.as_str().into(),
            user: Rc::clone(&self.devices.get(index)?.user),
            others: others.into(),
            content: self.shared.content,
            seed: self.seed.wrapping_add(count(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        Some((*address, source, opening))
    }

    /// Begins to connect a device.
    ///
    /// # Errors
    /// When the system has no socket left, which no waiting helps.
    pub fn open(&mut self, index: usize) -> Result<(), LoadError> {
        let Some((address, source, opening)) = self.opening(index) else { return Ok(()) };
        let protocol = self.shared.protocol;
        let wire = match self.by {
            By::Socket => protocol.wire(opening),
            By::Sync => protocol.sync(&opening).ok_or_else(|| no_requests(protocol))?,
        };
        let link = Link::connect(address, source, wire, self.poll.registry(), Token(index))
            .map_err(|error| LoadError::System(format!("cannot connect to {address}: {error}")))?;
        if let Some(device) = self.devices.get_mut(index) {
            device.begin(link, Instant::now());
        }
        Ok(())
    }

    /// The connection for a device's requests; it may have been ended for want of use.
    pub(super) fn open_rest(&mut self, index: usize) -> Result<(), LoadError> {
        if self.devices.get(index).is_none_or(|device| device.rest.is_some()) {
            return Ok(());
        }
        let Some((address, source, opening)) = self.opening(index) else { return Ok(()) };
        let protocol = self.shared.protocol;
        let wire = protocol.rest(opening).ok_or_else(|| no_requests(protocol))?;
        let token = Token(self.devices.len() + index);
        let link = Link::connect(address, source, wire, self.poll.registry(), token)
            .map_err(|error| LoadError::System(format!("cannot connect to {address}: {error}")))?;
        if let Some(device) = self.devices.get_mut(index) {
            device.rest = Some(link);
        }
        Ok(())
    }

    /// Connects devices, so many at the same time, until each is here or has failed; those that failed are away.
    ///
    /// # Errors
    /// As [`Worker::open`] and [`Worker::turn`].
    pub fn open_all(&mut self, devices: impl IntoIterator<Item = usize>, at_once: usize) -> Result<(), LoadError> {
        let mut waiting = devices.into_iter();
        let mut connecting = 0;
        loop {
            while connecting < at_once && !self.shared.gate.is_stopped() {
                let Some(next) = waiting.next() else { break };
                self.open(next)?;
                connecting += 1;
            }
            if connecting == 0 {
                return Ok(());
            }
            self.turn(Instant::now() + Duration::from_millis(500))?;
            connecting -= self.arrived.len() + self.ended.len();
            self.give_up_connecting();
        }
    }

    /// Ends the attempts that have taken too long.
    pub fn give_up_connecting(&mut self) {
        let now = Instant::now();
        let is_late = |device: &Device| {
            matches!(device.stage, Stage::Connecting | Stage::Reading) && now > device.since + PATIENCE
        };
        let late: Vec<_> =
            self.devices.iter().enumerate().filter(|(_, device)| is_late(device)).map(|(index, _)| index).collect();
        for index in late {
            self.lose(index, "connect_timeout", "no answer within 30 s");
        }
    }

    /// Cuts a connection without a goodbye.
    pub fn cut(&mut self, index: usize) {
        if let Some(device) = self.devices.get_mut(index)
            && device.link.take().is_some()
        {
            if device.stage == Stage::Here {
                self.connections -= 1;
            }
            device.stage = Stage::Away;
        }
    }

    /// Says goodbye; the device is away when the server has answered.
    pub fn close(&mut self, index: usize) {
        if let Some(device) = self.devices.get_mut(index)
            && let Some(link) = &mut device.link
        {
            if device.stage == Stage::Here {
                self.connections -= 1;
            }
            device.stage = Stage::Leaving;
            let (wire, out) = link.wire();
            wire.close(out);
            self.flush(index);
        }
    }
}

fn no_requests(protocol: Protocol) -> LoadError {
    LoadError::Settings(format!("{} is not spoken by requests", protocol.name()))
}
