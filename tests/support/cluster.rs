//! Several nodes on one PostgreSQL and one Redis, all of them the test's own.

use super::database::Kind;
use super::fault::{Clock, Net};
use super::node::{Place, TestNode};
use super::postgres::PostgresServer;
use super::process::free_port;
use super::redis::{RedisServer, SENTINEL_NAME, Sentinels};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// How nodes find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Not at all: the sweep carries everything.
    Nothing,
    Redis,
    Sentinels,
}

/// The running form of [`Between`].
pub enum Bus {
    Nothing,
    Redis(RedisServer),
    Sentinels(Sentinels),
}

/// What a cluster is to be made of. The default is nodes on the loopback interface with Redis.
pub struct Make {
    pub nodes: usize,
    pub between: Between,
    /// The nodes run in namespaces of their own.
    pub net: Option<Net>,
    /// The last node goes by this clock.
    pub clock: Option<Clock>,
    /// PostgreSQL's data lies here and not in a folder of its own.
    pub postgres: Option<PathBuf>,
    /// PostgreSQL's write-ahead log lies apart from its data.
    pub log_apart: bool,
    /// Settings of all nodes.
    pub settings: Vec<(String, String)>,
}

impl Make {
    /// So many nodes with Redis between them, without limits.
    pub fn nodes(nodes: usize) -> Self {
        let settings = vec![("SOTTO_LIMITS__ENABLED".to_owned(), "false".to_owned())];
        Self { nodes, between: Between::Redis, net: None, clock: None, postgres: None, log_apart: false, settings }
    }

    /// With this setting (an environment variable), whatever was set before.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.retain(|(other, _)| other != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts everything. The first node is up, and has migrated, before the others start.
    pub async fn start(self) -> Cluster {
        let host = self.net.as_ref().map_or("127.0.0.1".to_owned(), |net| net.home().to_string());
        let shared = tempfile::Builder::new().prefix("sotto-cluster").tempdir().expect("a folder");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(shared.path(), open).expect("a folder that PostgreSQL may pass");
        let log = shared.path().join("log");
        std::fs::create_dir(&log).expect("a folder");
        let log = self.log_apart.then_some(log.as_path());
        let postgres = PostgresServer::with_log(&host, self.postgres.as_deref(), log).await;
        let store_url = postgres.database("sotto").await;
        let mut settings = self.settings;
        let bus = match self.between {
            Between::Nothing => Bus::Nothing,
            Between::Redis => Bus::Redis(RedisServer::on(&host, &[]).await),
            Between::Sentinels => Bus::Sentinels(Sentinels::on(&host).await),
        };
        let redis_url = match &bus {
            Bus::Nothing => None,
            Bus::Redis(redis) => Some(redis.url()),
            Bus::Sentinels(set) => Some(format!("redis+sentinel://{}/{SENTINEL_NAME}", set.addresses().join(","))),
        };
        settings.extend(redis_url.map(|url| ("SOTTO_CLUSTER__REDIS_URL".to_owned(), url)));
        let key = shared.path().join("secret.key").display().to_string();
        settings.push(("SOTTO_AUTH__SECRET_KEY_FILE".to_owned(), key));
        if self.net.is_some() {
            // Its address is not a loopback one, though nobody else reaches it.
            settings.push(("SOTTO_DEV__INSECURE".to_owned(), "true".to_owned()));
        }
        let mut cluster = Cluster {
            nodes: Vec::new(),
            bus,
            clock: self.clock,
            net: self.net,
            store_url,
            settings,
            postgres,
            _shared: shared,
        };
        for number in 0..self.nodes {
            let clock = cluster.clock.as_ref().filter(|_| number + 1 == self.nodes);
            let more = clock.map(Clock::settings).unwrap_or_default();
            cluster.join(more).await;
        }
        cluster
    }
}

/// Running nodes with what they run on. Dropped, all of it is gone.
pub struct Cluster {
    pub nodes: Vec<TestNode>,
    pub bus: Bus,
    pub clock: Option<Clock>,
    pub postgres: PostgresServer,
    pub store_url: String,
    settings: Vec<(String, String)>,
    _shared: TempDir,
    // Behind the nodes: they end before their network does.
    pub net: Option<Net>,
}

impl Cluster {
    /// So many nodes with Redis between them, without limits, on the loopback interface.
    pub async fn start(nodes: usize) -> Self {
        Make::nodes(nodes).start().await
    }

    /// Another node joins, with settings of its own beside those of all. It has a folder of its own.
    pub async fn join(&mut self, more: Vec<(String, String)>) -> &mut TestNode {
        let number = self.nodes.len();
        let folder = Arc::new(tempfile::Builder::new().prefix("sotto-node").tempdir().expect("a folder"));
        let place = self.net.as_ref().map_or_else(Place::default, |net| net.place(number));
        let mut settings = self.settings.clone();
        settings.push(("SOTTO_CLUSTER__NODE_ID".to_owned(), format!("node-{number}")));
        settings.extend(more);
        let store_url = self.store_url.clone();
        let node = TestNode::at(place, Kind::Postgres, folder, store_url, settings, free_port()).await;
        self.nodes.push(node);
        self.nodes.last_mut().expect("it was pushed")
    }

    /// Where clients reach the nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// The one Redis that all share.
    pub fn redis(&mut self) -> &mut RedisServer {
        match &mut self.bus {
            Bus::Redis(redis) => redis,
            Bus::Nothing | Bus::Sentinels(_) => panic!("this cluster has no Redis of its own"),
        }
    }

    /// Ports that the nodes reach Redis at, sentinels included.
    pub fn redis_ports(&self) -> Vec<u16> {
        match &self.bus {
            Bus::Nothing => Vec::new(),
            Bus::Redis(redis) => vec![redis.port],
            Bus::Sentinels(set) => set.ports(),
        }
    }

    /// The folder of PostgreSQL's data.
    pub fn data(&self) -> &Path {
        self.postgres.folder()
    }
}
