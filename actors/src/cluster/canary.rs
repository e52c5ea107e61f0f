//! Canaries: signs of life that a node sends itself and others, and what it concludes when they stay away (rule D15).

use crate::registry::Incarnation;
use sotto_protocol::UserId;
use sotto_schema::append::Wake;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// So many canaries in a row that did not arrive make a path bad.
const MISSES: u32 = 3;
/// So does silence for so long.
const SILENCE: Duration = Duration::from_secs(15);
/// The first entry of a wake that is a canary: an id that no user has. A node that does not know it looks for a session
/// of that user, finds none, and is done.
const MARK: UserId = UserId(Uuid::from_u128(0xffff_ffff_ffff_4fff_bfff_6361_6e61_7279));

/// A way that news takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// From the database back to this node: what it commits is read by its own sweep.
    WakeLoop,
    /// To another node's sweep and back by one's own.
    WakePeer,
    /// Through the bus back to this node.
    BusLoop,
    /// Through the bus to another node and back.
    BusPeer,
    /// A registration is written and looked up.
    Registry,
}

impl Path {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::WakeLoop, Self::WakePeer, Self::BusLoop, Self::BusPeer, Self::Registry];

    /// The word for it in `/health`, in metrics and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WakeLoop => "wake_loop",
            Self::WakePeer => "wake_peer",
            Self::BusLoop => "bus_loop",
            Self::BusPeer => "bus_peer",
            Self::Registry => "registry",
        }
    }

    /// The path by which a node proves that its own half of this one works.
    pub(super) const fn own_half(self) -> Option<Self> {
        match self {
            Self::WakePeer => Some(Self::WakeLoop),
            Self::BusPeer => Some(Self::BusLoop),
            Self::WakeLoop | Self::BusLoop | Self::Registry => None,
        }
    }
}

/// What is known of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    since: Instant,
    asked: Option<(u64, Instant)>,
    arrived: Option<Instant>,
    took: Option<Duration>,
    missed: u32,
}

impl Watch {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, asked: None, arrived: None, took: None, missed: 0 }
    }

    /// A canary is sent; one that is still away counts as missed.
    pub(super) fn send(&mut self, number: u64, now: Instant) {
        self.miss();
        self.asked = Some((number, now));
    }

    /// The canary that is away will not come.
    pub(super) fn miss(&mut self) {
        if self.asked.take().is_some() {
            self.missed = self.missed.saturating_add(1);
        }
    }

    /// A canary has arrived; `None`: it is not the one that is waited for.
    pub(super) fn arrive(&mut self, number: u64, now: Instant) -> Option<Duration> {
        let (_, sent) = self.asked.take_if(|(asked, _)| *asked == number)?;
        let took = now.saturating_duration_since(sent);
        (self.arrived, self.took, self.missed) = (Some(now), Some(took), 0);
        Some(took)
    }

    /// Whether this number is waited for.
    pub(super) fn awaits(&self, number: u64) -> bool {
        self.asked.is_some_and(|(asked, _)| asked == number)
    }

    /// Canaries in a row that did not arrive.
    #[must_use]
    pub const fn missed(&self) -> u32 {
        self.missed
    }

    /// When the last one arrived.
    #[must_use]
    pub const fn arrived(&self) -> Option<Instant> {
        self.arrived
    }

    /// How long the last one took that arrived.
    #[must_use]
    pub const fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Whether the path counts as open: not three missed in a row, nor none for 15 seconds.
    #[must_use]
    pub fn is_well(&self, now: Instant) -> bool {
        self.is_answered() && now.saturating_duration_since(self.arrived.unwrap_or(self.since)) < SILENCE
    }

    /// Whether one of the last three canaries arrived, or fewer were sent.
    pub(super) const fn is_answered(&self) -> bool {
        self.missed < MISSES
    }

    /// How far the path lags: the time of the last canary, or of the one that is away if that is longer already.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        let away = self.asked.map_or(Duration::ZERO, |(_, sent)| now.saturating_duration_since(sent));
        away.max(self.took.unwrap_or_default())
    }
}

/// A canary in the form of a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeCanary {
    /// Who sent it first.
    pub from: Incarnation,
    /// Whose sweep is to read it.
    pub to: Incarnation,
    /// Its number.
    pub number: u64,
    /// Whether it is on its way back.
    pub returns: bool,
}

impl WakeCanary {
    /// As it is stored.
    #[must_use]
    pub fn to_wake(self) -> Wake {
        let number = i64::try_from(self.number).unwrap_or(i64::MAX);
        Wake::of_users(vec![(MARK, number), (UserId(self.from.0), i64::from(self.returns)), (UserId(self.to.0), 0)])
    }

    /// Reads a wake; `None`: it is no canary.
    #[must_use]
    pub fn of(wake: &Wake) -> Option<Self> {
        let [(MARK, number), (from, returns), (to, _)] = wake.users.as_slice() else {
            return None;
        };
        let number = u64::try_from(*number).ok()?;
        Some(Self { from: Incarnation(from.0), to: Incarnation(to.0), number, returns: *returns != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_in_a_row_or_silence_make_a_path_bad_and_one_arrival_makes_it_good() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert!(watch.is_well(start + SECOND * 14), "nothing is known yet");
        assert!(!watch.is_well(start + SECOND * 15), "nothing ever came");
        for number in 1..=3 {
            watch.send(number, start + SECOND);
            assert!(watch.is_well(start + SECOND), "{number}");
        }
        watch.miss();
        watch.miss();
        assert_eq!((watch.missed(), watch.is_well(start + SECOND)), (3, false));
        watch.send(4, start + SECOND * 2);
        assert_eq!(watch.arrive(3, start + SECOND * 3), None, "too late");
        assert!(watch.awaits(4) && !watch.awaits(3));
        assert_eq!(watch.lag(start + SECOND * 3), SECOND);
        assert_eq!(watch.arrive(4, start + SECOND * 4), Some(SECOND * 2));
        assert_eq!(watch.arrive(4, start + SECOND * 5), None, "once");
        assert!(watch.is_well(start + SECOND * 18) && !watch.is_well(start + SECOND * 19));
    }

    #[test]
    fn a_canary_is_read_from_its_wake_and_no_other_wake_is_one() {
        let canary = WakeCanary { from: Incarnation::fresh(), to: Incarnation::fresh(), number: 7, returns: true };
        let stored = Wake::from_bytes(&canary.to_wake().to_bytes());
        assert_eq!(stored.as_ref().and_then(WakeCanary::of), Some(canary));
        let users = vec![(UserId::random(), 1), (UserId::random(), 0), (UserId::random(), 0)];
        assert_eq!(WakeCanary::of(&Wake::of_users(users)), None);
        assert_eq!(WakeCanary::of(&Wake::default()), None);
    }
}
