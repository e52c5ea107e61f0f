//! What the server knows of an account: all of it is told to its user, and nothing of anybody else.

use crate::second_factor::{Account, early_in_a_step};
use crate::support::node::{TestNode, text};
use crate::support::on_both;
use crate::support::people::{proof, register, second_device, shared};
use serde_json::Value;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::conversation::{ConversationType, CreateConversation, Role};
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::{HeaderMap, Method};
use sotto_schema::{Store, StoreSettings, inspect};
use std::time::Duration;

on_both! {
    async fn a_user_gets_what_the_server_knows_and_no_secret(database) {
        let node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "phone").await;
        let alice = &account.device;
        let bob = register(&node, "bob").await;
        let direct = bob.rest.create_direct(alice.user_id).await.unwrap().conversation_id;
        let group = CreateConversation {
            kind: ConversationType::Group,
            members: vec![bob.user_id],
            name: Some("hikers".to_owned()),
        };
        let group = alice.rest.create_conversation(&group, None).await.unwrap().0.conversation_id;
        bob.rest.send_message(&shared(group, "bobs words"), None).await.unwrap();
        alice.rest.mark_read(group, 1).await.unwrap();
        bob.rest.remove_members(group, &[bob.user_id]).await.unwrap();
        while alice.rest.logins(None, 10).await.unwrap().items.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        early_in_a_step().await;
        let by_totp = Reauthentication::default().with_totp(account.app.code(0));
        let export = alice.rest.export(&by_totp).await.unwrap();
        assert_eq!((export.user.user_id, &export.user.phone), (alice.user_id, &alice.phone));
        let [device] = export.devices.as_slice() else { panic!("{:?}", export.devices) };
        assert_eq!((device.device.device_id, device.keys.one_time_prekeys), (alice.device_id, 20));
        assert_eq!(export.sessions.len(), 1);
        assert!(export.second_factor.enabled && export.second_factor.backup_codes_left == 10);
        assert_eq!(export.registration_lock, alice.rest.registration_lock().await.unwrap());
        assert_eq!(export.deletion, alice.rest.deletion().await.unwrap());
        assert_eq!(export.trail, alice.rest.trail(0, 200).await.unwrap().items);
        assert_eq!(export.trail_head.seq, 2);
        assert_eq!(export.logins, alice.rest.logins(None, 200).await.unwrap().items);
        let stays: Vec<_> =
            export.conversations.iter().map(|stay| (stay.conversation_id, stay.role, stay.read_up_to)).collect();
        let mut expected = vec![(direct, Role::Member, 0), (group, Role::Owner, 1)];
        expected.sort_by_key(|stay| stay.0);
        assert_eq!(stays, expected);
        // Bob's export tells that he has left, and nothing of hers.
        let bobs = bob.rest.export(&proof(&node, &bob, Purpose::Export).await).await.unwrap();
        assert!(bobs.conversations.iter().any(|stay| stay.conversation_id == group && stay.to_seq == Some(1)));

        let answer = {
            let body = Reauthentication::default().with_backup_code(&account.backup_codes[1]);
            let body = serde_json::to_vec(&body).unwrap();
            alice.rest.raw(Method::POST, "/v1/auth/export", HeaderMap::new(), Some(body)).await.unwrap()
        };
        assert!(answer.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
        assert_eq!(answer.headers["cache-control"], "no-store");
        let body = String::from_utf8(answer.body).unwrap();
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let hex = if store.kind() == "postgres" { "encode(COLUMN, 'hex')" } else { "lower(hex(COLUMN))" };
        for (table, column) in [
            ("refresh_tokens", "hash"),
            ("refresh_tokens", "secret"),
            ("second_factors", "secret"),
            ("backup_codes", "hash"),
            ("backup_codes", "salt"),
            ("verifications", "code_hash"),
        ] {
            let query = format!("SELECT {} AS text FROM {table}", hex.replace("COLUMN", column));
            let secrets = inspect::texts(&store, &query).await.unwrap();
            assert!(!secrets.is_empty(), "{table}.{column}");
            for secret in secrets {
                let bytes = data_encoding::HEXLOWER.decode(secret.as_bytes()).unwrap();
                let coded = data_encoding::BASE64URL_NOPAD.encode(&bytes);
                assert!(!body.contains(&secret) && !body.contains(&coded), "{table}.{column} is told");
            }
        }
        for secret in [&alice.tokens.refresh_token, account.app.secret().as_str(), &account.backup_codes[0], &bob.phone] {
            assert!(!body.contains(secret), "{secret} is told");
        }
        let whole: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(whole["devices"][0]["device_id"], text(alice.device_id));
    }

    async fn it_is_given_three_times_a_day_to_an_account(database) {
        let node = TestNode::with(database, &[("SOTTO_AUTH__RESEND_DELAY", "0")]).await;
        let alice = register(&node, "alice").await;
        let tablet = second_device(&node, &alice, "tablet").await;
        for device in [&alice, &tablet, &alice] {
            device.rest.export(&proof(&node, device, Purpose::Export).await).await.unwrap();
        }
        let refused = tablet.rest.export(&proof(&node, &tablet, Purpose::Export).await).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::RateLimited));
        assert_eq!(refused.problem().unwrap().more["limit"]["name"], "export");
    }
}
