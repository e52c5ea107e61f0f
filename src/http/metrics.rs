//! `GET /metrics`: what the node counts, as Prometheus reads it.
//!
//! There is one recorder per process, however many nodes run in it: the first one that asks installs it. What names
//! a node stands in `sotto_node_info`.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::Services;

/// How often samples are folded into their histograms; between scrapes they would pile up.
const FOLD_EVERY: Duration = Duration::from_secs(5);

/// Bounds of everything that is measured in seconds.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of counts, such as the messages of a batch.
const SIZES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, if nobody has yet. Called by every node at its start.
pub fn install() {
    let _already = handle();
}

fn handle() -> &'static PrometheusHandle {
    HANDLE.get_or_init(|| {
        let builder = [(Matcher::Suffix("_seconds".to_owned()), &SECONDS[..]), (Matcher::Suffix("_size".to_owned()), &SIZES)]
            .into_iter()
            // It fails on an empty list of bounds only.
            .try_fold(PrometheusBuilder::new(), |builder, (matcher, bounds)| {
                builder.set_buckets_for_metric(matcher, bounds)
            });
        let recorder = builder.unwrap_or_default().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder of metrics is installed already: /metrics stays empty");
        }
        describe();
        let folding = handle.clone();
        let folder = thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            loop {
                thread::park_timeout(FOLD_EVERY);
                folding.run_upkeep();
            }
        });
        if let Err(error) = folder {
            tracing::warn!(%error, "metrics are folded at scrapes only");
        }
        handle
    })
}

fn describe() {
    describe_counter!("sotto_http_requests_total", "Requests answered, by method, route and status");
    describe_histogram!("sotto_http_request_seconds", Unit::Seconds, "Time to answer a request, by method and route");
    describe_counter!("sotto_errors_total", "Problems answered, by code");
    describe_gauge!("sotto_connections", "Open device sockets");
    describe_counter!(
        "sotto_connections_refused_total",
        "Connections refused before their first request, by what was full: the node, or a network"
    );
    describe_gauge!("sotto_sessions", "Users with an actor here");
    describe_gauge!("sotto_conversations", "Conversations with an actor here");
    describe_counter!("sotto_messages_total", "Messages stored");
    describe_counter!("sotto_deliveries_total", "Durable events sent to devices");
    describe_counter!(
        "sotto_reads_total",
        "Reads of the database for what a connected device has not got yet, by what they read"
    );
    describe_counter!("sotto_batches_total", "Transactions of the journal");
    describe_counter!("sotto_batches_failed_total", "Transactions of the journal that failed");
    describe_histogram!("sotto_batch_size", Unit::Count, "Messages in a transaction of the journal");
    describe_histogram!("sotto_journal_seconds", Unit::Seconds, "Time of a transaction of the journal");
    describe_counter!("sotto_mailbox_refused_total", "Messages that a full mailbox refused; the sweep makes them good");
    describe_counter!(
        "sotto_overload_refused_total",
        "Messages that were refused because more waited than are stored in about a second"
    );
    describe_counter!("sotto_sms_total", "Text messages by what became of them");
    describe_gauge!("sotto_sms_gateway_down", "1: the gateway for text messages fails and is only tried now and then");
    describe_counter!("sotto_logins_dropped_total", "Refused tries to sign in that the history had no room for");
    describe_counter!("sotto_codes_refused_total", "Requests for codes that a limit refused, by the limit");
    describe_counter!("sotto_challenges_demanded_total", "Requests for codes that were answered by a challenge");
    describe_gauge!("sotto_mailbox_depth", "Messages that wait in mailboxes, by actor");
    describe_gauge!(
        "sotto_sweep_lag_seconds",
        Unit::Seconds,
        "From the node's newest own wake to its sweep's reading it"
    );
    describe_gauge!("sotto_peers", "Other nodes that were seen within ten seconds");
    describe_gauge!("sotto_canary_ok", "Whether canaries arrive, by path: 1, or 0 when the node is degraded by it");
    describe_histogram!(
        "sotto_canary_seconds",
        Unit::Seconds,
        "Time of a canary from its sending to its arrival, by path"
    );
    describe_gauge!("sotto_redis_up", "Whether Redis answered the last command: 1 or 0");
    describe_counter!("sotto_bus_letters_total", "Letters sent to other nodes");
    describe_histogram!("sotto_bus_round_size", Unit::Count, "Events in one round of letters");
    describe_counter!("sotto_bus_events_total", "Events that came from other nodes");
    describe_counter!("sotto_bus_dropped_total", "Events that were not sent, by reason; the sweep makes them good");
    describe_counter!("sotto_bus_refused_total", "Letters from other nodes that were refused, by reason");
    describe_counter!(
        "sotto_registrations_lost_total",
        "Users whose registration was gone from Redis and was written again"
    );
    describe_histogram!("sotto_db_seconds", Unit::Seconds, "Time of a call to the database");
}

/// Counts an answered request.
pub(super) fn request(method: &'static str, route: &str, status: u16, code: Option<&'static str>, took: Duration) {
    let route = route.to_owned();
    histogram!("sotto_http_request_seconds", "method" => method, "route" => route.clone()).record(took);
    counter!("sotto_http_requests_total", "method" => method, "route" => route, "status" => status.to_string())
        .increment(1);
    if let Some(code) = code {
        counter!("sotto_errors_total", "code" => code).increment(1);
    }
}

/// `GET /metrics`.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses(
    (status = 200, description = "The text format of Prometheus; on the admin listener", body = String,
        content_type = "text/plain"),
))]
pub async fn metrics(services: web::ThinData<Services>) -> HttpResponse {
    let mut text = handle().render();
    let node = services.node.node_id().replace(['\\', '"', '\n'], "_");
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# HELP sotto_node_info The node that answers\n# TYPE sotto_node_info gauge\n\
         sotto_node_info{{node=\"{node}\",version=\"{}\"}} 1\n\
         # HELP sotto_uptime_seconds Time since the node started\n# TYPE sotto_uptime_seconds gauge\n\
         sotto_uptime_seconds {}\n\
         # HELP sotto_sweep_age_seconds Time since the last sweep of wakes\n\
         # TYPE sotto_sweep_age_seconds gauge\n\
         sotto_sweep_age_seconds {}\n",
        env!("CARGO_PKG_VERSION"),
        services.health.uptime().as_secs(),
        services.node.sweep_age().as_secs_f64(),
    );
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}
