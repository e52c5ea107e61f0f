//! Who may connect, before anything is kept for him.

use std::io;
use std::net::{IpAddr, Shutdown};

use sotto_actors::admission::{Connections, Full, Place};
use sotto_protocol::{ErrorCode, Problem};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::http::address::TrustedProxies;
use crate::identity::network::place as network_of;

/// What connections of a listener are held against.
#[derive(Clone, Debug)]
pub struct Gate {
    /// How many there are.
    pub connections: Connections,
    /// Trusted proxies. Their connections count against no network until a request names the client.
    pub proxies: TrustedProxies,
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) place: Place,
    /// A trusted proxy's.
    pub(super) is_proxy: bool,
}

impl Gate {
    /// Lets a connection in, or tells it why not as far as that goes without waiting.
    ///
    /// # Errors
    /// It is refused.
    pub(super) fn enter(&self, stream: &TcpStream, peer: IpAddr) -> io::Result<Entered> {
        let is_proxy = self.proxies.contains(peer);
        let network = (!is_proxy).then(|| network_of(peer));
        self.connections.enter(network).map(|place| Entered { place, is_proxy }).map_err(|full| {
            metrics::counter!("sotto_connections_refused_total", "full" => word(full)).increment(1);
            // Whoever sends much at once sees a reset instead.
            let socket = socket2::SockRef::from(stream);
            let _ = socket.send(&answer(full));
            let _ = socket.shutdown(Shutdown::Write);
            io::Error::other(word(full))
        })
    }
}

const fn word(full: Full) -> &'static str {
    match full {
        Full::Node => "node",
        Full::Network => "network",
    }
}

/// The problem that a connection is refused with.
#[must_use]
pub fn refusal(full: Full) -> Problem {
    match full {
        Full::Node => Problem::unavailable("this node has as many connections as it takes").retry_after(5000),
        Full::Network => {
            let detail = "your network has as many connections as it may";
            Problem::new(ErrorCode::RateLimited, detail).retry_after(5000)
        }
    }
}

fn answer(full: Full) -> Vec<u8> {
    let mut problem = refusal(full);
    problem.request_id = Uuid::now_v7().to_string();
    let reason = if full == Full::Node { "Service Unavailable" } else { "Too Many Requests" };
    let body = serde_json::to_string(&problem).unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\nx-request-id: {}\r\ncontent-type: application/problem+json\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        problem.status,
        problem.request_id,
        body.len()
    )
    .into_bytes()
}
