//! The ledger of sessions that were ended: within 5 seconds nobody is served by their tokens, on any node.

use std::collections::HashMap;
use std::time::Duration;

use sotto_client::protocol::{DeviceId, close};

use crate::findings::{Findings, Promise};

/// Until then every node has heard of it.
pub const GRACE: Duration = Duration::from_secs(5);

/// How a socket of the device ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this close code.
    Code(u16),
    /// Without a close frame: its node or the way to it has died.
    Broken,
}

/// What was seen of a session that was ended. Moments are counted from the 204.
#[derive(Clone, Copy, Debug)]
pub enum SessionNote {
    /// The 204.
    Revoked {
        /// The device.
        device: DeviceId,
    },
    /// A request with its token was served.
    Served {
        /// The device.
        device: DeviceId,
        /// When the request was begun.
        begun: Duration,
    },
    /// Its socket did something: an answer, an event.
    Spoke {
        /// The device.
        device: DeviceId,
        /// When what it answered was sent.
        begun: Duration,
    },
    /// Its socket ended.
    Closed {
        /// The device.
        device: DeviceId,
        /// How.
        ending: Ending,
    },
}

/// All sessions of a run that were ended.
#[derive(Default)]
pub struct SessionBook {
    /// Whether the device is dead, as far as we have seen: one finding for each.
    devices: HashMap<DeviceId, bool>,
    findings: Findings,
}

/// Judges notes about sessions.
#[must_use]
pub fn check_sessions(notes: impl IntoIterator<Item = SessionNote>) -> Findings {
    let mut book = SessionBook::default();
    for note in notes {
        book.note(note);
    }
    book.findings().clone()
}

impl SessionBook {
    /// Writes a note and judges it.
    pub fn note(&mut self, note: SessionNote) {
        match note {
            SessionNote::Revoked { device } => {
                self.devices.insert(device, true);
            }
            SessionNote::Served { device, begun } if begun >= GRACE => {
                self.alive(device, || format!("{device} was served {} ms after its sign-out", begun.as_millis()));
            }
            SessionNote::Spoke { device, begun } if begun >= GRACE => {
                self.alive(device, || format!("{device} has a socket {} ms after its sign-out", begun.as_millis()));
            }
            SessionNote::Closed { device, ending: Ending::Code(code) } if !is_right(code) => {
                self.alive(device, || format!("the socket of {device} was closed with {code}, not 4503"));
            }
            SessionNote::Served { .. } | SessionNote::Spoke { .. } | SessionNote::Closed { .. } => {}
        }
    }

    fn alive(&mut self, device: DeviceId, text: impl FnOnce() -> String) {
        if let Some(is_dead) = self.devices.get_mut(&device).filter(|is_dead| **is_dead) {
            *is_dead = false;
            self.findings.add(Promise::SessionAlive, text);
        }
    }

    /// How many sessions were ended.
    #[must_use]
    pub fn revoked(&self) -> usize {
        self.devices.len()
    }

    /// Whether a device was served when it should not have been.
    #[must_use]
    pub fn is_alive(&self, device: DeviceId) -> bool {
        self.devices.get(&device) == Some(&false)
    }

    /// What was found so far.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }
}

/// 4503, or a node that went down at the same time.
const fn is_right(code: u16) -> bool {
    code == close::DEVICE_REVOKED || code <= close::DRAINING
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: DeviceId = DeviceId(uuid::Uuid::from_u128(10));

    fn revoked(notes: &[SessionNote]) -> u64 {
        let notes = [SessionNote::Revoked { device: ANN }].into_iter().chain(notes.iter().copied());
        check_sessions(notes).count(Promise::SessionAlive)
    }

    fn served(millis: u64) -> SessionNote {
        SessionNote::Served { device: ANN, begun: Duration::from_millis(millis) }
    }

    #[test]
    fn a_session_that_ends_in_time_is_clean() {
        let closed = |ending| SessionNote::Closed { device: ANN, ending };
        assert_eq!(revoked(&[served(20), served(4_999), closed(Ending::Code(4503))]), 0);
        assert_eq!(revoked(&[SessionNote::Spoke { device: ANN, begun: Duration::from_millis(4_000) }]), 0);
        // Its node died or drained before it could say so.
        assert_eq!(revoked(&[closed(Ending::Broken)]), 0);
        assert_eq!(revoked(&[closed(Ending::Code(4000))]), 0);
    }

    #[test]
    fn a_session_that_lives_on_is_found_once() {
        assert_eq!(revoked(&[served(5_000), served(6_000)]), 1);
        assert_eq!(revoked(&[SessionNote::Spoke { device: ANN, begun: Duration::from_millis(5_200) }]), 1);
        assert_eq!(revoked(&[SessionNote::Closed { device: ANN, ending: Ending::Code(4509) }]), 1);
        assert_eq!(check_sessions([served(9_000)]).count(Promise::SessionAlive), 0, "nobody ended it");
    }
}
