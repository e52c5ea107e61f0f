//! The actor Cluster: says in the database that this node lives, sees who else does, and sends canaries (rule D15).
//!
//! *Owns:* what is known of the other nodes and of the paths to them.
//! *When full:* a canary that nobody takes in counts as missed.
//! *On death:* the node ends in order.
//!
//! Nothing here delivers. It says how well delivery goes, and closes sockets that a newer one elsewhere has replaced, in
//! case Redis did not (rule D7).

use crate::bus::event::{Canary, Event, Parcel, Receivers, Replaced};
use crate::node::Node;
use crate::registry::{Incarnation, Registration, is_counted};
use crate::tree::Vital;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use sotto_protocol::{DeviceId, Timestamp};
use sotto_schema::StoreError;
use sotto_schema::rows::nodes::{NodeReport, NodeRow};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub mod canary;

use canary::{Path, WakeCanary, Watch};

/// How often the node writes its row.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How often canaries are sent, and connections compared.
const CANARY_EVERY: Duration = Duration::from_secs(5);
/// A node that was not seen for so long is none that counts, in milliseconds of the database's clock.
const LIVE_MS: i64 = 10_000;
/// A list of nodes that is older than this is not relied on.
const LIST_LIVES: Duration = Duration::from_secs(10);
/// Connections that are compared in one query.
const AT_ONCE: usize = 512;

/// A wake that is a canary was swept.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Swept(pub(crate) WakeCanary);

/// A canary has come by the bus.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Heard(pub(crate) Canary);

/// The node's row is to be written now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Report;

/// The node ends in order: its row goes; answered then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Leave(pub(crate) oneshot::Sender<()>);

/// One path as this node sees it.
#[derive(Clone, Debug)]
pub struct PathView {
    /// Which.
    pub path: Path,
    /// The name of the node at its other end; none: it leads back to this one.
    pub peer: Option<String>,
    /// What is known of it.
    pub watch: Watch,
    /// Others miss that node's canaries, too: it is not this one's fault.
    pub is_at_fault: bool,
}

/// What this node knows of the others and of the paths between them.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Other nodes that were seen within ten seconds; `None`: it is not known.
    pub peers: Option<usize>,
    /// All paths.
    pub paths: Vec<PathView>,
}

impl PathView {
    /// Whether canaries arrive. Silence alone says nothing of a path to another node: one that has died is not missed for
    /// longer than it is listed.
    #[must_use]
    pub fn is_well(&self, now: Instant) -> bool {
        if self.peer.is_some() { self.watch.is_answered() } else { self.watch.is_well(now) }
    }
}

impl View {
    /// The paths that make this node degraded, each once.
    #[must_use]
    pub fn degraded(&self) -> Vec<&'static str> {
        let now = Instant::now();
        let bad = self.paths.iter().filter(|path| !path.is_at_fault && !path.is_well(now));
        let words: BTreeSet<Path> = bad.map(|path| path.path).collect();
        words.into_iter().map(Path::as_str).collect()
    }

    /// Whether this node reads what it commits. Before the first canary it is believed to.
    #[must_use]
    pub fn loopback_is_well(&self) -> bool {
        let now = Instant::now();
        self.paths.iter().filter(|path| path.path == Path::WakeLoop).all(|path| path.watch.is_well(now))
    }
}

/// One node among others.
pub struct Cluster {
    node: Node,
    started_at: Option<Timestamp>,
    /// All rows but this node's own, and when they were read.
    others: Vec<NodeRow>,
    read_at: Instant,
    /// When another node's row was seen last.
    company_at: Option<Instant>,
    watches: BTreeMap<(Path, Option<Incarnation>), Watch>,
    number: u64,
    /// The newest canary of each node that was answered: a sweep may read a wake again and again.
    answered: HashMap<Incarnation, u64>,
    told: Vec<&'static str>,
    is_reporting: bool,
    is_comparing: bool,
    leaving: Option<oneshot::Sender<()>>,
    has_left: bool,
    _life: Vital,
}

/// Writes the first row of a node, so that others know of it before anybody is registered here.
///
/// # Errors
/// The database failed.
pub(crate) async fn join(node: &Node) -> Result<Vec<NodeRow>, StoreError> {
    node.store().report_node(report(node, None, &Watch::new(Instant::now()), Vec::new(), Vec::new())).await
}

