//! Devices that are silent: a notice to the others a week before, once per silence, then removal. Time is a parameter.

use super::seen;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, register, second_device};
use sotto::config::Config;
use sotto::identity::Identity;
use sotto::identity::changes::NobodyListens;
use sotto::identity::secret_key::SecretKeys;
use sotto::identity::sms::{Outbox, Sms};
use sotto_client::protocol::DeviceId;
use sotto_client::protocol::event::{DeviceExpiring, Event};
use sotto_client::protocol::timestamp::Timestamp;
use sotto_schema::{Store, StoreSettings};
use std::sync::Arc;
use std::time::Duration;

const DAY: u64 = 86_400;

/// A further node on the same database, whose clock is the test's.
pub async fn sweeper(node: &TestNode) -> (Identity, Store) {
    let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
    let keys = Arc::new(SecretKeys::open_existing(&node.folder.path().join("secret.key")).unwrap());
    let sms = Sms::outbox(Outbox::open(&node.folder.path().join("nobody.jsonl")).unwrap());
    (Identity::new(store.clone(), keys, sms, Arc::new(NobodyListens), &Config::default(), "sweeper"), store)
}

/// What waits for a device of notices, and is acknowledged by it.
async fn notices(device: &Device) -> Vec<DeviceExpiring> {
    let page = device.rest.sync(None).await.unwrap();
    device.rest.sync_ack(&page.cursor).await.unwrap();
    page.events
        .into_iter()
        .filter_map(|event| match event {
            Event::DeviceExpiring(expiring) => Some(expiring),
            _ => None,
        })
        .collect()
}

async fn heard_of(store: &Store, device: DeviceId, at: Timestamp) {
    store.touch_device(device, None, at, at).await.unwrap();
}

on_both! {
    async fn the_others_are_told_a_week_before_and_once(database) {
        // Sessions must outlive the sweeper's clock.
        let settings = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__REFRESH_TTL", "31536000")];
        let node = TestNode::with(database, &settings).await;
        let alice = register(&node, "phone").await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let (identity, store) = sweeper(&node).await;
        let since = seen(&alice.rest, tablet.device_id).await.last_active_at;
        let days = |days: u64| since.plus(Duration::from_secs(days * DAY));
        heard_of(&store, alice.device_id, days(37)).await;
        identity.sweep(days(38).minus(Duration::from_secs(1))).await.unwrap();
        assert_eq!(notices(&alice).await, []);
        for _ in 0..3 {
            identity.sweep(days(38)).await.unwrap();
        }
        let told = notices(&alice).await;
        let expected =
            DeviceExpiring { device_id: tablet.device_id, name: "tablet".to_owned(), removed_at: days(45) };
        assert_eq!(told, [expected]);
        // It comes back, which the device itself is not told of, and is silent again.
        heard_of(&store, tablet.device_id, days(39)).await;
        assert_eq!(notices(&tablet).await, []);
        heard_of(&store, alice.device_id, days(76)).await;
        heard_of(&store, tablet.device_id, days(39)).await;
        identity.sweep(days(76)).await.unwrap();
        assert_eq!(notices(&alice).await, []);
        let silent_since = seen(&alice.rest, tablet.device_id).await.last_active_at;
        let after = |days: u64| silent_since.plus(Duration::from_secs(days * DAY));
        identity.sweep(after(38)).await.unwrap();
        assert_eq!(notices(&alice).await.len(), 1);
        identity.sweep(after(45).minus(Duration::from_secs(1))).await.unwrap();
        assert_eq!(alice.rest.own_devices().await.unwrap().len(), 2);
        identity.sweep(after(45)).await.unwrap();
        let left = alice.rest.own_devices().await.unwrap();
        assert_eq!(left.iter().map(|one| one.device_id).collect::<Vec<_>>(), [alice.device_id]);
        assert_eq!(notices(&alice).await, []);
    }
}
