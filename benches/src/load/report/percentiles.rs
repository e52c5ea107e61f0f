//! The curve of a latency: how long the fastest 50 % … 99.999 % took, read from its histogram.

use std::io::Cursor;

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{Histogram, serialization::Deserializer};

use super::super::number::float;

/// How many points a factor of ten has.
const STEPS: u32 = 20;
/// The curve ends at 99.999 %.
const NINES: u32 = 5;

/// Where the curve is read, as the number of nines: 1 is 90 %, 2 is 99 %. Median first.
pub fn nines() -> Vec<f64> {
    let median = std::f64::consts::LOG10_2;
    let steps = (0..=STEPS * NINES).map(|step| f64::from(step) / f64::from(STEPS)).filter(|nines| *nines > median);
    std::iter::once(median).chain(steps).collect()
}

/// The histogram of microseconds in a summary; none when it cannot be read.
pub fn histogram(hdr: &str) -> Option<Histogram<u64>> {
    let bytes = STANDARD.decode(hdr).ok()?;
    Deserializer::new().deserialize(&mut Cursor::new(bytes)).ok()
}

/// Milliseconds at each place of [`nines`]. None where fewer than one value lies beyond: nothing was measured there.
pub fn curve(histogram: &Histogram<u64>) -> Vec<Option<f64>> {
    nines()
        .into_iter()
        .map(|nines| {
            let beyond = 10_f64.powf(-nines);
            // A hair of room: that one of a thousand lies beyond 99.9 % must not fail on the last bit.
            let is_measured = beyond * float(histogram.len()) >= 1.0 - 1e-9;
            is_measured.then(|| float(histogram.value_at_quantile(1.0 - beyond)) / 1000.0)
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

    use super::*;

    /// A histogram as a summary has it.
    pub fn encoded(histogram: &Histogram<u64>) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut bytes).unwrap();
        STANDARD.encode(bytes)
    }

    fn at(curve: &[Option<f64>], nines: f64) -> Option<f64> {
        let place = super::nines().iter().position(|place| (place - nines).abs() < 1e-9).unwrap();
        curve[place]
    }

    #[test]
    fn the_percentiles_of_a_known_histogram_come_out_right() {
        // 1 to 10,000 µs, each once: the percentile p is p times 100 µs.
        let mut known = Histogram::<u64>::new(3).unwrap();
        for micros in 1..=10_000 {
            known.record(micros).unwrap();
        }
        let curve = curve(&histogram(&encoded(&known)).unwrap());
        for (nines, expected) in [(std::f64::consts::LOG10_2, 5.0), (1.0, 9.0), (2.0, 9.9), (3.0, 9.99), (4.0, 9.999)] {
            let found = at(&curve, nines).unwrap();
            assert!((found - expected).abs() / expected < 0.001, "{nines} nines: {found} ms");
        }
    }

    #[test]
    fn the_curve_ends_where_nothing_was_measured() {
        let mut few = Histogram::<u64>::new(3).unwrap();
        few.record_n(2000, 1000).unwrap();
        let curve = curve(&few);
        assert_eq!(at(&curve, 3.0), Some(2.0));
        assert_eq!(at(&curve, 4.0), None);
        assert_eq!(at(&curve, 5.0), None);
        assert!(super::curve(&Histogram::new(3).unwrap()).iter().all(Option::is_none));
    }

    #[test]
    fn what_is_no_histogram_is_none() {
        for hdr in ["", "no base64", "AAAA"] {
            assert!(histogram(hdr).is_none(), "{hdr}");
        }
    }
}
