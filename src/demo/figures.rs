//! The last lines: how much, how fast, how large.

use std::fs;
use std::time::{Duration, Instant};

use super::DemoError;
use super::crash::Outage;
use super::error::expect;
use super::story::Story;
use super::world::World;

/// Prints one line of figures under their names.
pub(super) fn print(story: &mut Story, world: &World, outage: &Outage, began: Instant) -> Result<(), DemoError> {
    let mut sends = Vec::new();
    let mut deliveries = Vec::new();
    let mut delivered = 0;
    for device in world.devices() {
        let seen = device.seen();
        delivered += seen.messages.len();
        let mine = world.spoken.iter().filter(|spoken| spoken.by == device.client.device_id());
        let live = mine.filter(|spoken| seen.was_up(spoken.began, spoken.answered));
        sends.extend(live.map(|spoken| spoken.answered - spoken.began));
        for (at, message) in &seen.messages {
            let Some(spoken) = world.spoken.iter().find(|spoken| spoken.message_id == message.message_id) else {
                continue;
            };
            if seen.was_up(spoken.began, *at) {
                deliveries.push(at.saturating_duration_since(spoken.began));
            }
        }
    }
    let resident = world.server.resident();
    let resident = resident.ok_or_else(|| DemoError::Broken("the server's memory cannot be seen".to_owned()))?;
    let size = |path| fs::metadata(path).map_or(0, |file| file.len());
    let database = world.server.database();
    let database = size(database.clone()) + size(database.with_extension("db-wal"));
    expect(!sends.is_empty() && !deliveries.is_empty(), || "nothing was measured".to_owned())?;
    story.plain("");
    story.paragraph(
        "Times as an application sees them, with encryption and the devices' own stores, four devices and the server \
         sharing this machine; sends and deliveries that met the outage are left out of the percentiles.",
    );
    story.plain("messages deliveries  send to ok p50/p99  to delivery p50/p99  recovery  memory   database  total");
    story.plain(&format!(
        "{:>8} {:>10}  {:>18}  {:>19}  {:>8}  {:>7}  {:>8}  {:>6}",
        world.spoken.len(),
        delivered,
        percentiles(&mut sends),
        percentiles(&mut deliveries),
        format!("{:.2} s", outage.healed_after.as_secs_f64()),
        format!("{} MiB", resident / (1024 * 1024)),
        format!("{} KiB", database / 1024),
        format!("{:.1} s", began.elapsed().as_secs_f64()),
    ));
    Ok(())
}

/// Half and 99 of a hundred were not slower than this.
fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(rank).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    format!("{:.1} / {:.1} ms", at(50), at(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentiles(&mut times), "100.0 / 198.0 ms");
        assert_eq!(percentiles(&mut [Duration::from_millis(3)]), "3.0 / 3.0 ms");
    }
}
