//! Other programs as the tests see them: their signals, their children, and ports that nobody uses.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::TcpListener;
use std::process::Command;

/// A port that nobody listens on. It lies below those that the system gives to outgoing connections: a client that
/// tries to reach a server which is down cannot meet itself there, and nobody takes the port while it is.
pub fn free_port() -> u16 {
    for _ in 0..200 {
        let port = 20_000 + u16::try_from(RandomState::new().build_hasher().finish() % 12_000).expect("a small number");
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}

/// Sends a signal (`KILL`, `STOP`, `CONT`, `TERM`, …); those that are gone do not matter.
pub fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(pids.iter().map(u32::to_string));
    command.stderr(std::process::Stdio::null()).status().expect("kill");
}

/// The processes whose parent is this one.
pub fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name stands in brackets and may hold anything; state and parent come after it.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        if after.split(' ').nth(1).and_then(|text| text.parse().ok()) == Some(parent) {
            found.push(pid);
        }
    }
    found
}

/// Runs a command to its end.
///
/// # Errors
/// What it wrote to standard error, or why it did not start.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
