//! Signing in with a second factor: what is asked for, what is taken once, what is told to whom.

use super::{
    Account, App, code_for, early_in_a_step, login, not_accepted, problem, request, with_backup_code, with_totp,
};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{proof, register};
use futures::future::join;
use sotto_client::protocol::auth::{LoginRequest, Purpose};
use sotto_client::protocol::problem::{ErrorCode, Problem};

fn required<T>(result: Result<T, Problem>) -> Vec<String> {
    let problem = result.err().expect("this should have been refused");
    assert_eq!((problem.status, problem.code), (401, ErrorCode::SecondFactorRequired));
    serde_json::from_value(problem.more["methods"].clone()).unwrap()
}

on_both! {
    async fn asked_for_behind_the_right_code_and_taken_once(database) {
        let node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "alice").await;
        early_in_a_step().await;
        let request = account.request(&node).await;
        for _ in 0..7 {
            assert_eq!(required(login(&node, &request).await), ["totp", "backup_code"], "asking takes no try");
        }
        not_accepted(login(&node, &with_totp(&request, &account.app.code(1))).await, "/totp", 4);
        not_accepted(login(&node, &with_totp(&request, &account.spent)).await, "/totp", 3);
        not_accepted(login(&node, &with_totp(&request, "")).await, "/totp", 2);
        not_accepted(login(&node, &with_backup_code(&request, "aaaaa-bbbbb")).await, "/backup_code", 1);
        let present = account.app.code(0);
        let tokens = login(&node, &with_totp(&request, &present)).await.unwrap();
        assert_eq!(tokens.user_id, account.device.user_id);
        // The code from the text message has served as well.
        let used = login(&node, &with_totp(&request, &present)).await.err().unwrap();
        assert_eq!((used.code, used.errors.len()), (ErrorCode::CodeRejected, 0));
        // Replayed behind another code.
        let another = account.request(&node).await;
        not_accepted(login(&node, &with_totp(&another, &present)).await, "/totp", 4);
        // The code counts that the app shows, when both are there.
        let both = with_backup_code(&with_totp(&another, &present), &account.backup_codes[0]);
        not_accepted(login(&node, &both).await, "/totp", 3);
        login(&node, &with_backup_code(&another, &account.backup_codes[0].to_uppercase())).await.unwrap();
        let third = account.request(&node).await;
        not_accepted(login(&node, &with_backup_code(&third, &account.backup_codes[0])).await, "/backup_code", 4);
        assert_eq!(account.device.rest.second_factor().await.unwrap().backup_codes_left, 9);
    }

    async fn five_wrong_ones_end_the_code(database) {
        let node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "alice").await;
        let request = account.request(&node).await;
        for left in [4, 3, 2, 1, 0] {
            not_accepted(login(&node, &with_totp(&request, &account.app.wrong())).await, "/totp", left);
        }
        // From here on nothing tells that the code was right.
        for request in [request.clone(), with_backup_code(&request, &account.backup_codes[0])] {
            let ended = login(&node, &request).await.err().unwrap();
            assert_eq!((ended.code, ended.errors.len()), (ErrorCode::CodeRejected, 0));
            assert_eq!(ended.more["attempts_left"], 0);
        }
        let fresh = account.request(&node).await;
        login(&node, &with_backup_code(&fresh, &account.backup_codes[0])).await.unwrap();
    }

    async fn nothing_is_told_before_the_right_code(database) {
        let node = TestNode::start(database).await;
        let (with, without) = (Account::with_second_factor(&node, "alice").await, register(&node, "bob").await);
        let (present, backup) = (with.app.code(0), with.backup_codes[0].clone());
        let mut told: Vec<Vec<String>> = Vec::new();
        for phone in [&with.device.phone, &without.phone] {
            let right = request(&node, phone, Purpose::Login).await;
            let code = format!("{:06}", (right.code.parse::<u32>().unwrap() + 1) % 1_000_000);
            let wrong = LoginRequest { code, ..right };
            let mut answers = Vec::new();
            for request in [wrong.clone(), with_totp(&wrong, &present), with_backup_code(&wrong, &backup)] {
                let mut problem = login(&node, &request).await.err().unwrap();
                assert_eq!(problem.code, ErrorCode::CodeRejected);
                problem.request_id = String::new();
                answers.push(serde_json::to_string(&problem).unwrap());
            }
            told.push(answers);
        }
        assert_eq!(told[0], told[1], "an account with a second factor answers as one without");
        // Nothing was used up by it.
        let right = with.request(&node).await;
        login(&node, &with_backup_code(&right, &backup)).await.unwrap();
        // Where there is none, what is shown is not looked at.
        let right = request(&node, &without.phone, Purpose::Login).await;
        login(&node, &with_totp(&right, "nonsense")).await.unwrap();
    }

    async fn a_conflict_uses_nothing_up(database) {
        let node = TestNode::start(database).await;
        let mut account = Account::with_second_factor(&node, "alice").await;
        early_in_a_step().await;
        let mut known = with_totp(&account.request(&node).await, &account.app.code(0));
        // The keys of a device that exists, without its proof.
        let good = std::mem::replace(&mut known.keys, account.device.keys.sign_in_keys(2).unwrap());
        let conflict = login(&node, &known).await.err().unwrap();
        assert_eq!(conflict.code, ErrorCode::Conflict);
        known.keys = good;
        login(&node, &known).await.unwrap();
    }

    async fn one_code_at_two_nodes_at_once_serves_once(database) {
        let node = TestNode::start(database).await;
        let other = node.sibling().await;
        for round in 0..4 {
            let account = Account::with_second_factor(&node, &format!("alice {round}")).await;
            let (first, second) = (account.request(&node).await, account.request(&other).await);
            early_in_a_step().await;
            let present = account.app.code(0);
            let (first, second) = (with_totp(&first, &present), with_totp(&second, &present));
            let answers = join(login(&node, &first), login(&other, &second)).await;
            let [won, lost] = sorted([answers.0, answers.1]);
            assert!(won.is_ok(), "{:?}", won.err());
            not_accepted(lost, "/totp", 4);
            // The same at one node, with a backup code, from four sides.
            let backup = &account.backup_codes[round];
            let mut requests = Vec::new();
            for place in [&node, &other, &node, &other] {
                requests.push((place, with_backup_code(&account.request(place).await, backup)));
            }
            let asked = requests.iter().map(|(place, request)| login(place, request));
            let answers = futures::future::join_all(asked).await;
            let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
            assert_eq!((won.len(), lost.len()), (1, 3));
            for answer in lost {
                not_accepted(answer, "/backup_code", 4);
            }
            assert_eq!(account.device.rest.second_factor().await.unwrap().backup_codes_left, 9);
        }
    }

    async fn wrong_ones_are_limited_per_account_over_all_codes(database) {
        let settings = [
            ("SOTTO_AUTH__RESEND_DELAY", "0"),
            ("SOTTO_LIMITS__CODES_PER_NUMBER_PER_HOUR", "1000"),
            ("SOTTO_LIMITS__CODES_PER_NUMBER_PER_DAY", "1000"),
            ("SOTTO_LIMITS__CODES_PER_ADDRESS_PER_HOUR", "1000"),
            ("SOTTO_LIMITS__FAILED_SIGN_INS", "1000"),
            ("SOTTO_LIMITS__WRONG_SECOND_FACTORS", "3"),
        ];
        let node = TestNode::with(database, &settings).await;
        let other = node.sibling().await;
        let account = Account::with_second_factor(&node, "alice").await;
        for place in [&node, &other, &node] {
            let request = account.request(place).await;
            not_accepted(login(place, &with_totp(&request, &account.app.wrong())).await, "/totp", 4);
        }
        let request = account.request(&other).await;
        let limited = login(&other, &with_backup_code(&request, &account.backup_codes[0])).await.err().unwrap();
        assert_eq!(limited.code, ErrorCode::RateLimited);
        assert_eq!(limited.more["limit"]["name"], "second_factor");
        assert!(limited.retry_after_ms.unwrap() > 800_000, "{limited:?}");
        // Whoever holds a session is not kept out by it, and his codes were not used up.
        let mut again = account.again(&node).await;
        again.backup_code = Some(account.backup_codes[0].clone());
        account.device.rest.disable_totp(&again).await.unwrap();
        login(&other, &request).await.unwrap();
    }

    async fn a_code_for_something_else_is_none(database) {
        let node = TestNode::start(database).await;
        let account = Account::with_second_factor(&node, "alice").await;
        let (verification_id, code) = code_for(&node, &account.device.phone, Purpose::SecondFactor).await;
        let request = LoginRequest { verification_id, code, ..account.request(&node).await };
        let refused = login(&node, &with_backup_code(&request, &account.backup_codes[0])).await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::CodeRejected);
        assert!(refused.errors.is_empty());
    }

    async fn secrets_are_neither_logged_nor_told_again(database) {
        let settings = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_LOG__LEVEL", "trace")];
        let node = TestNode::with(database, &settings).await;
        let device = register(&node, "alice").await;
        let proof = proof(&node, &device, Purpose::SecondFactor).await;
        early_in_a_step().await;
        let set_up = device.rest.set_up_totp().await.unwrap();
        let app = App::of(&set_up);
        let enabling = app.code(-1);
        let codes = device.rest.enable_totp(&enabling, proof).await.unwrap().backup_codes;
        let sign_in = request(&node, &device.phone, Purpose::Login).await;
        problem(sotto_client::Rest::new(&node.url).unwrap().login(&with_totp(&sign_in, "777777")).await.err().unwrap());
        login(&node, &with_backup_code(&sign_in, &codes[0])).await.unwrap();
        let log = node.log();
        assert!(log.contains("a second factor was enabled"), "{log}");
        for secret in codes.iter().chain([&set_up.secret, &set_up.uri, &device.phone]) {
            assert!(!log.contains(secret.as_str()), "a secret is in the log");
        }
        let state = device.rest.second_factor().await.unwrap();
        assert!(!serde_json::to_string(&state).unwrap().contains(&set_up.secret));
    }
}

/// The one that was taken first.
fn sorted<T, E>([one, other]: [Result<T, E>; 2]) -> [Result<T, E>; 2] {
    if one.is_ok() { [one, other] } else { [other, one] }
}
