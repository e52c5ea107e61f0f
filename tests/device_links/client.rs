//! The client library: both sides of a link, as applications use them.

use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{fresh_phone, info};
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::{Client, Error, Options, SignIn, Store};

async fn registered(node: &TestNode, phone: &str) -> Client {
    let verification = Client::verify(&node.url, phone, Purpose::Registration).await.unwrap();
    let sign_in = SignIn::new(verification.verification_id, node.code_for(phone), info("phone"));
    Client::register(Options::new(&node.url), Store::in_memory().unwrap(), sign_in).await.unwrap()
}

async fn again(node: &TestNode, phone: &str) -> Reauthentication {
    let verification = Client::verify(&node.url, phone, Purpose::DeviceLink).await.unwrap();
    let verification_id = verification.verification_id;
    Reauthentication::by_code(verification_id, node.code_for(phone))
}

on_both! {
    async fn an_application_links_another_one(database) {
        let node = TestNode::start(database).await;
        let (phone, options) = (fresh_phone(), Options::new(&node.url));
        let first = registered(&node, &phone).await;
        let store = Store::in_memory().unwrap();
        let pending = Client::link(options.clone(), store.clone(), info("laptop")).await.unwrap();
        assert!(!format!("{pending:?}").contains("secret"));
        let qr = pending.qr().to_owned();
        let scan = async {
            let (uri, who) = first.scan_link(&qr).await.unwrap();
            assert_eq!(who.device.name, "laptop");
            first.confirm_link(&uri, &again(&node, &phone).await).await.unwrap();
        };
        let (second, ()) = tokio::join!(pending.wait(), scan);
        let second = second.unwrap();
        assert_eq!(second.user_id(), first.user_id());
        assert_ne!(second.device_id(), first.device_id());

        // The same store again: the same device.
        let pending = Client::link(options.clone(), store, info("laptop")).await.unwrap();
        let (uri, _) = first.scan_link(pending.qr()).await.unwrap();
        first.confirm_link(&uri, &again(&node, &phone).await).await.unwrap();
        assert_eq!(pending.wait().await.unwrap().device_id(), second.device_id());

        let pending = Client::link(options, Store::in_memory().unwrap(), info("stranger")).await.unwrap();
        let (uri, _) = first.scan_link(pending.qr()).await.unwrap();
        first.refuse_link(&uri).await.unwrap();
        assert_eq!(pending.wait().await.err().unwrap().code(), Some(ErrorCode::NotFound));
        assert!(matches!(first.scan_link("https://example.org").await, Err(Error::Usage(_))));
    }
}
