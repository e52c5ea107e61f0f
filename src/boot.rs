//! From a configuration to a running node, and back to nothing.
//!
//! Start: folder, keys, database, migrations, identity, node, listeners, the line `listening on …`. Stop: readiness
//! red, a while for load balancers, no new connections, sockets sent away, Journals flushed, codes handed to the gateway, listeners down.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use actix_rt::task::JoinHandle;
use actix_web::web;
use rustix::process::{Resource, getrlimit};
use sotto_actors::admission::{ConnectionLimits, Connections};
use sotto_actors::bus::seal::ClusterKeys;
use sotto_actors::node::{ClusterSettings, StartError};
use sotto_actors::rate_limit::{Limit, LimitSettings};
use sotto_actors::{Node, NodeSettings};
use sotto_protocol::{DeviceId, Timestamp, UserId, close};
use sotto_schema::{Store, StoreError, StoreSettings};
use uuid::Uuid;

use crate::config::Config;
use crate::http::address::TrustedProxies;
use crate::http::body::OpenBodies;
use crate::http::cursor::Cursors;
use crate::http::health::Pulse;
use crate::http::strangers::Strangers;
use crate::http::{Door, Services, app, idempotency, socket};
use crate::identity::Identity;
use crate::identity::changes::Changes;
use crate::identity::secret_key::{SecretKeyError, SecretKeys};
use crate::identity::sms::{Sms, SmsError};
use crate::listener::gate::Gate;
use crate::listener::{ListenerHandle, ListenerSettings, listen};
use crate::shutdown::Shutdown;

/// Open files that are kept for the database, Redis, the gateway for text messages and operators; at most a quarter of all.
const RESERVED_FILES: usize = 256;
/// Connections of operators: half of the reserve, at most so many.
const ADMIN_CONNECTIONS: usize = 64;