fn report(
    node: &Node,
    started_at: Option<Timestamp>,
    loopback: &Watch,
    degraded: Vec<String>,
    missed: Vec<uuid::Uuid>,
) -> NodeReport {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    NodeReport {
        incarnation: node.incarnation().0,
        node_id: node.node_id().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at,
        sockets: count(node.connections()),
        sessions: count(node.sessions().len()),
        conversations: count(node.conversations().len()),
        sweep_lag_ms: i64::try_from(loopback.lag(Instant::now()).as_millis()).unwrap_or(i64::MAX),
        is_draining: node.is_leaving(),
        redis: node.redis_is_well(),
        degraded,
        missed,
    }
}

impl Cluster {
    /// For a node whose first row is written; `rows` is what stood there.
    pub(crate) fn new(node: Node, rows: Vec<NodeRow>) -> Self {
        let life = node.vital("cluster");
        let mut cluster = Self {
            node,
            started_at: None,
            others: Vec::new(),
            read_at: Instant::now(),
            company_at: None,
            watches: BTreeMap::new(),
            number: 0,
            answered: HashMap::new(),
            told: Vec::new(),
            is_reporting: false,
            is_comparing: false,
            leaving: None,
            has_left: false,
            _life: life,
        };
        cluster.seen(rows);
        cluster
    }

    // ---- who is there ------------------------------------------------------------------------------

    fn report(&mut self, ctx: &mut Context<Self>) {
        if self.is_reporting || self.has_left {
            return;
        }
        self.is_reporting = true;
        let loopback = self.watches.get(&(Path::WakeLoop, None)).copied().unwrap_or(Watch::new(Instant::now()));
        let degraded = self.view().degraded().into_iter().map(str::to_owned).collect();
        let report = report(&self.node, self.started_at, &loopback, degraded, self.missed());
        metrics::gauge!("sotto_sweep_lag_seconds").set(loopback.lag(Instant::now()).as_secs_f64());
        let store = self.node.store().clone();
        let work = async move { store.report_node(report).await };
        ctx.spawn(work.into_actor(self).map(|rows, cluster, ctx| {
            cluster.is_reporting = false;
            match rows {
                Ok(rows) => cluster.seen(rows),
                Err(error) => tracing::debug!(%error, "the node's row was not written"),
            }
            if let Some(reply) = cluster.leaving.take() {
                cluster.leave(reply, ctx);
            }
        }));
    }

    fn seen(&mut self, rows: Vec<NodeRow>) {
        let own = self.node.incarnation().0;
        let (mine, others): (Vec<NodeRow>, Vec<NodeRow>) = rows.into_iter().partition(|row| row.incarnation == own);
        if let Some(mine) = mine.first() {
            self.started_at = Some(mine.started_at);
        }
        self.others = others;
        self.read_at = Instant::now();
        if !self.others.is_empty() {
            self.company_at = Some(self.read_at);
        }
        self.answered.retain(|node, _| self.others.iter().any(|row| row.incarnation == node.0));
        let live: BTreeSet<Incarnation> = self.live().map(|row| Incarnation(row.incarnation)).collect();
        self.watches.retain(|(_, peer), _| peer.is_none_or(|peer| live.contains(&peer)));
        self.look();
    }

    /// Other nodes that are alive.
    fn live(&self) -> impl Iterator<Item = &NodeRow> {
        self.others.iter().filter(|row| row.silent_ms < LIVE_MS)
    }

    fn knows_others(&self) -> bool {
        self.read_at.elapsed() < LIST_LIVES
    }

    /// Tells the bus who is there, readers how things are, and the log what has changed.
    fn look(&mut self) {
        let live = self.live().count();
        // Not to know is no reason to tell nobody.
        self.node.bus().set_peers(if self.knows_others() { live } else { live.max(1) });
        metrics::gauge!("sotto_peers").set(f64::from(u32::try_from(live).unwrap_or(u32::MAX)));
        let view = self.view();
        let degraded = view.degraded();
        for path in Path::ALL {
            let is_watched = view.paths.iter().any(|known| known.path == path);
            if is_watched {
                let is_well = !degraded.contains(&path.as_str());
                metrics::gauge!("sotto_canary_ok", "path" => path.as_str()).set(if is_well { 1.0 } else { 0.0 });
            }
        }
        for path in degraded.iter().filter(|path| !self.told.contains(path)) {
            tracing::warn!(path, "canaries do not arrive: the node is degraded");
        }
        for path in self.told.iter().filter(|path| !degraded.contains(path)) {
            tracing::info!(path, "canaries arrive again");
        }
        self.told = degraded;
        self.node.show(view);
    }

