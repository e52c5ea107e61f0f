//! The listeners: addresses, threads and how many sockets one node takes.

use std::{net::SocketAddr, num::NonZeroUsize, thread};

use super::{
    network::{Network, Origin},
    section::section,
    value::{Seconds, words},
};

words! {
    /// The header in which trusted proxies say for whom they ask. Only one is read, or a client could choose by sending
    /// the one that the proxy does not touch.
    pub enum ForwardedBy as "`x-forwarded-for` or `forwarded`" {
        /// What most proxies write.
        XForwardedFor = "x-forwarded-for",
        /// RFC 7239.
        Forwarded = "forwarded",
    }
}

section! {
    /// Where the server listens, whom it believes, and how many it serves.
    pub struct Http in "http" {
        /// Address for REST and WebSocket. Port 0 picks a free one; the line `listening on …` on standard output tells it.
        /// `SOTTO_HTTP__LISTEN`
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080));
        /// Address for `/metrics`, `/docs` and `/readyz?verbose`. Unset: they are on the main listener, but only if that is loopback and `http.trusted_proxies` is empty. Requests that came through a proxy are refused there.
        /// `SOTTO_HTTP__ADMIN_LISTEN`
        pub admin_listen: Option<SocketAddr> = None;
        /// Web origins that may call from a browser. Empty: no CORS headers, and an upgrade that carries an `Origin` is refused.
        /// `SOTTO_HTTP__ALLOWED_ORIGINS`
        pub allowed_origins: Vec<Origin> = Vec::new();
        /// Proxies that are trusted to name the client of a request. Empty: none. With a proxy the main listener counts as public even on loopback.
        /// `SOTTO_HTTP__TRUSTED_PROXIES`
        pub trusted_proxies: Vec<Network> = Vec::new();
        /// The header in which they say it, `x-forwarded-for` or `forwarded` (RFC 7239). The other one is not read.
        /// `SOTTO_HTTP__FORWARDED_HEADER`
        pub forwarded_header: ForwardedBy = ForwardedBy::XForwardedFor;
        /// Threads that serve requests and sockets.
        /// `SOTTO_HTTP__WORKERS`
        pub workers: Option<usize> = None, unset means "number of cores", within 1..=512;
        /// Sockets that this node takes; above that an upgrade is answered 503 with `Retry-After`. Each needs an open file.
        /// `SOTTO_HTTP__MAX_SOCKETS`
        pub max_sockets: usize = 50_000, within 1..=1_000_000;
        /// Connections of one network (IPv4 address, IPv6 /64), HTTP and sockets together, at this node. Above that: 429. A trusted proxy's own connections count for nobody until they become sockets.
        /// `SOTTO_HTTP__MAX_CONNECTIONS_PER_NETWORK`
        pub max_connections_per_network: usize = 256, within 1..=1_000_000;
        /// Sockets of one user, over all of the user's devices. Above that: close code 4510.
        /// `SOTTO_HTTP__MAX_SOCKETS_PER_USER`
        pub max_sockets_per_user: usize = 20, within 1..=1_000;
        /// How long a request's head and body may take to arrive.
        /// `SOTTO_HTTP__REQUEST_TIMEOUT`
        pub request_timeout: Seconds = Seconds(10), within 1..=600;
        /// Bytes that the bodies of requests without a token may have together while they come. Above that: 503 with `Retry-After`.
        /// `SOTTO_HTTP__OPEN_BODIES`
        pub open_bodies: usize = 33_554_432, within 262_144..=4_294_967_296;
        /// How long a client may take to read 4 KiB of an answer, or its end. Then its connection is closed.
        /// `SOTTO_HTTP__WRITE_TIMEOUT`
        pub write_timeout: Seconds = Seconds(30), within 1..=600;
    }
}

impl Http {
    /// How many worker threads to start.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }

    /// Whether only this machine can reach the main listener: it is on loopback, and no proxy is known that brings others.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback() && self.trusted_proxies.is_empty()
    }

    /// Whether the operator's pages may be served on the main listener.
    #[must_use]
    pub fn serves_admin_here(&self) -> bool {
        self.admin_listen.is_none() && self.is_private()
    }
}