/// How often rows that have ended are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A folder or file of the node cannot be made or read.
    #[error("{what}: {error}")]
    Files {
        /// What was to be done.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// The secret keys cannot be used.
    #[error(transparent)]
    Keys(#[from] SecretKeyError),
    /// This node has other secret keys than the database belongs to.
    #[error("the secret keys in {0} are not those that this database belongs to; all nodes share one file")]
    OtherKeys(String),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis is set to something that cannot be used.
    #[error(transparent)]
    Redis(#[from] sotto_actors::redis::RedisSetting),
    /// Text messages cannot be sent.
    #[error(transparent)]
    Sms(#[from] SmsError),
    /// An actor died that the node cannot live without; the log says how.
    #[error("the actor {0} has died; start the node again and report what the log says of it")]
    Died(&'static str),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

impl From<StartError> for BootError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => Self::Store(error),
            StartError::Redis(error) => Self::Redis(error),
        }
    }
}

/// A node that serves.
pub struct Running {
    /// Where REST and sockets are.
    pub address: SocketAddr,
    /// Where `/metrics`, `/docs` and the rest for operators are.
    pub admin_address: Option<SocketAddr>,
    /// The node.
    pub node: Node,
    /// Sign-in and the key directory.
    pub identity: web::Data<Identity>,
    handles: Vec<ListenerHandle>,
    servers: Vec<JoinHandle<io::Result<()>>>,
    chores: Vec<JoinHandle<()>>,
    notice: Duration,
    drain_timeout: Duration,
}

/// Runs a node until a signal asks it to end.
///
/// # Errors
/// The node does not start.
pub async fn serve(config: Config) -> Result<(), BootError> {
    if let Some(banner) = config.banner() {
        tracing::warn!("{banner}");
    }
    let shutdown = Shutdown::new();
    let signals = shutdown.listen_for_signals();
    signals.map_err(|error| BootError::Files { what: "cannot listen for signals".to_owned(), error })?;
    let running = start(&config).await?;
    announce(running.address);
    let dead = tokio::select! {
        () = shutdown.triggered() => None,
        what = running.node.failed() => Some(what),
    };
    tracing::info!("draining");
    tokio::select! {
        () = running.stop() => {}
        () = shutdown.forced() => tracing::warn!("a second signal: stopping at once"),
    }
    dead.map_or(Ok(()), |what| Err(BootError::Died(what)))
}

/// The one line on standard output that tools wait for.
fn announce(address: SocketAddr) {
    let mut out = io::stdout().lock();
    // Nobody may be listening to it any more.
    let _ = writeln!(out, "listening on http://{address}").and_then(|()| out.flush());
    tracing::info!(%address, "serving");
}

/// Starts a node on the configuration's addresses.
///
/// # Errors
/// Whatever is missing or wrong, in words.
pub async fn start(config: &Config) -> Result<Running, BootError> {
    let bind = |address: SocketAddr| {
        let bound = TcpListener::bind(address);
        bound.map_err(|error| BootError::Listen { address, error })
    };
    make_folder(&config.data.dir)?;
    let main = bind(config.http.listen)?;
    let admin = config.http.admin_listen.map(bind).transpose()?;
    start_on(config, main, admin).await
}

/// Starts a node on listeners that are bound already.
///
/// # Errors
/// Whatever is missing or wrong, in words.
pub async fn start_on(config: &Config, main: TcpListener, admin: Option<TcpListener>) -> Result<Running, BootError> {
    let keys = Arc::new(SecretKeys::open(&config.secret_key_file())?);
    let store = open_store(config).await?;
    let fingerprint = keys.fingerprint();
    if store.claim_fingerprint(fingerprint.clone()).await? != fingerprint {
        return Err(BootError::OtherKeys(config.secret_key_file().display().to_string()));
    }
    let node_id = node_id(config)?;
    let live = Arc::new(Live::default());
    let changes: Arc<dyn Changes> = live.clone();
    let sms = Sms::start(config)?;
    let identity = web::Data::new(Identity::new(store.clone(), Arc::clone(&keys), sms, changes, config, &node_id));
    let settings = node_settings(config, node_id, &keys);
    let node = Node::start(store, identity.clone().into_inner(), settings).await?;
    // Set once: nothing has changed before the listeners are up.
    let _ = live.0.set(node.clone());

    let address = local_address(&main)?;
    let admin_address = admin.as_ref().map(local_address).transpose()?;
    let services = Services {
        node: node.clone(),
        identity: identity.clone(),
        cursors: Cursors::new(keys),
        health: Pulse::new(config.dev.insecure),
        strangers: Strangers::new(&config.limits),
        open_bodies: OpenBodies::new(config.http.open_bodies),
    };
    let mut running = Running {
        address,
        admin_address,
        node: node.clone(),
        identity: identity.clone(),
        handles: Vec::new(),
        servers: Vec::new(),
        chores: Vec::new(),
        notice: config.drain.notice.duration(),
        drain_timeout: config.drain.timeout.duration(),
    };
    // A sign-in finds room in the history from the first request on.
    if let Err(error) = identity.keep_history(Timestamp::now()).await {
        tracing::warn!(%error, "the history of sign-ins could not be given room");
    }
    running.open(main, config, &services, Door::main(&config.http))?;
    if let Some(admin) = admin {
        running.open(admin, config, &services, Door::Admin)?;
    }
    running.chores.push(actix_rt::spawn(async move { identity.keep_house().await }));
    running.chores.push(actix_rt::spawn(sweep_idempotency(node)));
    Ok(running)
}

impl Running {
    fn open(
        &mut self,
        listener: TcpListener,
        config: &Config,
        services: &Services,
        door: Door,
    ) -> Result<(), BootError> {
        let address = local_address(&listener)?;
        let upgrades = if door == Door::Admin {
            crate::listener::Upgrades::new()
        } else {
            socket::upgrades(&services.node, &services.strangers, config)
        };
        let settings = ListenerSettings {
            workers: if door == Door::Admin { 1 } else { config.http.worker_count() },
            head_timeout: config.http.request_timeout.duration(),
            write_timeout: config.http.write_timeout.duration(),
            stop_timeout: Duration::from_secs(2),
            gate: Some(gate(config, door)),
            ..ListenerSettings::default()
        };
        let (services, config) = (services.clone(), Arc::new(config.clone()));
        let make = move || {
            if door != Door::Admin {
                services.node.threads().join();
            }
            app(&services, &config, door)
        };
        let (server, handle) =
            listen(vec![listener], &settings, make, upgrades).map_err(|error| BootError::Listen { address, error })?;
        self.servers.push(actix_rt::spawn(server));
        self.handles.push(handle);
        Ok(())
    }

    /// Drains and stops: what was acknowledged is stored, sockets are told to go elsewhere.
    pub async fn stop(self) {
        self.node.take_leave();
        // A load balancer has to look before the listeners close.
        tokio::time::sleep(self.notice).await;
        for handle in &self.handles {
            handle.stop_accepting().await;
        }
        self.node.drain(self.drain_timeout).await;
        if let Err(error) = self.identity.write_history().await {
            tracing::warn!(%error, "the last tries to sign in could not be written");
        }
        let unsent = self.identity.sms().drain(Duration::from_secs(2)).await;
        if unsent > 0 {
            tracing::warn!(unsent, "codes could not be handed to the gateway in time");
        }
        for chore in &self.chores {
            chore.abort();
        }
        for handle in &self.handles {
            handle.stop(true).await;
        }
        for server in self.servers {
            if let Ok(Err(error)) = server.await {
                tracing::warn!(%error, "a listener ended badly");
            }
        }
        tracing::info!("stopped");
    }
}

/// Who may connect to a listener.
fn gate(config: &Config, door: Door) -> Gate {
    // What the kernel lets this process open, less what it needs besides.
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let reserve = (files / 4).min(RESERVED_FILES);
    let limits = match door {
        // They are a part of the reserve.
        Door::Admin => ConnectionLimits { most: ADMIN_CONNECTIONS.min(reserve / 2), per_network: usize::MAX },
        Door::Main { .. } => ConnectionLimits {
            most: files - reserve,
            per_network: if config.limits.enabled { config.http.max_connections_per_network } else { usize::MAX },
        },
    };
    Gate { connections: Connections::new(limits), proxies: TrustedProxies::of(&config.http) }
}

async fn sweep_idempotency(node: Node) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = idempotency::prune(node.store(), Timestamp::now()).await {
            tracing::warn!(%error, "old idempotency keys could not be removed");
        }
    }
}

