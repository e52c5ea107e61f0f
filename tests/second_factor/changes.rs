//! Setting up, enabling, renewing backup codes and turning off.

use super::{Account, App, code, code_for, early_in_a_step, enable, login, not_accepted, problem, request};
use super::{with_backup_code, with_totp};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{proof, register};
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::second_factor::SecondFactorState;

const NONE: SecondFactorState =
    SecondFactorState { enabled: false, enabled_at: None, undo_until: None, pending_until: None, backup_codes_left: 0 };

on_both! {
    async fn set_up_enabled_and_told(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let rest = &device.rest;
        assert_eq!(rest.second_factor().await.unwrap(), NONE);
        let proof = proof(&node, &device, Purpose::SecondFactor).await;
        assert_eq!(code(rest.enable_totp("123456", proof.clone()).await), ErrorCode::Conflict);
        let first = rest.set_up_totp().await.unwrap();
        assert_eq!(first.secret.len(), 32);
        let number = device.phone.trim_start_matches('+');
        assert!(first.uri.starts_with(&format!("otpauth://totp/Sotto:%2B{number}?secret={}&", first.secret)), "{}", first.uri);
        assert!(first.qr_svg.contains("<svg") && first.qr_png.starts_with("data:image/png;base64,"));
        let pending = rest.second_factor().await.unwrap();
        assert_eq!((pending.enabled, pending.pending_until), (false, Some(first.expires_at)));
        // Nothing is asked for yet.
        login(&node, &request(&node, &device.phone, Purpose::Login).await).await.unwrap();
        early_in_a_step().await;
        // A second set-up takes the place of the first one.
        let (old, set_up) = (App::of(&first), rest.set_up_totp().await.unwrap());
        let app = App::of(&set_up);
        not_accepted(rest.enable_totp(&old.code(0), proof.clone()).await.map_err(problem), "/totp", 4);
        not_accepted(rest.enable_totp(&app.code(1), proof.clone()).await.map_err(problem), "/totp", 3);
        not_accepted(rest.enable_totp(&app.code(-2), proof.clone()).await.map_err(problem), "/totp", 2);
        let codes = rest.enable_totp(&app.code(-1), proof.clone()).await.unwrap().backup_codes;
        assert_eq!(codes.len(), 10);
        assert!(codes.iter().all(|code| code.len() == 11));
        assert_eq!(codes.iter().collect::<std::collections::HashSet<_>>().len(), 10);
        let state = rest.second_factor().await.unwrap();
        assert!(state.enabled && state.enabled_at.is_some() && state.pending_until.is_none());
        assert_eq!(state.backup_codes_left, 10);
        assert_eq!(code(rest.set_up_totp().await), ErrorCode::Conflict);
        assert_eq!(code(rest.enable_totp(&app.code(0), proof).await), ErrorCode::Conflict);
    }

    async fn a_set_up_takes_five_wrong_codes(database) {
        let node = TestNode::start(database).await;
        let device = register(&node, "alice").await;
        let proof = proof(&node, &device, Purpose::SecondFactor).await;
        early_in_a_step().await;
        let app = App::of(&device.rest.set_up_totp().await.unwrap());
        for left in [4, 3, 2, 1, 0] {
            not_accepted(device.rest.enable_totp(&app.wrong(), proof.clone()).await.map_err(problem), "/totp", left);
        }
        assert_eq!(code(device.rest.enable_totp(&app.code(0), proof).await), ErrorCode::Conflict);
        assert_eq!(device.rest.second_factor().await.unwrap(), NONE);
        enable(&node, &device).await;
        assert!(device.rest.second_factor().await.unwrap().enabled);
    }

    async fn turned_off_by_whoever_proves_himself_anew(database) {
        let node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "alice").await;
        let bob = Account::with_second_factor(&node, "bob").await;
        let (rest, backup) = (&account.device.rest, &account.backup_codes);
        // A code for signing in, and one that went to somebody else.
        for (phone, purpose) in [(&account.device.phone, Purpose::Login), (&bob.device.phone, Purpose::SecondFactor)] {
            let (verification_id, code) = code_for(&node, phone, purpose).await;
            let proof = Reauthentication::by_code(verification_id, code).with_backup_code(backup[0].clone());
            let refused = problem(rest.disable_totp(&proof).await.unwrap_err());
            assert_eq!((refused.code, refused.errors.len()), (ErrorCode::CodeRejected, 0));
        }
        let mut proof = account.again(&node).await;
        assert_eq!(code(rest.disable_totp(&proof).await), ErrorCode::SecondFactorRequired);
        proof.backup_code = Some(bob.backup_codes[0].clone());
        not_accepted(rest.disable_totp(&proof).await.map_err(problem), "/backup_code", 4);
        proof.totp = Some(account.app.wrong());
        not_accepted(rest.disable_totp(&proof).await.map_err(problem), "/totp", 3);
        assert!(rest.second_factor().await.unwrap().enabled);
        early_in_a_step().await;
        proof.totp = Some(account.app.code(0));
        rest.disable_totp(&proof).await.unwrap();
        assert_eq!(rest.second_factor().await.unwrap(), NONE);
        login(&node, &account.request(&node).await).await.unwrap();
        // A proof serves once, and there is nothing left to turn off.
        assert_eq!(code(rest.disable_totp(&proof).await), ErrorCode::CodeRejected);
        assert_eq!(code(rest.disable_totp(&account.again(&node).await).await), ErrorCode::Conflict);
        assert!(bob.device.rest.second_factor().await.unwrap().enabled);
        // Another set-up has another secret: the old app and the old codes are worth nothing.
        let (app, _, codes) = enable(&node, &account.device).await;
        let request = account.request(&node).await;
        early_in_a_step().await;
        not_accepted(login(&node, &with_totp(&request, &account.app.code(0))).await, "/totp", 4);
        not_accepted(login(&node, &with_backup_code(&request, &backup[1])).await, "/backup_code", 3);
        login(&node, &with_totp(&request, &app.code(0))).await.unwrap();
        assert_eq!(codes.len(), 10);
    }

    async fn new_backup_codes_end_the_old_ones(database) {
        let node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "alice").await;
        let rest = &account.device.rest;
        let mut proof = account.again(&node).await;
        proof.backup_code = Some(account.backup_codes[0].clone());
        let fresh = rest.renew_backup_codes(&proof).await.unwrap().backup_codes;
        assert_eq!(fresh.len(), 10);
        assert!(fresh.iter().all(|code| !account.backup_codes.contains(code)));
        assert_eq!(rest.second_factor().await.unwrap().backup_codes_left, 10);
        let request = account.request(&node).await;
        not_accepted(login(&node, &with_backup_code(&request, &account.backup_codes[1])).await, "/backup_code", 4);
        login(&node, &with_backup_code(&request, &fresh[9])).await.unwrap();
        assert_eq!(rest.second_factor().await.unwrap().backup_codes_left, 9);
    }
}
