//! Two results side by side, and which differences are more than noise.
//!
//! Each figure has samples: the parts of its run, or whole runs where there were several. The difference of the two
//! means is more than noise if it is larger than what Welch's t-test calls chance at 99 % (two samples of unequal
//! spread), and larger than a floor that no repetition removes: parts of one run say nothing about how much another run
//! would differ. A figure with fewer than two samples on a side has no noise to compare with, and only the floor, ten
//! times as high, decides.

use serde::Serialize;

use super::number::{count, float, ratio};
use super::summary::{Better, Figure, Summary, Verdict};

/// The least difference that counts when runs were repeated, as a share.
pub const FLOOR_OF_RUNS: f64 = 0.02;
/// The least difference that counts between single runs, as a share.
pub const FLOOR_OF_PARTS: f64 = 0.05;
/// What the floor is multiplied by where there are no samples to judge by.
const BLIND: f64 = 10.0;

/// What a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Not more than noise.
    Same,
    /// More than noise, in the good direction.
    Better,
    /// More than noise, in the bad direction.
    Worse,
}

/// One figure of two results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its stable name.
    pub name: String,
    /// For people.
    pub title: String,
    /// For people.
    pub unit: String,
    /// In the first result.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// The difference of the samples' means as a share of the first; 0.1 is ten percent more.
    pub difference: f64,
    /// What the difference must exceed, as a share of the first.
    pub noise: f64,
    /// What it is.
    pub change: Change,
}

/// Compares all figures that both have.
///
/// # Errors
/// When they are of different scenarios, or one of them has no figures because its ledger is broken.
pub fn compare(before: &Summary, after: &Summary) -> Result<Vec<Row>, String> {
    if before.scenario != after.scenario {
        return Err(format!("{} and {} are different scenarios", before.scenario, after.scenario));
    }
    if [before, after].iter().any(|summary| summary.verdict == Verdict::Broken) {
        return Err("a ledger does not balance: there are no figures to compare".to_owned());
    }
    let floor = floor(before, after);
    let pairs = before.figures.iter().filter_map(|one| Some((one, after.figure(&one.name)?)));
    Ok(pairs.map(|(one, other)| row(one, other, floor)).collect())
}

/// The least difference that counts between these two, as a share.
pub(super) fn floor(before: &Summary, after: &Summary) -> f64 {
    let is_repeated = |summary: &&Summary| {
        summary.settings.pointer("/target/repeat").and_then(serde_json::Value::as_u64).unwrap_or(1) > 1
    };
    if [before, after].iter().all(is_repeated) { FLOOR_OF_RUNS } else { FLOOR_OF_PARTS }
}

/// Compares one figure; `floor` as [`floor`] gives it.
pub(super) fn row(before: &Figure, after: &Figure, floor: f64) -> Row {
    let is_judged = before.samples.len() > 1 && after.samples.len() > 1;
    // The test is one of means: what is shown may be a median or the whole run's value, which vary differently.
    let (one, other) =
        if is_judged { (mean(&before.samples), mean(&after.samples)) } else { (before.value, after.value) };
    let base = one.abs();
    let noise = match is_judged {
        true => ratio(chance(&before.samples, &after.samples), base).max(floor),
        false => floor * BLIND,
    };
    // From nothing to something is all of it.
    let difference = if base > 0.0 { (other - one) / base } else { other.clamp(-1.0, 1.0) };
    let change = if difference.abs() <= noise {
        Change::Same
    } else if (difference > 0.0) == (before.better == Better::Higher) {
        Change::Better
    } else {
        Change::Worse
    };
    Row {
        name: before.name.clone(),
        title: before.title.clone(),
        unit: before.unit.clone(),
        before: before.value,
        after: after.value,
        difference,
        noise,
        change,
    }
}

