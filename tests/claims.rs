//! One-time keys under a crowd: each is handed out at most once, ever, and nobody is refused.

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, register};
use futures::future::{join, join_all};
use sotto_client::Rest;
use sotto_client::protocol::keys::Keys;
use std::collections::BTreeMap;

const KEYS: usize = 40;
const CLAIMS: usize = 60;
const ASKERS: usize = 6;

/// A device with exactly 40 one-time keys, those of one upload.
async fn owner(node: &TestNode) -> (Device, Keys) {
    let mut owner = register(node, "owner").await;
    let asker = register(node, "first").await;
    while asker.rest.claim_keys(owner.user_id, &[]).await.unwrap().devices[0].one_time_prekey.is_some() {}
    let upload = owner.keys.more(KEYS).unwrap();
    owner.rest.put_keys(&upload).await.unwrap();
    assert_eq!(owner.rest.key_count().await.unwrap().one_time_prekeys, KEYS as i64);
    (owner, upload)
}

/// 60 claims at once, while the owner repeats its upload again and again.
async fn crowd(owner: &Device, upload: &Keys, nodes: &[&TestNode]) {
    let mut askers = Vec::new();
    for _ in 0..ASKERS {
        askers.push(register(nodes[0], "asker").await);
    }
    let rests: Vec<Rest> =
        (0..CLAIMS).map(|number| askers[number % ASKERS].at(nodes[(number / ASKERS) % nodes.len()])).collect();
    let only = [owner.device_id];
    let claims = join_all(rests.iter().map(|rest| rest.claim_keys(owner.user_id, &only)));
    let repeats = join_all((0..5).map(|number| async move {
        tokio::time::sleep(std::time::Duration::from_millis(number * 20)).await;
        owner.rest.put_keys(upload).await.unwrap();
    }));
    let (claims, _) = join(claims, repeats).await;
    let mut handed_out = BTreeMap::new();
    let mut without = 0;
    for answer in claims {
        let answer = answer.expect("200, with a key or without");
        let [bundle] = &answer.devices[..] else { panic!("one device was asked for: {answer:?}") };
        assert!(bundle.signed_prekey.is_some(), "what is always there");
        match &bundle.one_time_prekey {
            Some(key) => {
                let earlier = handed_out.insert(key.key_id, key.public_key.clone());
                assert_eq!(earlier, None, "key {} was handed out twice", key.key_id);
            }
            None => without += 1,
        }
    }
    let published: BTreeMap<_, _> =
        upload.one_time_prekeys.iter().flatten().map(|key| (key.key_id, key.public_key.clone())).collect();
    assert_eq!(handed_out, published, "every key once, and no other");
    assert_eq!(without, CLAIMS - KEYS);
    // A repeated upload brings none back, on no node.
    for node in nodes {
        owner.at(node).put_keys(upload).await.unwrap();
        assert_eq!(owner.at(node).key_count().await.unwrap().one_time_prekeys, 0);
        let late = askers[0].at(node).claim_keys(owner.user_id, &[]).await.unwrap();
        assert_eq!(late.devices[0].one_time_prekey, None);
    }
}

on_both! {
    async fn sixty_claims_of_forty_keys_get_each_once(database) {
        let node = TestNode::start(database).await;
        let (owner, upload) = owner(&node).await;
        crowd(&owner, &upload, &[&node]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_hand_each_key_out_once() {
    let node = TestNode::start(Kind::Postgres).await;
    let sibling = node.sibling().await;
    let (owner, upload) = owner(&node).await;
    crowd(&owner, &upload, &[&node, &sibling]).await;
}
