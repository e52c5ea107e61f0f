//! The envelopes of a message in one value: a table of devices first, the ciphertexts behind it.
//!
//! `count: u16`, then per device `id: 16 bytes, type: u8, start: u32, length: u32` sorted by id,
//! then the ciphertexts. All numbers big-endian; `start` counts from the beginning of the value.

use sotto_protocol::DeviceId;
use sotto_protocol::message::Envelope;

const ENTRY: usize = 16 + 1 + 4 + 4;

/// Packed envelopes, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedEnvelopes(pub Vec<u8>);

impl PackedEnvelopes {
    /// Packs envelopes. The contract's bounds keep count and sizes far below the fields' widths.
    #[must_use]
    pub fn pack(envelopes: &[Envelope]) -> Self {
        let mut sorted: Vec<&Envelope> = envelopes.iter().collect();
        sorted.sort_unstable_by_key(|envelope| envelope.device_id);
        let total: usize = sorted.iter().map(|envelope| envelope.ciphertext.len()).sum();
        let mut packed = Vec::with_capacity(2 + sorted.len() * ENTRY + total);
        packed.extend(u16::try_from(sorted.len()).unwrap_or(u16::MAX).to_be_bytes());
        let mut start = 2 + sorted.len() * ENTRY;
        for envelope in &sorted {
            packed.extend(envelope.device_id.as_bytes());
            packed.push(envelope.kind);
            packed.extend(u32::try_from(start).unwrap_or(u32::MAX).to_be_bytes());
            let length = envelope.ciphertext.len();
            packed.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            start += length;
        }
        for envelope in &sorted {
            packed.extend(&envelope.ciphertext.0);
        }
        Self(packed)
    }

    /// The type and ciphertext for a device.
    #[must_use]
    pub fn find(&self, device: DeviceId) -> Option<(u8, &[u8])> {
        find(&self.0, device)
    }
}

pub(crate) fn find(packed: &[u8], device: DeviceId) -> Option<(u8, &[u8])> {
    let count = usize::from(u16::from_be_bytes(packed.get(..2)?.try_into().ok()?));
    let table = packed.get(2..2 + count * ENTRY)?;
    table.chunks_exact(ENTRY).find_map(|entry| {
        let (id, rest) = entry.split_first_chunk::<16>()?;
        if id != device.as_bytes() {
            return None;
        }
        let (kind, rest) = rest.split_first()?;
        let (start, rest) = rest.split_first_chunk::<4>()?;
        let (length, _) = rest.split_first_chunk::<4>()?;
        let start = usize::try_from(u32::from_be_bytes(*start)).ok()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        Some((*kind, packed.get(start..start.checked_add(length)?)?))
    })
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sotto_protocol::UserId;

    #[test]
    fn each_device_finds_its_own() {
        let envelopes: Vec<Envelope> = (0..40_u8)
            .map(|number| Envelope {
                user_id: UserId::random(),
                device_id: DeviceId::random(),
                registration_id: None,
                kind: number,
                ciphertext: vec![number; usize::from(number) + 1].into(),
            })
            .collect();
        let packed = PackedEnvelopes::pack(&envelopes);
        for envelope in &envelopes {
            let found = packed.find(envelope.device_id);
            assert_eq!(found, Some((envelope.kind, &envelope.ciphertext.0[..])));
        }
        assert_eq!(packed.find(DeviceId::random()), None);
        assert_eq!(PackedEnvelopes(vec![0, 9, 1]).find(DeviceId::random()), None);
    }

    proptest! {
        /// Whoever has an envelope finds exactly its own, whatever the order and the sizes; nobody else finds any. A
        /// value that was cut short gives a whole envelope or none.
        #[test]
        fn envelopes_come_back(
            entries in prop::collection::btree_map(any::<u128>(), (any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..30),
            stranger in any::<u128>(),
            turn in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let device = |bits: u128| DeviceId(uuid::Uuid::from_u128(bits));
            let mut envelopes: Vec<Envelope> = entries.iter().map(|(bits, (kind, ciphertext))| Envelope {
                user_id: UserId::random(),
                device_id: device(*bits),
                registration_id: None,
                kind: *kind,
                ciphertext: ciphertext.clone().into(),
            }).collect();
            let packed = PackedEnvelopes::pack(&envelopes);
            if !envelopes.is_empty() {
                let turn = turn.index(envelopes.len());
                envelopes.rotate_left(turn);
                prop_assert_eq!(&PackedEnvelopes::pack(&envelopes), &packed, "the order of the envelopes does not count");
            }
            let part = PackedEnvelopes(packed.0[..cut.index(packed.0.len())].to_vec());
            for (bits, (kind, ciphertext)) in &entries {
                let own = Some((*kind, &ciphertext[..]));
                prop_assert_eq!(packed.find(device(*bits)), own);
                let found = part.find(device(*bits));
                prop_assert!(found.is_none() || found == own);
            }
            if !entries.contains_key(&stranger) {
                prop_assert_eq!(packed.find(device(stranger)), None);
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), device in any::<u128>()) {
            let _ = PackedEnvelopes(bytes).find(DeviceId(uuid::Uuid::from_u128(device)));
        }
    }
}
