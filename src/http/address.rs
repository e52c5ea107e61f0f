//! Who is at the other end: the peer's address, or what trusted proxies say of theirs.

use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest, web};

use crate::config::http::{ForwardedBy, Http};
use crate::config::network::Network;
use crate::error::ApiError;

/// The address of whoever made the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The proxies whose word is believed (`http.trusted_proxies`), and the header in which they give it.
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    header: ForwardedBy,
}

impl TrustedProxies {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Http) -> Self {
        Self { networks: config.trusted_proxies.clone(), header: config.forwarded_header }
    }

    /// Whether this is a proxy that is believed.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Returns the address of the client behind `peer`. Reads the configured header from its end, and each entry only while
    /// all nearer addresses are trusted proxies: a client can invent everything before that. An entry that is no address
    /// ends the search, and the nearest known address counts.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        if self.contains(client) {
            let lines: Vec<&str> = headers
                .get_all(self.header.word())
                // A line that is no text is an entry that is no address.
                .map(|line| line.to_str().unwrap_or("?"))
                .collect();
            let hops = lines.into_iter().rev().flat_map(|line| from_end(line, ','));
            for hop in hops.map(str::trim).filter(|hop| !hop.is_empty()) {
                let address = match self.header {
                    ForwardedBy::XForwardedFor => node(hop),
                    ForwardedBy::Forwarded => forwarded_for(hop),
                };
                let Some(address) = address else {
                    break;
                };
                client = address;
                if !self.contains(client) {
                    break;
                }
            }
        }
        client.to_canonical()
    }
}

/// Splits a header's line at separators outside of quotes, and gives the last part first. The line is read from its end, so
/// that its left cannot change how its right is read: a quote that a client left open does not hide the entry of a proxy.
fn from_end(line: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut is_quoted = false;
        let place = line.char_indices().rev().find_map(|(place, letter)| {
            is_quoted ^= letter == '"';
            (letter == separator && !is_quoted).then_some(place)
        });
        let parts = place.and_then(|place| Some((line.get(..place)?, line.get(place + separator.len_utf8()..)?)));
        let (left, part) = match parts {
            Some((left, part)) => (Some(left), part),
            None => (None, line),
        };
        rest = left;
        Some(part)
    })
}

/// The address of an element of `Forwarded` (RFC 7239, 4): its only parameter `for`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut nodes = from_end(element, ';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| node(value.trim()))
    });
    match (nodes.next(), nodes.next()) {
        (Some(address), None) => address,
        _ => None,
    }
}

/// An address as proxies write it: in quotes or not, in brackets or not, with a port or a zone or neither.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    let without_zone = |text: &str| {
        let text = text.split_once('%').map_or(text, |(address, _)| address);
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let is_port =
        |text: &str| text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        return if is_port(port) { without_zone(address) } else { None };
    }
    if let Some((address, port)) = text.split_once(':')
        && let Ok(address) = address.parse::<Ipv4Addr>()
    {
        return port.parse::<u16>().is_ok().then_some(IpAddr::V4(address));
    }
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4).or_else(|| without_zone(text))
}

/// Whether a request says that it came through a proxy.
#[must_use]
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    let names = ["forwarded", "via", "x-real-ip", "x-client-ip"];
    headers.keys().any(|name| name.as_str().starts_with("x-forwarded") || names.contains(&name.as_str()))
}

/// The address at the other end of the connection.
#[must_use]
pub fn peer(request: &HttpRequest) -> IpAddr {
    // Without a peer (in-process tests) everybody is one and the same.
    request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip())
}

impl ClientAddress {
    /// Of a request.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        let peer = peer(request);
        let proxies = request.app_data::<web::Data<TrustedProxies>>();
        Self(proxies.map_or(peer, |proxies| proxies.client(peer, request.headers())))
    }
}

