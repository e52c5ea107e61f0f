//! What befalls a node from outside: its network is cut, its clock jumps. Signals are in `process`, disks in `disk`,
//! wires that keep answers in `proxy`.

use super::node::Place;
use super::process::run;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use tempfile::TempDir;

/// Which half of a conversation between a node and a server is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Both,
    /// What the node sends does not arrive.
    Out,
    /// What it is answered does not arrive.
    In,
}

/// A network namespace for each node, with one wire to the machine. Servers that all share listen on [`Net::home`].
/// Dropped, all of it is gone.
pub struct Net {
    number: u8,
    nodes: usize,
}

impl Net {
    /// Lays the wires for so many nodes.
    ///
    /// # Errors
    /// Why this machine does not grant it: it takes root, `ip` and `nft`.
    pub fn lay(nodes: usize) -> Result<Self, String> {
        let mut last = String::new();
        for _ in 0..20 {
            let number = u8::try_from(RandomState::new().build_hasher().finish() % 250).unwrap_or_default();
            let net = Self { number, nodes };
            // The address is what tells whether somebody else has this number.
            let home = format!("{}/32", net.home());
            match run("ip", &["address", "add", &home, "dev", "lo"]) {
                Ok(_) => return net.wires().map(|()| net),
                Err(error) => last = error,
            }
            // It is not ours to take away.
            std::mem::forget(net);
        }
        Err(last)
    }

    fn wires(&self) -> Result<(), String> {
        for node in 0..self.nodes {
            let (space, wire, peer) = (self.space(node), self.wire(node), format!("{}p", self.wire(node)));
            let (here, there) = (self.address(node, 1), self.address(node, 2));
            run("ip", &["netns", "add", &space])?;
            run("ip", &["link", "add", &wire, "type", "veth", "peer", "name", &peer, "netns", &space])?;
            run("ip", &["address", "add", &format!("{here}/30"), "dev", &wire])?;
            run("ip", &["link", "set", &wire, "up"])?;
            run("ip", &["-n", &space, "address", "add", &format!("{there}/30"), "dev", &peer])?;
            run("ip", &["-n", &space, "link", "set", &peer, "up"])?;
            run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
            run("ip", &["-n", &space, "route", "add", "default", "via", &here.to_string()])?;
            run("ip", &["netns", "exec", &space, "nft", "list", "ruleset"])?;
        }
        Ok(())
    }

    /// The machine's address that every node reaches.
    pub fn home(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 254)
    }

    fn address(&self, node: usize, end: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, u8::try_from(node * 4).expect("few nodes") + end)
    }

    fn space(&self, node: usize) -> String {
        format!("sotto-{}-{node}", self.number)
    }

    fn wire(&self, node: usize) -> String {
        format!("so{}n{node}", self.number)
    }

    /// Where this node is to run.
    pub fn place(&self, node: usize) -> Place {
        let prefix = ["ip".to_owned(), "netns".to_owned(), "exec".to_owned(), self.space(node)];
        Place { address: IpAddr::V4(self.address(node, 2)), prefix: prefix.to_vec() }
    }

    /// Loses what passes between a node and these ports of the home address, silently, until [`Net::heal`].
    pub fn cut(&self, node: usize, ports: &[u16], way: Way) {
        let (home, ports) = (self.home(), ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","));
        let mut rules = vec!["add table ip cut".to_owned()];
        if way != Way::In {
            rules.push("add chain ip cut out { type filter hook output priority 0; }".to_owned());
            rules.push(format!("add rule ip cut out ip daddr {home} tcp dport {{ {ports} }} drop"));
        }
        if way != Way::Out {
            rules.push("add chain ip cut in { type filter hook input priority 0; }".to_owned());
            rules.push(format!("add rule ip cut in ip saddr {home} tcp sport {{ {ports} }} drop"));
        }
        run("ip", &["netns", "exec", &self.space(node), "nft", &rules.join("; ")]).expect("a rule");
    }

    /// Everything passes again.
    pub fn heal(&self, node: usize) {
        run("ip", &["netns", "exec", &self.space(node), "nft", "delete table ip cut"]).expect("the rules were there");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            // The other end lies in the namespace and goes with it, as soon as nobody runs there.
            let _ = run("ip", &["link", "delete", &self.wire(node)]);
            let _ = run("ip", &["netns", "delete", &self.space(node)]);
        }
        let _ = run("ip", &["address", "delete", &format!("{}/32", self.home()), "dev", "lo"]);
    }
}

/// A clock that jumps while a program runs: what day it is, not how much time passes, as when somebody sets it.
pub struct Clock {
    library: PathBuf,
    folder: TempDir,
}

impl Clock {
    /// A clock that goes right.
    ///
    /// # Errors
    /// libfaketime is not installed.
    pub fn right() -> Result<Self, String> {
        let folders =
            ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
        let libraries = folders.iter().map(|folder| PathBuf::from(folder).join("faketime/libfaketimeMT.so.1"));
        let library = libraries.into_iter().find(|library| library.exists());
        let library = library.ok_or("libfaketime is not installed (package faketime)")?;
        let clock = Self { library, folder: tempfile::tempdir().map_err(|error| error.to_string())? };
        clock.set(0);
        Ok(clock)
    }

    /// What a program needs in its environment to go by this clock. It looks at it once a second.
    pub fn settings(&self) -> Vec<(String, String)> {
        let file = self.folder.path().join("offset");
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    /// From now on it is wrong by so many seconds.
    pub fn set(&self, seconds: i64) {
        let (file, next) = (self.folder.path().join("offset"), self.folder.path().join("next"));
        std::fs::write(&next, format!("{seconds:+}\n")).expect("a file");
        std::fs::rename(&next, &file).expect("a file");
    }
}
