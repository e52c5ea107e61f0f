//! A set of message numbers, one bit each.

use sotto_client::protocol::Seq;

/// Numbers from 0 on; negative ones are never in it.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u64>);

fn place(seq: Seq) -> Option<(usize, u64)> {
    let seq = u64::try_from(seq).ok()?;
    Some((usize::try_from(seq / 64).ok()?, 1 << (seq % 64)))
}

impl Bits {
    /// Takes a number in. Numbers are those of a log without gaps, so that the set is as long as the log.
    pub fn insert(&mut self, seq: Seq) {
        let Some((word, bit)) = place(seq) else { return };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Takes a number out.
    pub fn remove(&mut self, seq: Seq) {
        let Some((word, bit)) = place(seq) else { return };
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn has(&self, seq: Seq) -> bool {
        place(seq).is_some_and(|(word, bit)| self.0.get(word).is_some_and(|word| word & bit != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_it_once_it_was_put() {
        let mut bits = Bits::default();
        for seq in [0, 63, 64, 1000] {
            assert!(!bits.has(seq));
            bits.insert(seq);
            assert!(bits.has(seq));
        }
        bits.insert(-1);
        assert!(!bits.has(-1) && !bits.has(65) && !bits.has(100_000));
        bits.remove(63);
        bits.remove(100_000);
        assert!(!bits.has(63) && bits.has(64));
    }
}