    fn view(&self) -> View {
        let name = |peer: Incarnation| {
            let row = self.others.iter().find(|row| row.incarnation == peer.0);
            row.map_or_else(|| peer.0.to_string(), |row| row.node_id.clone())
        };
        let paths = self.watches.iter().map(|((path, peer), watch)| PathView {
            path: *path,
            peer: peer.map(name),
            watch: *watch,
            is_at_fault: peer.is_some_and(|peer| self.is_missed_by_others(peer)),
        });
        View { peers: self.knows_others().then(|| self.live().count()), paths: paths.collect() }
    }

    // ---- canaries ----------------------------------------------------------------------------------

    /// Nodes that have not sent a canary back, as far as this one can judge: where its own half of the path fails, it
    /// cannot.
    fn missed(&self) -> Vec<uuid::Uuid> {
        let is_open = |path: Path| self.watches.get(&(path, None)).is_some_and(|watch| watch.missed() == 0);
        let missed =
            self.watches.iter().filter(|((path, _), watch)| watch.missed() > 0 && path.own_half().is_some_and(is_open));
        let nodes: BTreeSet<uuid::Uuid> = missed.filter_map(|((_, peer), _)| peer.map(|peer| peer.0)).collect();
        nodes.into_iter().collect()
    }

    fn is_missed_by_others(&self, peer: Incarnation) -> bool {
        self.live().any(|row| row.incarnation != peer.0 && row.missed().contains(&peer.0))
    }

    /// The next node in the ring, and whoever is missed by anybody: so two nodes can agree on who is at fault.
    fn partners(&self) -> BTreeSet<Incarnation> {
        let own = self.node.incarnation();
        let stays: BTreeSet<Incarnation> =
            self.live().filter(|row| !row.is_draining).map(|row| Incarnation(row.incarnation)).collect();
        let next = stays.range(own..).next().or_else(|| stays.first()).copied();
        let named: Vec<uuid::Uuid> = self.live().flat_map(NodeRow::missed).chain(self.missed()).collect();
        let missed = stays.iter().copied().filter(|node| named.contains(&node.0));
        missed.chain(next).collect()
    }

    fn send_canaries(&mut self, ctx: &mut Context<Self>) {
        if self.has_left {
            return;
        }
        let partners = self.partners();
        self.watches.retain(|(_, peer), _| peer.is_none_or(|peer| partners.contains(&peer)));
        self.send_wake(None, ctx);
        let has_bus = self.node.bus().hears().is_some();
        if has_bus {
            self.send_letter(None);
            self.look_up(ctx);
        }
        for peer in partners {
            self.send_wake(Some(peer), ctx);
            if has_bus {
                self.send_letter(Some(peer));
            }
        }
        self.look();
    }

    /// Notes that a canary goes out on a path, and numbers it.
    fn sends(&mut self, path: Path, peer: Option<Incarnation>) -> u64 {
        self.number += 1;
        let now = Instant::now();
        self.watches.entry((path, peer)).or_insert_with(|| Watch::new(now)).send(self.number, now);
        self.number
    }

    fn send_wake(&mut self, peer: Option<Incarnation>, ctx: &mut Context<Self>) {
        let path = if peer.is_some() { Path::WakePeer } else { Path::WakeLoop };
        let number = self.sends(path, peer);
        let own = self.node.incarnation();
        let canary = WakeCanary { from: own, to: peer.unwrap_or(own), number, returns: false };
        let store = self.node.store().clone();
        let work = async move { store.canary(canary.to_wake()).await };
        ctx.spawn(work.into_actor(self).map(move |written, cluster, _| {
            if written.is_err() {
                cluster.is_lost(number);
            }
        }));
    }

    fn send_letter(&mut self, peer: Option<Incarnation>) {
        let path = if peer.is_some() { Path::BusPeer } else { Path::BusLoop };
        let number = self.sends(path, peer);
        let own = self.node.incarnation();
        let event = Event::Canary(Canary { from: own, number, returns: false });
        self.node.bus().tell_node(Parcel { to: Receivers::Node(peer.unwrap_or(own)), event });
    }

    fn look_up(&mut self, ctx: &mut Context<Self>) {
        let number = self.sends(Path::Registry, None);
        let node = self.node.clone();
        let work = async move { node.registry().canary(number).await };
        ctx.spawn(work.into_actor(self).map(move |is_found, cluster, _| {
            if is_found {
                cluster.arrived(number);
            } else {
                cluster.is_lost(number);
            }
        }));
    }