/// How far apart the means of two samples may be by chance: 99 % of pairs from one source are nearer.
fn chance(one: &[f64], other: &[f64]) -> f64 {
    let (a, b) = (error(one), error(other));
    let sum = a + b;
    if sum <= 0.0 {
        return 0.0;
    }
    let freedom = |samples: &[f64]| float(count(samples.len().saturating_sub(1))).max(1.0);
    // Welch and Satterthwaite: as many degrees of freedom as a pooled sample of that spread would have.
    let degrees = sum * sum / (a * a / freedom(one) + b * b / freedom(other));
    quantile(degrees) * sum.sqrt()
}

fn mean(samples: &[f64]) -> f64 {
    ratio(samples.iter().sum(), float(count(samples.len())))
}

/// The square of a mean's standard error.
fn error(samples: &[f64]) -> f64 {
    let (length, mean) = (float(count(samples.len())), mean(samples));
    let squares: f64 = samples.iter().map(|sample| (sample - mean) * (sample - mean)).sum();
    squares / (length - 1.0).max(1.0) / length
}

/// Student's t, two-sided at 99 %, for so many degrees of freedom; in between, the next smaller number's.
fn quantile(degrees: f64) -> f64 {
    const TABLE: [(f64, f64); 18] = [
        (1.0, 63.657),
        (2.0, 9.925),
        (3.0, 5.841),
        (4.0, 4.604),
        (5.0, 4.032),
        (6.0, 3.707),
        (7.0, 3.499),
        (8.0, 3.355),
        (9.0, 3.250),
        (10.0, 3.169),
        (12.0, 3.055),
        (14.0, 2.977),
        (16.0, 2.921),
        (18.0, 2.878),
        (20.0, 2.845),
        (30.0, 2.750),
        (60.0, 2.660),
        (120.0, 2.617),
    ];
    let fitting = TABLE.iter().take_while(|(of, _)| *of <= degrees).last();
    fitting.map_or(63.657, |(_, quantile)| *quantile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn figure(samples: Vec<f64>, better: Better) -> Figure {
        let value = crate::load::measured::median(&samples);
        Figure { name: "f".into(), title: "f".into(), unit: String::new(), value, better, samples }
    }

    /// Samples around a middle, up to `spread` (a share) away.
    fn around(middle: f64, spread: f64, dice: &mut Dice) -> Vec<f64> {
        (0..10).map(|_| middle * (1.0 + spread * (float(dice.within(0, 2001)) / 1000.0 - 1.0))).collect()
    }

    #[test]
    fn noise_is_ignored_and_a_difference_found_in_both_directions() {
        let mut dice = Dice::new(4);
        let mut wrong = 0;
        for _ in 0..300 {
            let one = figure(around(1000.0, 0.2, &mut dice), Better::Higher);
            let same = figure(around(1000.0, 0.2, &mut dice), Better::Higher);
            wrong += u32::from(row(&one, &same, FLOOR_OF_PARTS).change != Change::Same);
        }
        // Three by the test.
        assert!(wrong <= 9, "{wrong} of 300");
        for _ in 0..100 {
            let one = figure(around(1000.0, 0.1, &mut dice), Better::Higher);
            let less = figure(around(700.0, 0.1, &mut dice), Better::Higher);
            assert_eq!(row(&one, &less, FLOOR_OF_PARTS).change, Change::Worse);
            assert_eq!(row(&less, &one, FLOOR_OF_PARTS).change, Change::Better);
        }
        let slow = figure(vec![30.0; 3], Better::Lower);
        let fast = figure(vec![20.0; 3], Better::Lower);
        assert_eq!(row(&fast, &slow, FLOOR_OF_RUNS).change, Change::Worse);
        assert_eq!(row(&slow, &fast, FLOOR_OF_RUNS).change, Change::Better);
    }

    #[test]
    fn without_samples_only_a_large_difference_counts() {
        let one = figure(vec![100.0], Better::Lower);
        assert_eq!(row(&one, &figure(vec![115.0], Better::Lower), FLOOR_OF_RUNS).change, Change::Same);
        assert_eq!(row(&one, &figure(vec![130.0], Better::Lower), FLOOR_OF_RUNS).change, Change::Worse);
    }
}