/// Opens the configured database and brings its schema up.
///
/// # Errors
/// A database that does not answer, or a schema that is newer than this program's.
pub async fn open_store(config: &Config) -> Result<Store, BootError> {
    let url = config.store_url();
    // The workers, and the thread that everything starts on.
    let threads = u32::try_from(config.http.worker_count() + 1).unwrap_or(u32::MAX);
    let settings = StoreSettings { threads, ..StoreSettings::from(&config.store) };
    let store = Store::open(url.expose(), &settings).await?;
    for name in sotto_schema::migrate(&store).await? {
        tracing::info!(name, "migrated");
    }
    Ok(store)
}

/// Makes the data folder for this user alone.
fn make_folder(folder: &Path) -> Result<(), BootError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| BootError::Files { what: format!("cannot make the folder {}", folder.display()), error })
}

/// The configured name, or a random one that is kept in the data folder.
fn node_id(config: &Config) -> Result<String, BootError> {
    if let Some(name) = &config.cluster.node_id {
        return Ok(name.clone());
    }
    let path = config.data.dir.join("node_id");
    let failed = |error| BootError::Files { what: format!("cannot keep the node's name in {}", path.display()), error };
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) => Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is empty"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = format!("node-{:08x}", Uuid::new_v4().as_fields().0);
            make_folder(&config.data.dir)?;
            keep(&path, &name).map_err(failed)?;
            Ok(name)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Whole or not at all, also after a power cut: an empty file would keep the node from starting.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn node_settings(config: &Config, node_id: String, keys: &SecretKeys) -> NodeSettings {
    let cluster = config.cluster.redis_url.as_ref().map(|url| ClusterSettings {
        redis_url: url.expose().to_owned(),
        // The oldest first: it seals, and every node has it, whether it has seen the newest or not.
        keys: ClusterKeys::new(keys.all().rev().map(|set| *set.cluster().expose()).collect()),
        namespace: keys.fingerprint().chars().filter(char::is_ascii_alphanumeric).take(12).collect(),
    });
    let per = |count, seconds| Limit { count, window: Duration::from_secs(seconds) };
    let limits = &config.limits;
    NodeSettings {
        node_id,
        heartbeat: config.socket.heartbeat_ms.duration(),
        hello_timeout: config.socket.hello_timeout.duration(),
        ack_timeout: config.socket.ack_timeout.duration(),
        journals: journals(config.store.journal_connections),
        limits: LimitSettings {
            enabled: limits.enabled,
            messages: per(limits.messages_per_minute, 60),
            requests: per(limits.requests_per_minute, 60),
            conversations: per(limits.conversations_per_hour, 3600),
            read_marks: per(limits.read_marks_per_minute, 60),
            notices_per_hour: limits.notified_users_per_hour,
        },
        max_sockets: config.http.max_sockets,
        max_sockets_per_user: config.http.max_sockets_per_user,
        cluster,
        ..NodeSettings::default()
    }
}

/// Journals that write at the same time: what is set, else one for two cores, up to eight.
fn journals(set: Option<u32>) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    set.map_or((cores / 2).clamp(1, 8), |count| usize::try_from(count).unwrap_or(1))
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, BootError> {
    let address = listener.local_addr();
    address.map_err(|error| BootError::Files { what: "a listener has no address".to_owned(), error })
}

/// What identity tells the live side. The node comes second, for it needs identity itself.
#[derive(Default)]
struct Live(OnceLock<Node>);

impl Changes for Live {
    fn devices_changed(&self, _user_id: UserId, told: &[UserId]) {
        if let Some(node) = self.0.get().cloned() {
            let told = told.to_vec();
            actix_rt::spawn(async move { node.account_moved(&told).await });
        }
    }

    fn session_ended(&self, user_id: UserId, device_id: DeviceId, family: Uuid) {
        if let Some(node) = self.0.get() {
            node.end_device(user_id, device_id, family, close::DEVICE_REVOKED);
        }
    }

    fn keys_low(&self, user_id: UserId, device_id: DeviceId) {
        if let Some(node) = self.0.get().cloned() {
            actix_rt::spawn(async move {
                for low in node.identity().keys_low(device_id).await {
                    node.keys_low(user_id, device_id, low);
                }
            });
        }
    }
}
