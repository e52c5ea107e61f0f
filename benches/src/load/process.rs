//! What a process and its children use, from Linux's `/proc`; elsewhere nothing is known.

use std::collections::BTreeMap;
use std::fs;

/// Ticks per second of the kernel's counts; it has been 100 everywhere for decades.
const TICKS: f64 = 100.0;

/// A process that is watched, with its name in the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// `server`, `database`, `generator`, or what the user called it.
    pub name: String,
    /// Its id.
    pub pid: u32,
}

/// What a process and its children had used at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Processor seconds since it began, of children that have ended as well.
    pub cpu_seconds: f64,
    /// Resident memory in bytes. What several processes share is counted once.
    pub rss_bytes: u64,
}

struct Stat {
    parent: u32,
    seconds: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have blanks in it and ends with the last parenthesis.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // Fields 14 and 15 are its own time, 16 and 17 that of children that have ended.
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, seconds: ticks / TICKS })
}

/// Memory by kind, in bytes.
#[derive(Default, Clone, Copy)]
struct Resident {
    own: u64,
    file: u64,
    shared: u64,
}

fn resident(pid: u32) -> Option<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name: &str| kib(name).unwrap_or_default() * 1024;
    Some(Resident { own: bytes("RssAnon:"), file: bytes("RssFile:"), shared: bytes("RssShmem:") })
}

/// All processes' stats, to be read once for several questions.
pub struct Table(BTreeMap<u32, Stat>);

impl Table {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        Self(pids.filter_map(|pid| Some((pid, stat(pid)?))).collect())
    }

    /// What a process and its descendants have used; none: it does not exist.
    #[must_use]
    pub fn usage(&self, pid: u32) -> Option<Usage> {
        self.0.get(&pid)?;
        let family = self.0.iter().filter(|(member, _)| self.descends(**member, pid));
        let mut usage = Usage::default();
        let (mut own, mut file, mut shared) = (0, 0, 0);
        for (member, stat) in family {
            usage.cpu_seconds += stat.seconds;
            if let Some(resident) = resident(*member) {
                own += resident.own;
                // Processes of one program map the same files and the same shared memory.
                file = file.max(resident.file);
                shared = shared.max(resident.shared);
            }
        }
        usage.rss_bytes = own + file + shared;
        Some(usage)
    }

    fn descends(&self, mut pid: u32, from: u32) -> bool {
        // A table that is read while processes come and go may have a circle.
        for _ in 0..64 {
            if pid == from {
                return true;
            }
            let Some(stat) = self.0.get(&pid) else { return false };
            pid = stat.parent;
        }
        false
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let table = Table::now();
        let usage = table.usage(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100_000, "{usage:?}");
        assert_eq!(table.usage(u32::MAX), None);
    }

    #[test]
    fn children_count() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let table = Table::now();
        assert!(table.descends(child.id(), std::process::id()));
        assert!(!table.descends(std::process::id(), child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
