//! What counts as one address when requests are counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network that codes are counted by: IPv4 /24, IPv6 /48.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    cut(address, 24, 48)
}

/// The wide network that codes are counted by beside that: IPv4 /16, IPv6 /32.
#[must_use]
pub fn region(address: IpAddr) -> IpAddr {
    cut(address, 16, 32)
}

/// The networks that an account is remembered by when it signs in, the narrowest first: IPv4 /24; IPv6 /64 and /48.
#[must_use]
pub fn remembered(address: IpAddr) -> Vec<String> {
    match address.to_canonical() {
        IpAddr::V4(_) => vec![format!("{}/24", network(address))],
        IpAddr::V6(_) => vec![format!("{}/64", place(address)), format!("{}/48", network(address))],
    }
}

/// The place that failed sign-ins are counted by: one IPv4 address; of IPv6 a /64, which one household has whole.
#[must_use]
pub fn place(address: IpAddr) -> IpAddr {
    cut(address, 32, 64)
}

fn cut(address: IpAddr, v4: u32, v6: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & high(u32::MAX, 32 - v4))),
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - v6).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

fn high(bits: u32, low: u32) -> u32 {
    bits.checked_shl(low).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_count_together() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(address("192.0.2.77")), address("192.0.2.0"));
        assert_eq!(network(address("::ffff:192.0.2.77")), address("192.0.2.0"));
        assert_eq!(network(address("2001:db8:1:2::3")), address("2001:db8:1::"));
        assert_eq!(place(address("192.0.2.77")), address("192.0.2.77"));
        assert_eq!(place(address("2001:db8:1:2:3::4")), address("2001:db8:1:2::"));
        assert_eq!(region(address("192.0.2.77")), address("192.0.0.0"));
        assert_eq!(region(address("2001:db8:1:2::3")), address("2001:db8::"));
        assert_eq!(remembered(address("::ffff:192.0.2.77")), ["192.0.2.0/24"]);
        assert_eq!(remembered(address("2001:db8:1:2::3")), ["2001:db8:1:2::/64", "2001:db8:1::/48"]);
    }
}
