//! The running servers that faults befall, and how each fault is done to them.

use super::plan::{BEHIND, Fault, Kind, Leg, NODES, SERIES, Scene};
use super::probe::{Probe, is_refusal};
use crate::support::cluster::{Between, Bus, Cluster, Make};
use crate::support::database::Kind as Database;
use crate::support::disk::{self, Disk};
use crate::support::fault::{Clock, Net};
use crate::support::node::{Place, TestNode};
use crate::support::process::{free_port, signal};
use crate::support::proxy::Proxy;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As long as anything that must heal by itself may take.
pub const HARD_LIMIT: Duration = Duration::from_secs(30);

/// What there is for want of rights or programs.
pub struct Means {
    pub network: Result<(), String>,
    pub clock: Result<(), String>,
    pub disk: Result<(), String>,
    /// Whether nodes are told of a Redis at all.
    pub redis: bool,
}

impl Means {
    /// Looks at what this machine grants.
    pub fn look(redis: bool) -> Self {
        Self { network: Net::lay(1).map(drop), clock: Clock::right().map(drop), disk: disk::possible(), redis }
    }

    /// Why a kind of fault cannot be done here.
    pub fn refuse(&self, kind: Kind) -> Option<String> {
        let lacking = match kind {
            Kind::RedisCut | Kind::PostgresCut => self.network.as_ref().err(),
            Kind::NodeClock | Kind::SoloClock => self.clock.as_ref().err(),
            Kind::PostgresFull | Kind::SoloFull => self.disk.as_ref().err(),
            _ => None,
        };
        let needs_redis =
            matches!(kind, Kind::RedisCut | Kind::RedisFailover | Kind::RedisFlush | Kind::RedisKill | Kind::RedisStop);
        lacking.cloned().or_else(|| (needs_redis && !self.redis).then(|| "the nodes run without Redis".to_owned()))
    }
}

enum Servers {
    Cluster(Box<Cluster>),
    Solo(Box<TestNode>, Option<Clock>),
}

/// Everything that runs during a leg.
pub struct World {
    servers: Servers,
    /// Which node's answers go through the proxy for clients.
    behind: usize,
    proxy: Proxy,
    /// How much of each node's log has been looked at.
    looked: Vec<usize>,
    /// Where the logs of the nodes are kept while the leg runs.
    evidence: PathBuf,
    // Behind the servers: what they write on goes last.
    disk: Option<Disk>,
}

