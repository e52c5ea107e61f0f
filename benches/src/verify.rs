//! A run of `sotto verify`: a load for a while, sign-outs in the middle of it, and the end.

use std::time::{Duration, Instant};

use crate::HarnessError;
use crate::counters::View;
use crate::dice::Dice;
use crate::driver::Driver;
use crate::plan::Plan;
use crate::report::Report;

/// Between two tellings.
const TELL: Duration = Duration::from_millis(250);

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Whom, where, how fast.
    pub plan: Plan,
    /// How long the load goes on.
    pub duration: Duration,
    /// Devices that are signed out in between, if so many can be spared.
    pub sign_outs: usize,
    /// How long everything may take to come to rest.
    pub patience: Duration,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Under load for so long.
    Load(Duration),
    /// Coming to rest, and reading everything anew, for so long.
    Settling(Duration),
}

impl Run {
    /// Runs to the end; `tell` hears four times a second where it stands.
    ///
    /// # Errors
    /// As [`Driver::start`].
    pub async fn to_the_end(self, mut tell: impl FnMut(Stage, &View)) -> Result<Report, HarnessError> {
        let moments = self.moments();
        let driver = Driver::start(self.plan).await?;
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(TELL);
        {
            let sign_outs = async {
                for moment in moments {
                    tokio::time::sleep_until((begun + moment).into()).await;
                    if let Err(HarnessError::Plan(_)) = driver.revoke_one().await {
                        return;
                    }
                }
            };
            let mut sign_outs = std::pin::pin!(sign_outs);
            let mut are_over = false;
            while begun.elapsed() < self.duration || !are_over {
                tokio::select! {
                    () = &mut sign_outs, if !are_over => are_over = true,
                    _ = ticks.tick() => tell(Stage::Load(begun.elapsed()), &driver.view()),
                }
            }
        }
        let watched = driver.counters();
        let settled = Instant::now();
        let mut settling = std::pin::pin!(driver.settle(self.patience));
        loop {
            tokio::select! {
                report = &mut settling => return Ok(report),
                _ = ticks.tick() => tell(Stage::Settling(settled.elapsed()), &watched.counters().view()),
            }
        }
    }

    /// When devices are signed out: somewhere in the middle, in order, so that the last is seen to its end in time.
    fn moments(&self) -> Vec<Duration> {
        let mut dice = Dice::new(self.plan.seed ^ 0x5e55_1045);
        let mut part = || self.duration.mul_f64(f64::from(100 + crate::device::part(&mut dice) / 2) / 1000.0);
        let mut moments: Vec<_> = (0..self.sign_outs).map(|_| part()).collect();
        moments.sort();
        moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_outs_come_in_the_middle_and_alike_for_a_seed() {
        let run = |seed| Run {
            plan: Plan::new(Vec::new(), Vec::new(), seed),
            duration: Duration::from_secs(100),
            sign_outs: 20,
            patience: Duration::ZERO,
        };
        let moments = run(3).moments();
        assert_eq!(moments, run(3).moments());
        assert_ne!(moments, run(4).moments());
        assert!(moments.is_sorted());
        let middle = Duration::from_secs(10)..Duration::from_secs(60);
        assert!(moments.iter().all(|moment| middle.contains(moment)), "{moments:?}");
    }
}
