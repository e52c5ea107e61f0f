//! Who is who on the network: address ranges of proxies, and origins of web pages.

use std::{fmt, net::IpAddr};

use super::value::{Value, quoted};

/// How many bits of an IPv6 address say that an IPv4 address stands behind them (RFC 4291, 2.5.5.2).
const MAPPED: u32 = 96;

/// An address or a range of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether an address lies in the range. IPv4 addresses inside IPv6 ones count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |width: u32| width.saturating_sub(self.prefix);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                (range.to_bits() ^ address.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                (range.to_bits() ^ address.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Value for Network {
    const KIND: &'static str = "an address or a range such as 10.0.0.0/8";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || format!("takes {}", Self::KIND);
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => width,
        };
        match address.to_canonical() {
            _ if prefix > width => Err(wrong()),
            // IPv4 inside of IPv6: addresses are compared as IPv4, so ranges are too.
            IpAddr::V4(address) if width == 128 && prefix >= MAPPED => {
                Ok(Self { address: IpAddr::V4(address), prefix: prefix - MAPPED })
            }
            _ => Ok(Self { address, prefix }),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// A web page's origin, compared as browsers send it: scheme, host and port, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The origin as it stands in the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Origin {
    const KIND: &'static str = "an origin such as https://chat.example.org, without a path";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || format!("takes {}", Self::KIND);
        let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
        let plain = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@' | '*'))
        };
        if plain(scheme) && plain(host) { Ok(Self(text.to_ascii_lowercase())) } else { Err(wrong()) }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let holds = |range: &str, address: &str| Network::from_text(range).unwrap().contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.200.3.4"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("127.0.0.1", "127.0.0.1"));
        assert!(!holds("127.0.0.1", "127.0.0.2"));
        assert!(holds("0.0.0.0/0", "8.8.8.8"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
        assert!(holds("::/0", "2001:db8:1::1"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(holds("::ffff:10.0.0.0/104", "10.200.3.4") && !holds("::ffff:10.0.0.0/104", "11.0.0.1"));
        assert!(holds("::ffff:127.0.0.1", "127.0.0.1") && holds("::ffff:0:0/96", "8.8.8.8"));
        assert!(Network::from_text("10.0.0.0/33").is_err());
        assert!(Network::from_text("proxy").is_err());
    }

    #[test]
    fn an_origin_has_no_path_and_no_stars() {
        assert_eq!(Origin::from_text("https://Chat.example:8443").unwrap().as_str(), "https://chat.example:8443");
        for wrong in ["*", "https://*", "chat.example", "https://chat.example/", "https://a@b", "https://"] {
            assert!(Origin::from_text(wrong).is_err(), "{wrong}");
        }
    }
}