impl FromRequest for ClientAddress {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(Ok(Self::of(request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value as _;
    use actix_web::http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn believes(trusted: &[&str], header: ForwardedBy) -> TrustedProxies {
        TrustedProxies { networks: trusted.iter().map(|text| Network::from_text(text).unwrap()).collect(), header }
    }

    fn lines(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let proxies = believes(trusted, ForwardedBy::XForwardedFor);
        proxies.client(peer.parse().unwrap(), &lines("x-forwarded-for", forwarded)).to_string()
    }

    fn client_7239(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let proxies = believes(trusted, ForwardedBy::Forwarded);
        proxies.client(peer.parse().unwrap(), &lines("forwarded", forwarded)).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client(&[], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9, 1.2.3.4, 10.0.0.2"]), "1.2.3.4");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9", "1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client(&["10.0.0.0/8"], "1.2.3.4", &["5.6.7.8"]), "1.2.3.4");
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        for (written, address) in [
            ("1.2.3.4:5678", "1.2.3.4"),
            ("\"1.2.3.4:5678\"", "1.2.3.4"),
            ("1.2.3.4 ,", "1.2.3.4"),
            ("1.2.3.4, , ", "1.2.3.4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:80", "fe80::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:1.2.3.4]:9", "1.2.3.4"),
        ] {
            assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9", written]), address, "{written}");
        }
        for unknown in ["1.2.3.4:x", "1.2.3.4:99999", "[1.2.3.4]", "[::1", "[::1]x", "_hidden", "1.2.3", "a"] {
            assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9", unknown]), "10.0.0.1", "{unknown}");
        }
        for trusted in ["::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "10.0.0.1"] {
            for peer in ["10.0.0.1", "::ffff:10.0.0.1"] {
                assert_eq!(client(&[trusted], peer, &["1.2.3.4"]), "1.2.3.4", "{trusted} {peer}");
            }
        }
    }

    #[test]
    fn forwarded_is_read_where_it_is_believed_and_nowhere_else() {
        let trusted = ["10.0.0.0/8"];
        for (line, address) in [
            ("for=1.2.3.4", "1.2.3.4"),
            ("for=9.9.9.9, FOR=1.2.3.4;proto=https;by=10.0.0.1", "1.2.3.4"),
            ("proto=https;for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=1.2.3.4, for=10.0.0.2", "1.2.3.4"),
            ("for=\"x, for=1.2.3.4", "1.2.3.4"),
            ("for=\"9.9.9.9, for=8.8.8.8\", for=1.2.3.4", "1.2.3.4"),
            ("for=_hidden", "10.0.0.1"),
            ("for=1.2.3.4;for=5.6.7.8", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(client_7239(&trusted, "10.0.0.1", &[line]), address, "{line}");
        }
        let mut both = lines("x-forwarded-for", &["1.1.1.1"]);
        both.append(HeaderName::from_static("forwarded"), HeaderValue::from_static("for=2.2.2.2"));
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(believes(&trusted, ForwardedBy::XForwardedFor).client(peer, &both).to_string(), "1.1.1.1");
        assert_eq!(believes(&trusted, ForwardedBy::Forwarded).client(peer, &both).to_string(), "2.2.2.2");
    }

    fn written(address: IpAddr, form: u8) -> String {
        match (address, form % 4) {
            (IpAddr::V6(address), 0) => format!("[{address}]:1234"),
            (IpAddr::V6(address), 1) => format!("\"[{address}]\""),
            (IpAddr::V6(address), 2) => format!("{address}%eth0"),
            (address, 0) => format!("{address}:80"),
            (address, 1) => format!("\"{address}\""),
            (address, _) => address.to_string(),
        }
    }

    proptest! {
        /// Whatever a client writes, the address that the proxy appended counts.
        #[test]
        fn a_client_does_not_choose_its_address(
            bits: u128,
            is_v6: bool,
            form: u8,
            lies in proptest::collection::vec("[ -~]{0,40}", 0..4),
            is_own_line: bool,
            by_7239: bool,
        ) {
            let low = u32::try_from(bits & u128::from(u32::MAX)).unwrap();
            let address = if is_v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4(low.into()) };
            let entry = written(address, form);
            let (header, name, entry) = if by_7239 {
                let quoted = if entry.starts_with('"') { entry } else { format!("\"{entry}\"") };
                (ForwardedBy::Forwarded, "forwarded", format!("for={quoted}"))
            } else {
                (ForwardedBy::XForwardedFor, "x-forwarded-for", entry)
            };
            let mut all = lies;
            match all.last_mut().filter(|_| !is_own_line) {
                Some(last) => *last = format!("{last}, {entry}"),
                None => all.push(entry),
            }
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let proxies = believes(&["192.0.2.1"], header);
            prop_assume!(!proxies.contains(address));
            prop_assert_eq!(proxies.client("192.0.2.1".parse().unwrap(), &lines(name, &all)), address.to_canonical());
        }
    }
}
