//! The machine that the generator runs on, and who listens there.

use std::fs;
use std::net::SocketAddr;

use super::summary::Machine;

impl Machine {
    /// This one, as far as the system tells.
    #[must_use]
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let processor =
            cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
        let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib: u64 = kib.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default();
        Self {
            cores,
            processor: processor.unwrap_or("unknown").to_owned(),
            memory_bytes: kib * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The process of this machine that listens at an address; none where it cannot be seen.
#[must_use]
pub fn listener(address: SocketAddr) -> Option<u32> {
    let inode = inode(address)?;
    let wanted = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| link.to_str() == Some(&wanted))
    })
}

/// The socket that listens at an address, or at all of the machine's.
fn inode(address: SocketAddr) -> Option<u64> {
    let port = format!("{:04X}", address.port());
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|file| {
        let table = fs::read_to_string(file).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_listening = fields.get(3) == Some(&"0A");
            let has_port = fields.get(1)?.rsplit_once(':')?.1 == port;
            (is_listening && has_port).then(|| fields.get(9)?.parse().ok()).flatten()
        })
    })
}

/// Lets this process have as many open files as the system allows, for each connection is one; how many those are.
#[cfg(unix)]
#[must_use]
pub fn open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// As many as there are: nothing is known here.
#[cfg(not(unix))]
#[must_use]
pub fn open_files() -> u64 {
    u64::MAX
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_listener_of_a_port_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener(socket.local_addr().unwrap()), Some(std::process::id()));
        let address = socket.local_addr().unwrap();
        drop(socket);
        assert_eq!(listener(address), None);
    }

    #[test]
    fn the_machine_has_cores_and_memory() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty());
    }
}
