//! A change of a user's devices, and how it is merged with another change that comes before it was delivered.

use serde_json::{Value, json};
use sotto_protocol::event::DevicesChanged;
use sotto_protocol::limits::MAX_DEVICES_TOLD;
use sotto_protocol::{DeviceId, UserId};

/// A change of a user's devices, to be told to him and his contacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicesChange {
    /// Whose devices.
    pub user_id: UserId,
    /// New devices.
    pub added: Vec<DeviceId>,
    /// Devices that are gone.
    pub removed: Vec<DeviceId>,
    /// Devices that registered anew.
    pub identity_changed: Vec<DeviceId>,
}

impl DevicesChange {
    /// Merges this change and an older one of the same user into one, which says what happened last to each device. Each list
    /// keeps its newest [`MAX_DEVICES_TOLD`] devices.
    #[must_use]
    pub fn after(&self, older: &Self) -> Self {
        Self {
            user_id: self.user_id,
            added: united(&older.added, &self.added, &self.removed),
            removed: united(&older.removed, &self.removed, &self.added),
            identity_changed: united(&older.identity_changed, &self.identity_changed, &self.removed),
        }
    }

    /// The change as it is stored, which is the body of its event.
    pub(crate) fn to_body(&self) -> Value {
        json!({
            "user_id": self.user_id,
            "added": self.added,
            "removed": self.removed,
            "identity_changed": self.identity_changed,
        })
    }

    /// Reads [`DevicesChange::to_body`].
    pub(crate) fn from_body(body: Value) -> Option<Self> {
        let DevicesChanged { user_id, added, removed, identity_changed } = serde_json::from_value(body).ok()?;
        Some(Self { user_id, added, removed, identity_changed })
    }
}

/// The older devices and the newer ones, each once, in this order and without those that `not` names.
fn united(older: &[DeviceId], newer: &[DeviceId], not: &[DeviceId]) -> Vec<DeviceId> {
    let kept = older.iter().filter(|device| !newer.contains(device) && !not.contains(device));
    let mut all: Vec<DeviceId> = kept.chain(newer).copied().collect();
    all.drain(..all.len().saturating_sub(MAX_DEVICES_TOLD));
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    /// What happened last to one of a few devices: 0 added, 1 removed, 2 registered anew.
    fn single((what, device): (u8, u128)) -> DevicesChange {
        let one = |wanted: u8| if what == wanted { vec![DeviceId(Uuid::from_u128(device))] } else { Vec::new() };
        DevicesChange { user_id: UserId(Uuid::nil()), added: one(0), removed: one(1), identity_changed: one(2) }
    }

    fn set(list: &[DeviceId]) -> BTreeSet<DeviceId> {
        list.iter().copied().collect()
    }

    proptest! {
        #[test]
        fn a_reader_of_the_union_knows_what_a_reader_of_each_change_knows(
            steps in prop::collection::vec((0..3_u8, 0..8_u128), 1..40),
        ) {
            let changes: Vec<DevicesChange> = steps.into_iter().map(single).collect();
            let union = changes.iter().skip(1).fold(changes[0].clone(), |older, newer| newer.after(&older));
            // One who reads each change keeps a list of devices that he must look at anew, and of those that are gone.
            let (mut anew, mut gone) = (BTreeSet::new(), BTreeSet::new());
            for change in &changes {
                for device in change.added.iter().chain(&change.identity_changed) {
                    anew.insert(*device);
                }
                for device in &change.added {
                    gone.remove(device);
                }
                for device in &change.removed {
                    anew.remove(device);
                    gone.insert(*device);
                }
            }
            let told: BTreeSet<DeviceId> = set(&union.added).union(&set(&union.identity_changed)).copied().collect();
            prop_assert_eq!(&told, &anew);
            prop_assert_eq!(&set(&union.removed), &gone);
            for list in [&union.added, &union.removed, &union.identity_changed] {
                prop_assert_eq!(list.len(), set(list).len(), "each device once");
            }
            // What is told twice changes nothing.
            prop_assert_eq!(&union.after(&union), &union);
            prop_assert_eq!(DevicesChange::from_body(union.to_body()).unwrap(), union);
        }

        #[test]
        fn a_list_keeps_the_newest(count in 1..400_u128) {
            let union = (0..count).map(|device| single((1, device))).reduce(|older, newer| newer.after(&older)).unwrap();
            let first = count.saturating_sub(u128::try_from(MAX_DEVICES_TOLD).unwrap());
            let expected: Vec<DeviceId> = (first..count).map(|device| DeviceId(Uuid::from_u128(device))).collect();
            prop_assert_eq!(union.removed, expected);
        }
    }
}
