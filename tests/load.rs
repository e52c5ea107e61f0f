//! `sotto load`: that it measures what is, finds what is wrong, and runs every scenario against real nodes.

mod command;
mod honest;
mod target;
mod wire_delay;

use std::path::Path;

use sotto_harness::load::{Plan, Stop, Summary};

pub use self::command::measured;
use self::target::LoadTarget;

/// A plan with so many pairs of users of a [`LoadTarget`], measured for so long, without a warm-up.
fn plan(url: &str, folder: &Path, pairs: usize, seconds: u64, scenario: &str) -> Plan {
    let users = LoadTarget::users(folder, pairs);
    let target = format!("[target]\nurl = [\"{url}\"]\nusers = \"{}\"\n", users.display());
    Plan::from_toml(&format!("{target}[span]\nwarmup = 0\nseconds = {seconds}\n{scenario}")).unwrap()
}

/// Runs it.
async fn run(url: &str, pairs: usize, seconds: u64, scenario: &str) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(url, folder.path(), pairs, seconds, scenario);
    tokio::task::spawn_blocking(move || plan.repeat(&Stop::default(), &mut |_| {}).unwrap()).await.unwrap()
}
