//! How the node is: `/health` for people and load balancers, `/livez` and `/readyz` for orchestrators.
//!
//! Unready is (rule D15): no commit and read-back in the database within 2 seconds, a sweep of wakes older than 15
//! seconds, a node that does not read what it commits, or draining. The database is asked at most once a second, however
//! often somebody looks. Whatever else does not arrive makes the node degraded: it serves, and delivery takes longer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use sotto_actors::cluster::canary::Path;
use sotto_actors::node::Node;
use sotto_protocol::Timestamp;
use tokio::sync::Mutex;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::address::is_forwarded;
use super::{Door, Services};

/// The database answers a commit and a read-back within this time.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// How long an answer of the database counts.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Wakes are swept each second; this long without is a fault.
const OLDEST_SWEEP: Duration = Duration::from_secs(15);

/// How a node or a part of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It serves, but something is missing.
    Degraded,
    /// It does not serve.
    Down,
}

/// `GET /health`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// The node as a whole.
    pub status: Status,
    /// The database.
    pub db: Status,
    /// Redis; `null`: this node works without.
    pub redis: Option<Status>,
    /// The paths whose canaries do not arrive: `wake_loop` and `wake_peer` through the database, `bus_loop` and
    /// `bus_peer` through Redis, `registry`. A node that others miss as well is at fault itself and not named here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<&'static str>,
    /// The node's name.
    pub node_id: String,
    /// The program's version.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime: u64,
    /// Whether the node takes its leave.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Whether `dev.insecure` is set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The bug that tests have given this program.
    #[cfg(feature = "planted-bugs")]
    pub planted_bug: Option<&'static str>,
}

/// Looks at the node, seldom enough not to be a load. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: Instant,
    insecure: bool,
    /// The last look at the database, and what it said. Who comes while it is asked waits for the same answer.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Pulse {
    /// For a node that starts now; `insecure` is `dev.insecure`.
    #[must_use]
    pub fn new(insecure: bool) -> Self {
        Self(Arc::new(Inner { begun: Instant::now(), insecure, last: Mutex::new(None) }))
    }

    /// Time since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.0.begun.elapsed()
    }

    async fn database_is_well(&self, node: &Node) -> bool {
        let mut last = self.0.last.lock().await;
        if let Some((at, well)) = *last
            && at.elapsed() < PROBE_EVERY
        {
            return well;
        }
        let well = match timeout(PROBE_WITHIN, node.store().probe(Timestamp::now())).await {
            Ok(Ok(well)) => well,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the database failed its probe");
                false
            }
            Err(_) => {
                tracing::warn!("the database did not answer its probe within 2 seconds");
                false
            }
        };
        *last = Some((Instant::now(), well));
        well
    }

    /// How the node is now.
    pub async fn look(&self, node: &Node) -> Health {
        let well = self.database_is_well(node).await;
        let view = node.view();
        let serves = well && node.sweep_age() <= OLDEST_SWEEP && view.loopback_is_well() && !node.is_leaving();
        let status = |well| if well { Status::Ok } else { Status::Down };
        let (redis, degraded) = (node.redis_is_well(), view.degraded());
        let lacks = redis == Some(false) || !degraded.is_empty();
        Health {
            status: if serves && lacks { Status::Degraded } else { status(serves) },
            db: status(well),
            redis: redis.map(status),
            degraded,
            node_id: node.node_id().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.uptime().as_secs(),
            draining: node.is_leaving(),
            insecure: self.0.insecure,
            #[cfg(feature = "planted-bugs")]
            planted_bug: sotto_schema::planted::name(),
        }
    }
}

fn code(status: Status) -> StatusCode {
    if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// `GET /health`.
#[utoipa::path(get, path = "/health", tag = "operation", responses(
    (status = 200, description = "It takes requests: `ok`, or `degraded` where delivery takes longer", body = Health),
    (status = 503, description = "It does not", body = Health),
))]
pub async fn health(services: web::ThinData<Services>) -> HttpResponse {
    let health = services.health.look(&services.node).await;
    HttpResponse::build(code(health.status)).json(health)
}

/// `GET /livez`: the process turns its wheels. Looks at nothing else, or a slow database would get nodes killed.
#[utoipa::path(get, path = "/livez", tag = "operation", responses(
    (status = 200, description = "The process lives", body = String, content_type = "text/plain"),
))]
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

/// Every check in a line: `[+]` it is well, `[~]` the node is degraded, `[-]` it is not ready.
fn checks(node: &Node, health: &Health) -> String {
    let (view, now) = (node.view(), Instant::now());
    let sweep_age = node.sweep_age();
    let mark = |is_well: bool, otherwise: &'static str| if is_well { "[+]" } else { otherwise };
    let mut lines = vec![
        format!("{} database ({})", mark(health.db == Status::Ok, "[-]"), node.store().kind()),
        format!("{} sweep, {} ms ago", mark(sweep_age <= OLDEST_SWEEP, "[-]"), sweep_age.as_millis()),
        format!("{} not draining", mark(!health.draining, "[-]")),
    ];
    if let Some(redis) = health.redis {
        lines.push(format!("{} redis", mark(redis == Status::Ok, "[~]")));
    }
    match view.peers {
        Some(peers) => lines.push(format!("[+] other nodes: {peers}")),
        None => lines.push("[~] other nodes: not known, the database did not say".to_owned()),
    }
    for known in &view.paths {
        let otherwise = match known.path {
            Path::WakeLoop => "[-]",
            _ if known.is_at_fault => "[+]",
            _ => "[~]",
        };
        let peer = known.peer.as_ref().map(|peer| format!(" {peer}")).unwrap_or_default();
        let last = match (known.watch.arrived(), known.watch.took()) {
            (Some(at), Some(took)) => {
                let ago = now.saturating_duration_since(at).as_millis();
                format!("arrived {ago} ms ago, took {} ms", took.as_millis())
            }
            _ => "none has arrived yet".to_owned(),
        };
        let missed = match known.watch.missed() {
            0 => String::new(),
            missed => format!(", {missed} missed since"),
        };
        let fault = if known.is_at_fault { "; others miss them there, too" } else { "" };
        let mark = mark(known.is_well(now), otherwise);
        lines.push(format!("{mark} canary {}{peer}: {last}{missed}{fault}", known.path.as_str()));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// `GET /readyz`: whether requests should be sent here. `?verbose` lists the reasons, where operators look.
#[utoipa::path(get, path = "/readyz", tag = "operation",
    params(("verbose" = Option<String>, Query, description = "Lists each check; on the admin listener only")),
    responses(
        (status = 200, description = "Requests may come", body = String, content_type = "text/plain"),
        (status = 503, description = "They should go elsewhere", body = String, content_type = "text/plain"),
    ))]
pub async fn readyz(
    request: HttpRequest,
    services: web::ThinData<Services>,
    door: web::ThinData<Door>,
) -> HttpResponse {
    let health = services.health.look(&services.node).await;
    let mut text = String::new();
    let is_verbose = request.query_string().split('&').any(|pair| pair.split('=').next() == Some("verbose"));
    if is_verbose && door.serves_operators() && !is_forwarded(request.headers()) {
        text = checks(&services.node, &health);
    }
    text.push_str(if health.status == Status::Down { "not ready\n" } else { "ok\n" });
    HttpResponse::build(code(health.status)).content_type("text/plain; charset=utf-8").body(text)
}
