//! How long something took, as a histogram.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Durations from a microsecond on, two digits exact.
pub struct Times(Mutex<Option<Histogram<u64>>>);

impl Times {
    /// None yet.
    pub fn new() -> Self {
        Self(Mutex::new(Histogram::new(2).ok()))
    }

    /// Takes one in.
    pub fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(histogram) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // It grows as it must.
            let _beyond_all_bounds = histogram.record(micros.max(1));
        }
    }

    /// So many percent took at most so many milliseconds; `None` of none.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = times.as_ref().filter(|histogram| !histogram.is_empty())?;
        Some(Duration::from_micros(histogram.value_at_percentile(percent)).as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let times = Times::new();
        assert_eq!(times.percentile(50.0), None);
        for millis in 1..=100 {
            times.record(Duration::from_millis(millis));
        }
        let half = times.percentile(50.0).unwrap();
        assert!((49.0..52.0).contains(&half), "{half}");
        assert!(times.percentile(99.0).unwrap() >= 98.0);
    }
}
