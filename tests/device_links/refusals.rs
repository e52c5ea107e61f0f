//! What must not work: foreign accounts, forwarded codes, other keys and secrets, expired, refused and used links.

use super::{Newcomer, code, confirmation, other, proof, take_in};
use crate::devices::silence::sweeper;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{info, register};
use sotto_client::protocol::auth::{DeviceInfo, Purpose};
use sotto_client::protocol::device_link::{BeginLink, CollectLink, ConfirmLink, LinkCode};
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::{DeviceKeys, Rest};
use sotto_schema::{Store, StoreSettings, inspect};
use std::time::Duration;

on_both! {
    async fn the_first_account_has_it_and_others_find_nothing(database) {
        let node = TestNode::start(database).await;
        let (alice, mallory) = (register(&node, "alice").await, register(&node, "mallory").await);
        let laptop = Newcomer::at(&node, "laptop").await;
        // Not scanned yet: nothing to confirm and nothing to refuse. The code stays good.
        let early = confirmation(&node, &alice, &laptop).await;
        assert_eq!(code(alice.rest.confirm_link(laptop.id(), &early).await), ErrorCode::NotFound);
        assert_eq!(code(alice.rest.refuse_link(laptop.id(), &laptop.code()).await), ErrorCode::NotFound);
        alice.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap();
        assert_eq!(code(mallory.rest.scan_link(laptop.id(), &laptop.code()).await), ErrorCode::NotFound);
        let theirs = confirmation(&node, &mallory, &laptop).await;
        assert_eq!(code(mallory.rest.confirm_link(laptop.id(), &theirs).await), ErrorCode::NotFound);
        assert_eq!(code(mallory.rest.refuse_link(laptop.id(), &laptop.code()).await), ErrorCode::NotFound);
        // The proof of another account proves nothing.
        let ConfirmLink { verification_id, code: sms, .. } = theirs;
        let foreign = Reauthentication { verification_id, code: sms, ..Reauthentication::default() };
        let foreign = ConfirmLink::new(laptop.code(), foreign);
        assert_eq!(code(alice.rest.confirm_link(laptop.id(), &foreign).await), ErrorCode::CodeRejected);
        alice.rest.confirm_link(laptop.id(), &early).await.unwrap();
        assert_eq!(laptop.tokens().await.user_id, alice.user_id);
        assert_eq!(code(alice.rest.refuse_link(laptop.id(), &laptop.code()).await), ErrorCode::NotFound);
        assert_eq!(code(alice.rest.scan_link(laptop.id(), &laptop.code()).await), ErrorCode::NotFound);
    }

    async fn a_code_with_another_challenge_or_key_is_none_and_binds_nobody(database) {
        let node = TestNode::start(database).await;
        let (alice, mallory) = (register(&node, "alice").await, register(&node, "mallory").await);
        let laptop = Newcomer::at(&node, "laptop").await;
        let stranger = Newcomer::at(&node, "stranger").await;
        let right = laptop.code();
        let wrong = [
            LinkCode { challenge: other(&right.challenge), ..right.clone() },
            LinkCode { identity_key: other(&right.identity_key), ..right.clone() },
            LinkCode { challenge: stranger.code().challenge, ..right.clone() },
            // Forwarded: the stranger puts his key beside the challenge of somebody else's code.
            LinkCode { identity_key: stranger.code().identity_key, ..right.clone() },
            stranger.code(),
        ];
        for shown in &wrong {
            assert_eq!(code(mallory.rest.scan_link(laptop.id(), shown).await), ErrorCode::NotFound);
        }
        alice.rest.scan_link(laptop.id(), &right).await.unwrap();
        let again = proof(&node, &alice).await;
        for shown in wrong {
            let confirmation = ConfirmLink::new(shown.clone(), again.clone());
            assert_eq!(code(alice.rest.confirm_link(laptop.id(), &confirmation).await), ErrorCode::NotFound);
            assert_eq!(code(alice.rest.refuse_link(laptop.id(), &shown).await), ErrorCode::NotFound);
        }
        alice.rest.confirm_link(laptop.id(), &ConfirmLink::new(right, again)).await.unwrap();
    }

    async fn only_the_new_device_itself_collects(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let (laptop, stranger) = (Newcomer::at(&node, "laptop").await, Newcomer::at(&node, "stranger").await);
        take_in(&node, &alice, &laptop).await;
        let right = laptop.request();
        let (id, challenge) = (laptop.id(), &laptop.begun.challenge);
        let wrong = [
            CollectLink { link_secret: other(&right.link_secret), ..right.clone() },
            CollectLink { challenge: other(&right.challenge), ..right.clone() },
            CollectLink { proof: other(&right.proof), ..right.clone() },
            // Whoever has photographed the code, and even whoever has overheard the secret, has no key to sign with.
            CollectLink { proof: stranger.keys.link_proof(id, challenge), ..right.clone() },
            CollectLink { proof: laptop.keys.link_proof(stranger.id(), challenge), ..right.clone() },
            CollectLink { proof: laptop.keys.link_proof(id, &stranger.begun.challenge), ..right.clone() },
            CollectLink { link_secret: stranger.begun.link_secret.clone(), ..right.clone() },
            stranger.request(),
        ];
        for request in wrong {
            assert_eq!(code(laptop.rest.collect_link(id, &request).await), ErrorCode::NotFound);
        }
        assert_eq!(code(laptop.rest.collect_link(stranger.id(), &right).await), ErrorCode::NotFound);
        laptop.tokens().await;
    }

    async fn refused_is_refused(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        for confirm_first in [false, true] {
            let laptop = Newcomer::at(&node, "laptop").await;
            alice.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap();
            let confirmation = confirmation(&node, &alice, &laptop).await;
            if confirm_first {
                alice.rest.confirm_link(laptop.id(), &confirmation).await.unwrap();
            }
            alice.rest.refuse_link(laptop.id(), &laptop.code()).await.unwrap();
            alice.rest.refuse_link(laptop.id(), &laptop.code()).await.unwrap();
            assert_eq!(code(laptop.collect().await), ErrorCode::NotFound);
            assert_eq!(code(alice.rest.confirm_link(laptop.id(), &confirmation).await), ErrorCode::NotFound);
            assert_eq!(code(alice.rest.scan_link(laptop.id(), &laptop.code()).await), ErrorCode::NotFound);
        }
        assert_eq!(alice.rest.devices(alice.user_id).await.unwrap().devices.len(), 0);
    }

    async fn what_has_expired_is_gone_at_every_step(database) {
        let settings = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__LINK_TTL", "3")];
        let node = TestNode::with(database, &settings).await;
        let alice = register(&node, "alice").await;
        let [begun, scanned, confirmed] = [
            Newcomer::at(&node, "begun").await,
            Newcomer::at(&node, "scanned").await,
            Newcomer::at(&node, "confirmed").await,
        ];
        take_in(&node, &alice, &confirmed).await;
        alice.rest.scan_link(scanned.id(), &scanned.code()).await.unwrap();
        let confirmation = confirmation(&node, &alice, &scanned).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(code(alice.rest.scan_link(begun.id(), &begun.code()).await), ErrorCode::NotFound);
        assert_eq!(code(alice.rest.confirm_link(scanned.id(), &confirmation).await), ErrorCode::NotFound);
        for newcomer in [&begun, &scanned, &confirmed] {
            assert_eq!(code(newcomer.collect().await), ErrorCode::NotFound);
        }
        // One that expires while it is asked for ends the wait.
        let late = Newcomer::at(&node, "late").await;
        assert_eq!(code(late.collect().await), ErrorCode::NotFound);
    }

    async fn what_has_expired_is_swept_a_minute_later(database) {
        let node = TestNode::start(database).await;
        let laptop = Newcomer::at(&node, "laptop").await;
        let (identity, store) = sweeper(&node).await;
        for (seconds, left) in [(0, 1), (60, 1), (61, 0)] {
            let now = laptop.begun.expires_at.plus(Duration::from_secs(seconds));
            identity.sweep(now).await.unwrap();
            let rows = inspect::texts(&store, "SELECT stage AS text FROM device_links").await.unwrap();
            assert_eq!(rows.len(), left, "{seconds} s after its end");
        }
    }

    async fn a_fingerprint_of_another_device_is_refused(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let marked = DeviceInfo { fingerprint: Some("installation-1".to_owned()), ..info("laptop") };
        let laptop = Newcomer::saying(&node, DeviceKeys::generate(), marked.clone()).await.unwrap();
        let copy = Newcomer::saying(&node, DeviceKeys::generate(), marked).await.unwrap();
        for newcomer in [&laptop, &copy] {
            alice.rest.scan_link(newcomer.id(), &newcomer.code()).await.unwrap();
        }
        let confirmation = confirmation(&node, &alice, &copy).await;
        take_in(&node, &alice, &laptop).await;
        let tokens = laptop.tokens().await;
        assert_eq!(code(alice.rest.confirm_link(copy.id(), &confirmation).await), ErrorCode::Conflict);
        // Nothing was used up: when the other one has gone, the same confirmation serves.
        let by_code = crate::support::people::proof(&node, &alice, Purpose::DeviceRemoval).await;
        alice.rest.remove_device(tokens.device_id, Some(&by_code)).await.unwrap();
        alice.rest.confirm_link(copy.id(), &confirmation).await.unwrap();
        copy.tokens().await;
    }

    async fn a_code_for_something_else_confirms_nothing(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let laptop = Newcomer::at(&node, "laptop").await;
        alice.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap();
        for purpose in [Purpose::Login, Purpose::SecondFactor, Purpose::AccountDeletion] {
            let verification = Rest::new(&node.url).unwrap().verify(&alice.phone, purpose).await.unwrap();
            let sms = node.code_for(&alice.phone);
            let id = verification.verification_id;
            let again = Reauthentication::by_code(id, sms);
            let confirmation = ConfirmLink::new(laptop.code(), again);
            assert_eq!(code(alice.rest.confirm_link(laptop.id(), &confirmation).await), ErrorCode::CodeRejected);
        }
    }

    async fn keys_are_checked_and_secrets_are_not_stored(database) {
        let node = TestNode::start(database).await;
        let rest = Rest::new(&node.url).unwrap();
        let mut keys = DeviceKeys::generate().sign_in_keys(2).unwrap();
        let signed = keys.signed_prekey.as_mut().unwrap();
        signed.signature = other(&signed.signature);
        let error = rest.begin_link(&BeginLink { device: info("x"), keys }).await.err().unwrap();
        assert_eq!(error.problem().unwrap().errors[0].pointer.as_deref(), Some("/keys/signed_prekey/signature"));
        let laptop = Newcomer::at(&node, "laptop").await;
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let column = |column: &str| match database {
            crate::support::database::Kind::Sqlite => format!("SELECT lower(hex({column})) AS text FROM device_links"),
            crate::support::database::Kind::Postgres => format!("SELECT encode({column}, 'hex') AS text FROM device_links"),
        };
        for (name, secret) in
            [("challenge_hash", &laptop.begun.challenge), ("secret_hash", &laptop.begun.link_secret)]
        {
            let secret: String = secret.0.iter().map(|byte| format!("{byte:02x}")).collect();
            let rows = inspect::texts(&store, &column(name)).await.unwrap();
            assert!(rows.len() == 1 && rows[0].len() == secret.len() && rows[0] != secret, "{name}: {rows:?}");
        }
        assert!(!node.log().contains(&sotto_client::protocol::Binary::encode(&laptop.begun.link_secret.0)));
    }

    async fn who_begins_too_often_is_stopped(database) {
        let node = TestNode::with(database, &[("SOTTO_LIMITS__LINKS_PER_ADDRESS_PER_HOUR", "2")]).await;
        let other = node.sibling().await;
        Newcomer::at(&node, "one").await;
        Newcomer::at(&other, "two").await;
        for node in [&node, &other] {
            let refused = Newcomer::with(node, DeviceKeys::generate(), "three").await;
            assert_eq!(code(refused.map(|_| ())), ErrorCode::RateLimited);
        }
    }

    async fn no_address_is_kept_where_none_is_wanted(database) {
        let settings = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__KEEP_ADDRESSES", "false")];
        let node = TestNode::with(database, &settings).await;
        let alice = register(&node, "alice").await;
        let laptop = Newcomer::at(&node, "laptop").await;
        assert_eq!(alice.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap().address, None);
        let store = Store::open(&node.store_url, &StoreSettings::default()).await.unwrap();
        let kept = inspect::texts(&store, "SELECT id AS text FROM device_links WHERE address IS NOT NULL").await;
        assert!(kept.unwrap().is_empty());
    }
}
