//! `GET /v1/ws`: who may open a socket, and its hand-over to a Device actor.

use std::net::{IpAddr, Ipv4Addr};

use actix::Actor;
use actix_http::header::{AUTHORIZATION, HeaderMap, ORIGIN};
use sotto_actors::device::Device;
use sotto_actors::echo::Echo;
use sotto_actors::node::Node;
use sotto_protocol::{ErrorCode, Problem, limits};

use super::address::TrustedProxies;
use super::exchange::limit_headers;
use super::strangers::{Open, Strangers};
use crate::config::Config;
use crate::config::network::Origin;
use crate::identity::network::place as network_of;
use crate::listener::gate::refusal as too_many;
use crate::listener::{UpgradeRequest, Upgrades};

/// Longest message that the echo route takes, in bytes.
const ECHO_MAX: usize = 16 << 20;

/// What a handshake is checked against.
#[derive(Clone)]
struct Gate {
    node: Node,
    origins: Vec<Origin>,
    proxies: TrustedProxies,
    strangers: Strangers,
}

/// The routes that upgrade: `/v1/ws`, and `/dev/echo` where `dev.echo` allows it.
#[must_use]
pub fn upgrades(node: &Node, strangers: &Strangers, config: &Config) -> Upgrades {
    let gate = Gate {
        node: node.clone(),
        origins: config.http.allowed_origins.clone(),
        proxies: TrustedProxies::of(&config.http),
        strangers: strangers.clone(),
    };
    let routes = Upgrades::new().route("/v1/ws", move |request| open(gate.clone(), request));
    if !config.dev.echo {
        return routes;
    }
    routes.route("/dev/echo", |request| async move {
        match request.accept(None, &[]) {
            Ok(upgraded) => drop(Echo::new(upgraded, ECHO_MAX).start()),
            Err(error) => tracing::debug!(%error, "an echo socket was not opened"),
        }
    })
}

async fn open(gate: Gate, mut request: UpgradeRequest) {
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let address = gate.proxies.client(peer, request.headers());
    if let Some(decision) = gate.strangers.count(Open::Socket, address).filter(|decision| !decision.allowed) {
        let problem = Problem::rate_limited(decision.retry_after_ms);
        return request.reject_with(problem, &limit_headers(decision)).await;
    }
    if let Some(problem) = refusal(&gate, &request) {
        return request.reject_with(problem, &[]).await;
    }
    // A proxy's connection becomes its client's, if the proxy says who that is.
    if !gate.proxies.contains(address)
        && let Some(place) = request.place()
        && let Err(full) = place.belongs_to(network_of(address))
    {
        return request.reject_with(too_many(full), &[]).await;
    }
    if !gate.node.connection_opened() {
        let problem = Problem::unavailable("this node has as many sockets as it takes").retry_after(5000);
        return request.reject_with(problem, &[]).await;
    }
    let bearer = bearer(request.headers()).map(str::to_owned);
    let caller = match bearer {
        // What is not valid counts as absent: `hello` is waited for.
        Some(token) => gate.node.identity().authenticate(&token).await.ok(),
        None => None,
    };
    let place = request.place().take();
    match request.accept(Some(limits::SUBPROTOCOL), &[]) {
        Ok(upgraded) => drop(Device::new(upgraded, gate.node, caller, place).start()),
        Err(error) => {
            gate.node.connection_closed();
            tracing::debug!(%error, "a socket was not opened");
        }
    }
}

fn refusal(gate: &Gate, request: &UpgradeRequest) -> Option<Problem> {
    if gate.node.is_draining() {
        return Some(Problem::unavailable("this node is draining").retry_after(1000));
    }
    if let Some(origin) = request.header(&ORIGIN)
        && !gate.origins.iter().any(|allowed| allowed.as_str() == origin)
    {
        return Some(Problem::new(ErrorCode::Forbidden, "this origin is not in http.allowed_origins"));
    }
    if !request.offers(limits::SUBPROTOCOL) {
        let detail = format!("offer the subprotocol {}", limits::SUBPROTOCOL);
        return Some(Problem::new(ErrorCode::InvalidFrame, detail));
    }
    None
}

/// The token of the `Authorization` header of the scheme `Bearer` (RFC 6750, 2.1). Two headers are none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION);
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
