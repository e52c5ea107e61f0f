//! What another process uses, from `/proc`.

use std::fs;

/// Ticks per second of the kernel's counts; it has been 100 everywhere for decades.
const TICKS: f64 = 100.0;

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

/// Processor seconds of a process and its children so far.
pub fn processor_seconds(pid: u32) -> f64 {
    let own = stat(pid).map_or(0.0, |stat| stat.seconds);
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    own + pids.filter_map(stat).filter(|stat| stat.parent == pid).map(|stat| stat.seconds).sum::<f64>()
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a live server");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
