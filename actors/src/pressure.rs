//! How many messages of this node are on their way into the database, and when that is too many.
//!
//! What waits longer than a few seconds is refused when its turn comes, and was waited for in vain: its client has given
//! up or asks again. So a message is let in only while little waits by the speed that the Journals have under load: half a
//! second's work, or an eighth where that is thousands. More would not be written sooner, and what has left the
//! processor's caches by its turn costs more. The others are refused at the door, where it costs least, and hear when to
//! come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Messages that may wait while nothing is known of the speed, and by which it is told whether many do.
const MANY: usize = 4096;
/// However slow or fast the database is.
const LEAST: usize = 256;
const MOST: usize = 131_072;
/// A transaction with fewer messages says little of the speed under load: it would have taken more in about the same time.
const TELLING: usize = 64;
/// What may wait, in microseconds of the Journals' work.
const WORK: usize = 500_000;
/// The same where it is many messages.
const WORK_OF_MANY: usize = WORK / 4;
/// So many at once are few: each may have a transaction to itself.
const LIGHT: usize = 8;
/// Each transaction moves what is known by one part in so many: one stall is no slow database, one quick one no fast one.
const PARTS: usize = 16;

/// The messages on their way. Clones are the same.
#[derive(Clone, Debug)]
pub struct Pressure(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: AtomicUsize,
    /// Messages that may wait.
    room: AtomicUsize,
    journals: usize,
}

/// A message on its way, for as long as this lives.
#[derive(Debug)]
pub struct Permit(Arc<Inner>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pressure {
    /// None on their way to so many Journals.
    #[must_use]
    pub fn new(journals: usize) -> Self {
        let room = AtomicUsize::new(MANY);
        Self(Arc::new(Inner { waiting: AtomicUsize::new(0), room, journals: journals.max(1) }))
    }

    /// Lets a message in; `None`: too many wait.
    #[must_use]
    pub fn enter(&self) -> Option<Permit> {
        let before = self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(&self.0));
        let has_room = before < self.0.room.load(Ordering::Relaxed);
        if !has_room {
            metrics::counter!("sotto_overload_refused_total").increment(1);
        }
        has_room.then_some(permit)
    }

    /// Whether there are so few that little is gained by gathering them.
    #[must_use]
    pub fn is_light(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) <= LIGHT
    }

    /// Whether more than half of what is let in is on its way.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > self.0.room.load(Ordering::Relaxed) / 2
    }

    /// A Journal has written so many messages in one transaction, and more were waiting.
    pub fn note(&self, written: usize, took: Duration) {
        if written < TELLING {
            return;
        }
        let micros = usize::try_from(took.as_micros()).unwrap_or(usize::MAX).max(1);
        let in_time = |work| written.saturating_mul(work).saturating_mul(self.0.journals) / micros;
        let room = in_time(WORK).min(MANY).max(in_time(WORK_OF_MANY)).clamp(LEAST, MOST);
        // Two Journals at the same time: one of them is not counted, which does no harm.
        let known = self.0.room.load(Ordering::Relaxed);
        self.0.room.store(known - known / PARTS + room / PARTS, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter_all(pressure: &Pressure) -> Vec<Permit> {
        std::iter::from_fn(|| pressure.enter()).take(2 * MOST).collect()
    }

    #[test]
    fn who_is_refused_takes_no_room_and_who_leaves_makes_some() {
        let pressure = Pressure::new(1);
        let mut permits = enter_all(&pressure);
        assert_eq!(permits.len(), MANY);
        assert!(pressure.enter().is_none() && pressure.enter().is_none());
        permits.pop();
        let last = pressure.enter();
        assert!(last.is_some() && pressure.enter().is_none());
        drop((permits, last));
        assert_eq!(enter_all(&pressure).len(), MANY);
    }

    #[test]
    fn eight_on_their_way_are_few_and_nine_are_not() {
        let pressure = Pressure::new(1);
        let mut permits: Vec<_> = (0..LIGHT).filter_map(|_| pressure.enter()).collect();
        assert!(permits.len() == LIGHT && pressure.is_light());
        permits.extend(pressure.enter());
        assert!(!pressure.is_light());
        permits.pop();
        assert!(pressure.is_light());
    }

    #[test]
    fn more_than_half_of_the_room_is_heavy() {
        let pressure = Pressure::new(1);
        let mut permits: Vec<_> = (0..MANY / 2).filter_map(|_| pressure.enter()).collect();
        assert!(!pressure.is_heavy());
        permits.extend(pressure.enter());
        assert!(pressure.is_heavy());
    }

    #[test]
    fn the_room_becomes_what_is_written_in_half_a_second_or_of_many_in_an_eighth_within_bounds() {
        for (written, millis, journals, room) in [
            (500, 10, 1, 6250),
            (500, 25, 4, 10_000),
            (500, 25, 1, MANY),
            (512, 200, 1, 1280),
            (512, 500, 1, 512),
            (64, 5000, 1, LEAST),
            (512, 1, 16, MOST),
        ] {
            let pressure = Pressure::new(journals);
            for _ in 0..200 {
                pressure.note(written, Duration::from_millis(millis));
            }
            let found = enter_all(&pressure).len();
            assert!(found.abs_diff(room) <= PARTS, "{written} in {millis} ms: {found}");
        }
        let pressure = Pressure::new(1);
        (0..100).for_each(|_| pressure.note(1, Duration::from_micros(700)));
        assert_eq!(enter_all(&pressure).len(), MANY, "lone messages say nothing");
        pressure.note(512, Duration::from_secs(20));
        assert!(enter_all(&pressure).len() > MANY * 9 / 10, "one stall is no slow database");
    }
}