    fn is_lost(&mut self, number: u64) {
        if let Some(watch) = self.watches.values_mut().find(|watch| watch.awaits(number)) {
            watch.miss();
        }
        self.look();
    }

    fn arrived(&mut self, number: u64) {
        let now = Instant::now();
        for ((path, _), watch) in &mut self.watches {
            if let Some(took) = watch.arrive(number, now) {
                metrics::histogram!("sotto_canary_seconds", "path" => path.as_str()).record(took.as_secs_f64());
            }
        }
        self.look();
    }

    // ---- sockets -----------------------------------------------------------------------------------

    /// Closes the sockets here whose devices have claimed a newer connection, wherever that is (rule D7).
    fn close_replaced(&mut self, ctx: &mut Context<Self>) {
        // Nobody else was there for as long as rows are kept: whoever claims a number claims it here.
        let is_alone = self.knows_others() && self.company_at.is_none_or(|at| at.elapsed() > Duration::from_secs(60));
        let here = if is_alone { Vec::new() } else { self.node.registry().all() };
        if self.is_comparing || here.is_empty() {
            return;
        }
        self.is_comparing = true;
        let node = self.node.clone();
        let work = async move {
            for some in here.chunks(AT_ONCE) {
                let known = some.iter().map(|entry| (entry.device, entry.attempt)).collect();
                let Ok(newer) = node.store().newer_connections(known).await else {
                    return;
                };
                let by_device: HashMap<DeviceId, Registration> =
                    some.iter().map(|entry| (entry.device, *entry)).collect();
                for row in newer {
                    if let Some(old) = by_device.get(&row.device_id) {
                        let explicit = is_counted(row.attempt);
                        node.replaced(Replaced { user: old.user, connection: old.connection, explicit });
                    }
                }
            }
        };
        ctx.spawn(work.into_actor(self).map(|(), cluster, _| cluster.is_comparing = false));
    }

    // ---- the end -----------------------------------------------------------------------------------

    fn leave(&mut self, reply: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        self.has_left = true;
        let node = self.node.clone();
        let work = async move {
            if let Err(error) = node.store().remove_node(node.incarnation().0).await {
                tracing::debug!(%error, "the node's row stays; others remove it within a minute");
            }
            // Whoever waited may have lost patience.
            let _ = reply.send(());
        };
        ctx.spawn(work.into_actor(self));
    }
}

impl Actor for Cluster {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.send_canaries(ctx);
        // The first row is from before this node could hear.
        self.report(ctx);
        ctx.run_interval(REPORT_EVERY, |cluster, ctx| {
            cluster.look();
            cluster.report(ctx);
        });
        ctx.run_interval(CANARY_EVERY, |cluster, ctx| {
            cluster.send_canaries(ctx);
            cluster.close_replaced(ctx);
        });
    }
}

impl Handler<Swept> for Cluster {
    type Result = ();

    fn handle(&mut self, Swept(canary): Swept, ctx: &mut Self::Context) {
        let own = self.node.incarnation();
        if canary.from == own && (canary.returns || canary.to == own) {
            return self.arrived(canary.number);
        }
        let newest = self.answered.get(&canary.from).copied().unwrap_or_default();
        if canary.to != own || canary.returns || canary.number <= newest || self.has_left {
            return;
        }
        self.answered.insert(canary.from, canary.number);
        let (store, back) = (self.node.store().clone(), WakeCanary { returns: true, ..canary });
        // Lost, it is missed there.
        let work = async move { drop(store.canary(back.to_wake()).await) };
        ctx.spawn(work.into_actor(self));
    }
}

impl Handler<Heard> for Cluster {
    type Result = ();

    fn handle(&mut self, Heard(canary): Heard, _: &mut Self::Context) {
        let own = self.node.incarnation();
        if canary.from == own {
            return self.arrived(canary.number);
        }
        if !canary.returns {
            let event = Event::Canary(Canary { returns: true, ..canary });
            self.node.bus().tell_node(Parcel { to: Receivers::Node(canary.from), event });
        }
    }
}

impl Handler<Report> for Cluster {
    type Result = ();

    fn handle(&mut self, _: Report, ctx: &mut Self::Context) {
        self.report(ctx);
    }
}

impl Handler<Leave> for Cluster {
    type Result = ();

    fn handle(&mut self, Leave(reply): Leave, ctx: &mut Self::Context) {
        if self.is_reporting {
            self.leaving = Some(reply);
        } else {
            self.leave(reply, ctx);
        }
    }
}
