//! The name of a message: an id in the form of a UUID v7 that tells who sent it, as which one, in which run.
//!
//! With it a receiver knows at once what came, without a table of ids: what a run holds in memory does not grow with
//! the messages that it sends.

/// 48 bits of time, 12 + 10 of the run, 20 of the sender, 32 of the count; the rest is the form of a UUID v7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The run's own number, below [`Name::RUNS`], so that leftovers of other runs are told apart.
    pub run: u32,
    /// The sender's place among all devices of the run, below [`Name::SENDERS`].
    pub sender: u32,
    /// The sender's messages, counted from 1.
    pub count: u32,
}

/// The length of an id as text.
pub const TEXT: usize = 36;

const HEX: &[u8; 16] = b"0123456789abcdef";
const VERSION: u128 = 7 << 76;
const VARIANT: u128 = 2 << 62;

impl Name {
    /// Runs are told apart by so many numbers.
    pub const RUNS: u32 = 1 << 22;
    /// The most devices of a run.
    pub const SENDERS: u32 = 1 << 20;

    /// The id as text; `millis` is the time since 1970, which keeps the ids of a run together in an index.
    #[must_use]
    pub fn text(self, millis: u64) -> [u8; TEXT] {
        let run = u128::from(self.run % Self::RUNS);
        let bits = (u128::from(millis) & 0xffff_ffff_ffff) << 80
            | VERSION
            | (run >> 10) << 64
            | VARIANT
            | (run & 0x3ff) << 52
            | u128::from(self.sender % Self::SENDERS) << 32
            | u128::from(self.count);
        let mut text = [b'-'; TEXT];
        let places = text.iter_mut().enumerate().filter(|(place, _)| !matches!(place, 8 | 13 | 18 | 23));
        for ((_, digit), byte) in places.zip(bits.to_be_bytes().into_iter().flat_map(|byte| [byte >> 4, byte & 15])) {
            *digit = HEX.get(usize::from(byte)).copied().unwrap_or_default();
        }
        text
    }

    /// What an id names; none: it was not made here.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT {
            return None;
        }
        let mut bits = 0_u128;
        for digit in text.iter().filter(|digit| **digit != b'-') {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            bits = bits << 4 | u128::from(value);
        }
        if bits & (0xf << 76) != VERSION || bits & (3 << 62) != VARIANT {
            return None;
        }
        let part = |shift: u32, width: u32| u32::try_from(bits >> shift & ((1 << width) - 1)).unwrap_or_default();
        Some(Self { run: part(64, 12) << 10 | part(52, 10), sender: part(32, 20), count: part(0, 32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_is_a_uuid_v7() {
        for name in [
            Name { run: 1, sender: 2, count: 3 },
            Name { run: Name::RUNS - 1, sender: Name::SENDERS - 1, count: u32::MAX },
            Name { run: 0x2a_5a5a, sender: 0x5_5555, count: 0x1234_5678 },
        ] {
            let text = name.text(1_764_000_000_123);
            assert_eq!(Name::read(&text), Some(name));
            let uuid = uuid::Uuid::try_parse_ascii(&text).unwrap();
            assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
            assert_eq!(uuid.get_timestamp().unwrap().to_unix(), (1_764_000_000, 123_000_000));
        }
    }

    #[test]
    fn ids_of_others_are_none() {
        assert_eq!(Name::read(uuid::Uuid::new_v4().to_string().as_bytes()), None);
        assert_eq!(Name::read(b"short"), None);
        assert_eq!(Name::read(&[b'z'; TEXT]), None);
    }
}
