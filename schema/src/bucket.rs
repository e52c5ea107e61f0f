//! A bucket that empties by what is taken and fills again with time, kept as the one moment at which it will be full.

use sotto_protocol::Timestamp;
use std::time::Duration;

/// Takes the amount that refills in the time `cost`, from a bucket that fills in the time `span`. Returns the moment at which
/// the bucket will be full again, or how long to wait until there is enough in it.
///
/// More than the whole bucket is never asked for: such a cost counts as the whole.
pub(crate) fn take(full_at: Timestamp, cost: Duration, span: Duration, now: Timestamp) -> Result<Timestamp, Duration> {
    let after = full_at.max(now).plus(cost.min(span));
    match after.since(now).checked_sub(span) {
        None | Some(Duration::ZERO) => Ok(after),
        Some(missing) => Err(missing),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: Duration = Duration::from_secs(3600);

    #[test]
    fn a_full_bucket_gives_all_at_once_and_then_by_and_by() {
        let now = Timestamp::from_millis(1_000_000);
        let full = Timestamp::default();
        let empty = take(full, SPAN, SPAN, now).unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(take(empty, minute, SPAN, now), Err(minute));
        assert!(take(empty, minute, SPAN, now.plus(minute)).is_ok());
        // One who asks for more than there ever is gets it from a full bucket.
        assert_eq!(take(full, SPAN * 5, SPAN, now), Ok(empty));
        assert_eq!(take(empty, SPAN * 5, SPAN, now), Err(SPAN));
    }

    proptest! {
        #[test]
        fn no_span_gives_more_than_two_buckets(steps in prop::collection::vec((0..600_u64, 1..4000_u64), 1..100)) {
            let mut now = Timestamp::from_millis(1_000_000_000);
            let (mut full_at, mut taken) = (Timestamp::default(), Vec::new());
            for (pause, cost) in steps {
                now = now.plus(Duration::from_secs(pause));
                let cost = Duration::from_secs(cost);
                match take(full_at, cost, SPAN, now) {
                    Ok(next) => {
                        full_at = next;
                        taken.push((now, cost.min(SPAN)));
                    }
                    // Who waits as long as he is told is let in.
                    Err(wait) => prop_assert!(take(full_at, cost, SPAN, now.plus(wait)).is_ok()),
                }
            }
            for (from, _) in &taken {
                let within = taken.iter().filter(|(at, _)| at >= from && at.since(*from) < SPAN);
                prop_assert!(within.map(|(_, cost)| *cost).sum::<Duration>() <= SPAN * 2);
            }
        }
    }
}
