//! The client library: an application that signs in with a second factor, and sets one up.

use super::{App, early_in_a_step};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{fresh_phone, info};
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::{Client, Options, SignIn, Store};

async fn sign_in(node: &TestNode, phone: &str, purpose: Purpose) -> SignIn {
    let verification = Client::verify(&node.url, phone, purpose).await.unwrap();
    SignIn::new(verification.verification_id, node.code_for(phone), info("app"))
}

on_both! {
    async fn an_application_goes_the_whole_way(database) {
        let node = TestNode::start(database).await;
        let (phone, options) = (fresh_phone(), Options::new(&node.url));
        let registration = sign_in(&node, &phone, Purpose::Registration).await;
        let client = Client::register(options.clone(), Store::in_memory().unwrap(), registration).await.unwrap();
        assert!(!client.second_factor().await.unwrap().enabled);
        let by_code = async || {
            let verification = Client::verify(&node.url, &phone, Purpose::SecondFactor).await.unwrap();
            Reauthentication::by_code(verification.verification_id, node.code_for(&phone))
        };
        early_in_a_step().await;
        let app = App::of(&client.set_up_totp().await.unwrap());
        let (spent, proof) = (app.code(-1), by_code().await);
        let codes = client.enable_totp(&spent, &proof).await.unwrap().backup_codes;

        let store = Store::in_memory().unwrap();
        let entry = sign_in(&node, &phone, Purpose::Login).await;
        let asked = Client::login(options.clone(), store.clone(), entry.clone()).await.err().unwrap();
        assert!(asked.needs_second_factor() && !asked.is_retryable());
        let refused = Client::login(options.clone(), store.clone(), entry.clone().with_totp(app.wrong())).await;
        assert!(refused.err().unwrap().needs_second_factor());
        let tablet = Client::login(options.clone(), store, entry.with_totp(app.code(0))).await.unwrap();
        assert_eq!(tablet.user_id(), client.user_id());

        let entry = sign_in(&node, &phone, Purpose::Login).await.with_backup_code(&codes[0]);
        Client::login(options.clone(), Store::in_memory().unwrap(), entry).await.unwrap();
        assert_eq!(client.second_factor().await.unwrap().backup_codes_left, 9);

        let again = async |backup_code: &str| by_code().await.with_backup_code(backup_code);
        let fresh = tablet.renew_backup_codes(&again(&codes[1]).await).await.unwrap().backup_codes;
        client.disable_totp(&again(&fresh[0]).await).await.unwrap();
        let entry = sign_in(&node, &phone, Purpose::Login).await;
        let wrong = SignIn { code: "000000".to_owned(), ..entry.clone() };
        let refused = Client::login(options.clone(), Store::in_memory().unwrap(), wrong).await.err();
        assert!(refused.is_none_or(|error| !error.needs_second_factor()));
        Client::login(options, Store::in_memory().unwrap(), entry).await.unwrap();
    }
}