/// Limits that nobody reaches, so that what counts them is under fault as well.
const SETTINGS: &[(&str, &str)] = &[
    ("SOTTO_AUTH__ACCESS_TTL", "86400"),
    ("SOTTO_LIMITS__MESSAGES_PER_MINUTE", "1000000"),
    ("SOTTO_LIMITS__REQUESTS_PER_MINUTE", "1000000"),
    ("SOTTO_LIMITS__CONVERSATIONS_PER_HOUR", "1000000"),
    ("SOTTO_LIMITS__CODES_PER_HOST_PER_HOUR", "1000000"),
    ("SOTTO_LIMITS__CODES_PER_ADDRESS_PER_HOUR", "1000000"),
    ("SOTTO_LIMITS__CODES_PER_REGION_PER_HOUR", "1000000"),
    ("SOTTO_LIMITS__CODES_PER_BLOCK_PER_HOUR", "1000000"),
    ("SOTTO_CHALLENGE__KIND", "none"),
    ("SOTTO_LIMITS__CODES_PER_NODE_PER_HOUR", "1000000"),
    ("SOTTO_LIMITS__FAILED_SIGN_INS", "1000000"),
    ("SOTTO_LIMITS__KEY_CLAIMS", "1000000"),
];

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl World {
    /// Starts what this leg needs.
    pub async fn start(leg: &Leg, means: &Means, evidence: &Path) -> Self {
        let has = |kind| leg.faults.iter().any(|fault| fault.kind == kind) && means.refuse(kind).is_none();
        let servers_disk = match leg.scene {
            Scene::Solo => has(Kind::SoloFull).then(|| Disk::new(128)),
            _ => has(Kind::PostgresFull).then(|| Disk::new(768)),
        };
        let servers = match leg.scene {
            Scene::Solo => solo(servers_disk.as_ref(), has(Kind::SoloClock)).await,
            Scene::Cluster | Scene::Sentinels => {
                let mut make = Make::nodes(NODES);
                make.settings = owned(SETTINGS);
                make.between = match leg.scene {
                    _ if !means.redis => Between::Nothing,
                    Scene::Sentinels => Between::Sentinels,
                    _ => Between::Redis,
                };
                if has(Kind::RedisCut) || has(Kind::PostgresCut) {
                    make.net = Some(Net::lay(NODES).expect("it was granted before"));
                }
                if has(Kind::NodeClock) {
                    make.clock = Some(Clock::right().expect("it was there before"));
                }
                // Sometimes the log runs full with the rest, which ends PostgreSQL; sometimes it has a disk of its own.
                make.log_apart = !leg.seed.is_multiple_of(3);
                make.postgres = servers_disk.as_ref().map(|disk| disk.path().join("postgres"));
                if let Some(folder) = &make.postgres {
                    std::fs::create_dir(folder).expect("a folder on an empty disk");
                }
                Servers::Cluster(Box::new(make.start().await))
            }
        };
        let mut world = Self {
            behind: if leg.scene == Scene::Solo { 0 } else { BEHIND },
            proxy: Proxy::to("http://127.0.0.1:1").await,
            looked: Vec::new(),
            evidence: evidence.to_owned(),
            disk: servers_disk,
            servers,
        };
        world.proxy = Proxy::to(&world.nodes()[world.behind].url).await;
        world.looked = vec![0; world.nodes().len()];
        for node in world.nodes_mut() {
            // They are looked at here, after each fault.
            node.expect_log("");
        }
        world
    }

    pub fn nodes(&self) -> &[TestNode] {
        match &self.servers {
            Servers::Cluster(cluster) => &cluster.nodes,
            Servers::Solo(node, _) => std::slice::from_ref(node),
        }
    }

    fn nodes_mut(&mut self) -> &mut [TestNode] {
        match &mut self.servers {
            Servers::Cluster(cluster) => &mut cluster.nodes,
            Servers::Solo(node, _) => std::slice::from_mut(node),
        }
    }

    /// Where each node is reached without anything between.
    pub fn entrances(&self) -> Vec<String> {
        self.nodes().iter().map(|node| node.url.clone()).collect()
    }

    /// Where the load goes: one of the nodes is behind the proxy.
    pub fn urls(&self) -> Vec<String> {
        let mut urls = self.entrances();
        if urls.len() == 1 {
            urls.push(self.proxy.url.clone());
        } else {
            urls[self.behind] = self.proxy.url.clone();
        }
        urls
    }

    /// Takes over what the nodes have logged since the last look, and returns what nobody should ever read.
    pub fn read_logs(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        for index in 0..self.nodes().len() {
            let log = self.nodes()[index].log();
            let new = log.get(self.looked[index]..).unwrap_or_default().to_owned();
            self.looked[index] = log.len();
            found.extend(
                new.lines().filter(|line| is_alarming(line)).map(|line| format!("node {index} logged: {line}")),
            );
            self.keep(index, &new);
        }
        found
    }

    fn keep(&self, index: usize, text: &str) {
        let file = self.evidence.join(format!("node-{index}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file of evidence");
    }

    /// A log begins anew with each start of a node.
    fn closes_log(&mut self, index: usize, found: &mut Vec<String>) {
        found.extend(self.read_logs());
        self.keep(index, "---- its end; the next start follows ----\n");
        self.looked[index] = 0;
    }

    fn cluster(&mut self) -> &mut Cluster {
        match &mut self.servers {
            Servers::Cluster(cluster) => cluster,
            Servers::Solo(..) => panic!("one node is no cluster"),
        }
    }

    fn set_clock(&self, seconds: i64) {
        let clock = match &self.servers {
            Servers::Cluster(cluster) => cluster.clock.as_ref(),
            Servers::Solo(_, clock) => clock.as_ref(),
        };
        clock.expect("the leg has a clock").set(seconds);
    }

    /// Does it, waits, and undoes it. What went wrong meanwhile is returned.
    pub async fn strike(&mut self, fault: &Fault, probe: &Probe) -> Vec<String> {
        let mut found = Vec::new();
        let wait = tokio::time::sleep(fault.lasts);
        let node = fault.node;
        match fault.kind {
            Kind::NodeKill | Kind::SoloKill => {
                self.nodes_mut()[node].kill();
                self.closes_log(node, &mut found);
                wait.await;
                self.nodes_mut()[node].restart().await;
            }
            Kind::NodeKills | Kind::SoloKills => {
                for kill in 0..SERIES {
                    // Sooner or later after the start, in any case at another moment of what is under way.
                    tokio::time::sleep(fault.lasts * (1 + (kill * 7 % 10) as u32) / 5).await;
                    let node = (node + kill as usize) % self.nodes().len();
                    self.nodes_mut()[node].kill();
                    self.closes_log(node, &mut found);
                    self.nodes_mut()[node].restart().await;
                }
            }
            Kind::NodeStop | Kind::SoloStop => {
                let pid = [self.nodes()[node].pid()];
                signal("STOP", &pid);
                wait.await;
                signal("CONT", &pid);
            }
            Kind::NodeDrain | Kind::SoloDrain => {
                self.drain(node, &mut found).await;
                wait.await;
                self.nodes_mut()[node].restart().await;
            }
            Kind::NodesRolling => {
                for node in 0..self.nodes().len() {
                    self.drain(node, &mut found).await;
                    self.nodes_mut()[node].restart().await;
                }
            }
            Kind::NodeClock | Kind::SoloClock => {
                self.set_clock(fault.jump);
                wait.await;
                // It is wrong still, and nobody may suffer from it.
                let last = self.nodes().len() - 1;
                if probe.answered_by(&self.nodes()[last].url, HARD_LIMIT).await.is_none() {
                    let trouble = probe.trouble();
                    found.push(format!("no send is answered where the clock is wrong by {} s: {trouble}", fault.jump));
                }
                self.set_clock(0);
                // The program looks at its clock's file once a second.
                tokio::time::sleep(Duration::from_millis(1_100)).await;
            }
            Kind::NodeEaten | Kind::SoloEaten => {
                self.proxy.hold_down(true);
                wait.await;
                self.proxy.cut();
                self.proxy.hold_down(false);
            }
            Kind::PostgresKill => {
                self.cluster().postgres.kill();
                wait.await;
                self.cluster().postgres.restart().await;
            }
            Kind::PostgresStop => {
                self.cluster().postgres.signal("STOP");
                wait.await;
                self.cluster().postgres.signal("CONT");
            }
            Kind::PostgresFull | Kind::SoloFull => self.fill(fault, probe, &mut found).await,
            Kind::PostgresCut => {
                let cluster = self.cluster();
                let net = cluster.net.as_ref().expect("the leg has a network");
                net.cut(node, &[cluster.postgres.port], fault.way);
                wait.await;
                net.heal(node);
            }
            Kind::RedisCut => {
                let cluster = self.cluster();
                let net = cluster.net.as_ref().expect("the leg has a network");
                net.cut(node, &cluster.redis_ports(), fault.way);
                wait.await;
                net.heal(node);
            }
            Kind::RedisKill => {
                self.cluster().redis().kill();
                wait.await;
                self.cluster().redis().restart().await;
            }
            Kind::RedisStop => {
                let pid = [self.cluster().redis().pid()];
                signal("STOP", &pid);
                wait.await;
                signal("CONT", &pid);
            }
            Kind::RedisFlush => self.cluster().redis().flush_all().await,
            Kind::RedisFailover => {
                let Bus::Sentinels(set) = &mut self.cluster().bus else { panic!("this scene has sentinels") };
                set.failover().await;
                wait.await;
                set.restore().await;
            }
        }
        found
    }

    async fn drain(&mut self, node: usize, found: &mut Vec<String>) {
        let code = self.nodes_mut()[node].terminate().await;
        if code != Some(0) {
            found.push(format!("node {node} ended a drain with {code:?}"));
        }
        self.closes_log(node, found);
    }

    /// Fills the disk under the database: sends are refused in the contract's words, reads go on.
    async fn fill(&mut self, fault: &Fault, probe: &Probe, found: &mut Vec<String>) {
        let url = self.nodes()[fault.node.min(self.nodes().len() - 1)].url.clone();
        let begun = Instant::now();
        let (mut refused, mut first_refusal, mut reads) = (0, None, 0);
        loop {
            self.disk.as_ref().expect("the leg has a disk").fill(0);
            // Large ones until it is full: space that was taken ahead is used up first.
            let size = if first_refusal.is_none() { 64 * 1024 } else { 256 };
            for answer in probe.send_to(&url, size).await {
                match answer {
                    Ok(_) => {}
                    Err(error) if is_refusal(&error) => {
                        refused += 1;
                        first_refusal.get_or_insert_with(Instant::now);
                    }
                    Err(error) => found.push(format!("a send to a full disk was answered: {error}")),
                }
            }
            if first_refusal.is_some() && self.database_answers().await {
                match probe.read_from(&url).await {
                    Ok(_) => reads += 1,
                    // It may have given up in between, for want of room for its log.
                    Err(error) if self.database_answers().await => {
                        found.push(format!("a read from a full disk was answered: {error}"));
                    }
                    Err(_) => {}
                }
            }
            let is_over = first_refusal.is_some_and(|at: Instant| at.elapsed() > fault.lasts);
            if is_over || begun.elapsed() > HARD_LIMIT {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if refused == 0 {
            found.push(format!("no send was refused in {HARD_LIMIT:?} on a full disk"));
        }
        if reads == 0 && !self.database_gave_up() {
            found.push("nothing could be read while the disk was full".to_owned());
        }
        self.disk.as_ref().expect("the leg has a disk").make_room();
        if let Servers::Cluster(cluster) = &mut self.servers {
            // Whoever supervises it starts it again.
            if !cluster.postgres.is_alive() {
                cluster.postgres.restart().await;
            }
        }
    }

    async fn database_answers(&self) -> bool {
        match &self.servers {
            Servers::Cluster(cluster) => cluster.postgres.answers().await,
            Servers::Solo(..) => true,
        }
    }

    /// Without room for its log PostgreSQL ends all sessions, and nothing can be read until there is room again.
    fn database_gave_up(&self) -> bool {
        match &self.servers {
            Servers::Cluster(cluster) => cluster.postgres.log().contains("PANIC"),
            Servers::Solo(..) => false,
        }
    }

    /// What PostgreSQL has logged.
    pub fn database_log(&self) -> String {
        match &self.servers {
            Servers::Cluster(cluster) => cluster.postgres.log(),
            Servers::Solo(..) => String::new(),
        }
    }
}

/// What nobody should ever read in a log; that a listener was taken from under actix's accept loop is how a drain begins.
fn is_alarming(line: &str) -> bool {
    line.contains("panicked") || (line.contains(" ERROR ") && !line.contains("actix_server::accept"))
}

async fn solo(disk: Option<&Disk>, has_clock: bool) -> Servers {
    let clock = has_clock.then(|| Clock::right().expect("it was there before"));
    let mut folder = tempfile::Builder::new();
    folder.prefix("sotto-solo");
    let folder = match disk {
        Some(disk) => folder.tempdir_in(disk.path()),
        None => folder.tempdir(),
    };
    let folder = Arc::new(folder.expect("a folder"));
    let url = format!("sqlite:{}", folder.path().join("sotto.db").display());
    let mut settings = owned(SETTINGS);
    settings.extend(clock.as_ref().map(Clock::settings).unwrap_or_default());
    let node = TestNode::at(Place::default(), Database::Sqlite, folder, url, settings, free_port()).await;
    Servers::Solo(Box::new(node), clock)
}
