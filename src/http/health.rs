//! How the node is: `/health` for people and load balancers, `/livez` and `/readyz` for orchestrators.
//!
//! Unready is (rule D15): no commit and read-back in the database within 2 seconds, a sweep of wakes older than 15
//! seconds, or draining. The database is asked at most once a second, however often somebody looks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use sotto_actors::node::Node;
use sotto_protocol::Timestamp;
use tokio::sync::Mutex;
use tokio::time::timeout;
use utoipa::ToSchema;

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
        let serves = well && node.sweep_age() <= OLDEST_SWEEP && !node.is_draining();
        let status = |well| if well { Status::Ok } else { Status::Down };
        Health {
            status: status(serves),
            db: status(well),
            redis: None,
            node_id: node.node_id().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.uptime().as_secs(),
            draining: node.is_draining(),
            insecure: self.0.insecure,
        }
    }
}

fn code(status: Status) -> StatusCode {
    if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// `GET /health`.
#[utoipa::path(get, path = "/health", tag = "operation", responses(
    (status = 200, description = "It takes requests", body = Health),
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
    if is_verbose && door.serves_operators() {
        let sweep_age = services.node.sweep_age();
        for (check, is_well) in [
            (format!("database ({})", services.node.store().kind()), health.db == Status::Ok),
            (format!("sweep, {} ms ago", sweep_age.as_millis()), sweep_age <= OLDEST_SWEEP),
            ("not draining".to_owned(), !health.draining),
        ] {
            text.push_str(if is_well { "[+] " } else { "[-] " });
            text.push_str(&check);
            text.push('\n');
        }
    }
    text.push_str(if health.status == Status::Down { "not ready\n" } else { "ok\n" });
    HttpResponse::build(code(health.status)).content_type("text/plain; charset=utf-8").body(text)
}
