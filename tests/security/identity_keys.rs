//! Identity keys: what is stored of a device was signed by it, and a key that was exchanged in the database is not used.

use crate::second_factor::code_for;
use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, fresh_phone, info, register};

use serde_json::{Value, json};
use sotto_client::protocol::Binary;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::keys::{Bundle, Keys, identity_text};
use sotto_client::{Client, DeviceKeys, Error, HeaderMap, Method, Options, Rest, SignIn};
use sotto_schema::{Store, StoreSettings, inspect};

async fn bundle_of(bob: &Device, asker: &Device) -> Bundle {
    asker.rest.claim_keys(bob.user_id, &[]).await.unwrap().devices.remove(0)
}

async fn client(node: &TestNode) -> Client {
    let phone = fresh_phone();
    let (verification_id, code) = code_for(node, &phone, Purpose::Registration).await;
    let sign_in = SignIn::new(verification_id, code, info("phone"));
    Client::register(Options::new(&node.url), sotto_client::Store::in_memory().unwrap(), sign_in).await.unwrap()
}

async fn execute(node: &TestNode, statement: &str) {
    let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
    inspect::execute(&store, statement).await.unwrap();
}

fn bytes_of(database: Kind, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match database {
        Kind::Postgres => format!("'\\x{hex}'"),
        Kind::Sqlite => format!("x'{hex}'"),
    }
}

on_both! {
    async fn every_entrance_refuses_a_wrong_signature(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let mut keys = serde_json::to_value(DeviceKeys::generate().sign_in_keys(2).unwrap()).unwrap();
        let other = DeviceKeys::generate().sign_in_keys(2).unwrap();
        keys["identity_signature"] = json!(other.identity_signature);
        let entrances = [
            ("/v1/auth/register", Purpose::Registration),
            ("/v1/auth/login", Purpose::Login),
            ("/v1/auth/recover", Purpose::Recovery),
            ("/v1/auth/links", Purpose::Login),
        ];
        let rest = Rest::new(&node.url).unwrap();
        for (path, purpose) in entrances {
            let phone = if purpose == Purpose::Registration { fresh_phone() } else { alice.phone.clone() };
            let mut body = json!({"device": info("new"), "keys": keys});
            if path != "/v1/auth/links" {
                let verification = rest.verify(&phone, purpose).await.unwrap();
                body["verification_id"] = json!(verification.verification_id);
                body["code"] = json!(node.code_for(&phone));
            }
            let body = Some(body.to_string().into_bytes());
            let answer = rest.raw(Method::POST, path, HeaderMap::new(), body).await.unwrap();
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(answer.status, 422, "{path}: {problem}");
            let errors = json!([{"pointer": "/keys/identity_signature", "code": "invalid_signature"}]);
            assert_eq!((problem["errors"][0]["pointer"].clone(), problem["errors"][0]["code"].clone()),
                (errors[0]["pointer"].clone(), errors[0]["code"].clone()), "{path}");
        }
        let upload = Keys { identity_signature: other.identity_signature, ..Keys::default() };
        let problem = alice.rest.put_keys(&upload).await.unwrap_err();
        assert_eq!(problem.problem().unwrap().errors[0].pointer.as_deref(), Some("/identity_signature"));
    }

    async fn a_device_from_before_is_unsigned_until_it_signs(database) {
        let node = TestNode::start(database).await;
        let (alice, mut bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let signed = bundle_of(&bob, &alice).await.identity_signature;
        assert!(signed.is_some());
        execute(&node, "UPDATE devices SET identity_signature = NULL").await;
        assert_eq!(bundle_of(&bob, &alice).await.identity_signature, None);
        let keys = bob.keys.sign_in_keys(1).unwrap();
        let upload = Keys { identity_signature: keys.identity_signature, ..Keys::default() };
        bob.rest.put_keys(&upload).await.unwrap();
        assert_eq!(bundle_of(&bob, &alice).await.identity_signature, signed);
        let shown = alice.rest.devices(bob.user_id).await.unwrap().devices.remove(0);
        assert_eq!(shown.identity_signature, signed, "without a claim too");
    }

    async fn an_identity_key_that_was_exchanged_is_not_used(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (client(&node).await, client(&node).await);
        let direct = alice.direct(bob.user_id()).await.unwrap();
        let stranger: Binary = DeviceKeys::generate().sign_in_keys(0).unwrap().identity_key.unwrap();
        assert_eq!(identity_text(stranger.as_ref()).len(), 18 + 32);
        let own = bob.identity_key().await.unwrap();
        let statement = format!("UPDATE devices SET identity_key = {} WHERE identity_key = {}",
            bytes_of(database, stranger.as_ref()), bytes_of(database, &own));
        execute(&node, &statement).await;
        let refused = alice.send_text(direct, "not for strangers").await;
        assert!(matches!(refused, Err(Error::IdentityForged { .. })), "{refused:?}");
    }
}
