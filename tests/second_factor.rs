//! The second factor through HTTP on real nodes: sign-in, replays, two nodes at once, swapped cells, keys that rotate.

mod changes;
mod client;
mod rotation;
mod sign_in;
mod swapped;

use crate::support::node::TestNode;
use crate::support::people::{Device, info, proof, register};
use data_encoding::BASE32_NOPAD;
use sotto::identity::totp::{self, Secret};
use sotto_client::protocol::VerificationId;
use sotto_client::protocol::auth::{LoginRequest, Purpose, Tokens};
use sotto_client::protocol::problem::{ErrorCode, Problem};
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::second_factor::TotpSetUp;
use sotto_client::protocol::timestamp::Timestamp;
use sotto_client::{DeviceKeys, Error, Rest};
use std::time::Duration;

/// An authenticator app.
pub struct App(Secret);

impl App {
    /// Reads the secret as somebody would who types it.
    pub fn of(set_up: &TotpSetUp) -> Self {
        let bytes = BASE32_NOPAD.decode(set_up.secret.as_bytes()).unwrap();
        Self(Secret::from_bytes(&bytes).unwrap())
    }

    /// The code of a step so far from the present one.
    pub fn code(&self, away: i64) -> String {
        self.0.code(totp::step_at(Timestamp::now()) + away)
    }

    /// The secret, as somebody would type it.
    pub fn secret(&self) -> String {
        self.0.base32()
    }

    /// Six digits that are the code of no step around now.
    pub fn wrong(&self) -> String {
        let near: Vec<String> = (-3..=3).map(|away| self.code(away)).collect();
        let wrong = (0..10).map(|number| format!("{number:06}")).find(|code| !near.contains(code));
        wrong.unwrap()
    }
}

/// Waits until so much of the present step is left that what follows happens within it.
pub async fn early_in_a_step() {
    while Timestamp::now().as_micros().rem_euclid(30_000_000) > 20_000_000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An account with a second factor whose present step was not used yet.
pub struct Account {
    pub device: Device,
    pub app: App,
    /// The code that has enabled it.
    pub spent: String,
    pub backup_codes: Vec<String>,
}

impl Account {
    pub async fn with_second_factor(node: &TestNode, name: &str) -> Self {
        let device = register(node, name).await;
        let (app, spent, backup_codes) = enable(node, &device).await;
        Self { device, app, spent, backup_codes }
    }

    /// A request to sign a new device in, with the right code.
    pub async fn request(&self, node: &TestNode) -> LoginRequest {
        request(node, &self.device.phone, Purpose::Login).await
    }

    /// A proof with the right code, and nothing of the second factor yet.
    pub async fn again(&self, node: &TestNode) -> Reauthentication {
        let (verification_id, code) = code_for(node, &self.device.phone, Purpose::SecondFactor).await;
        Reauthentication::by_code(verification_id, code)
    }
}

/// Sets a second factor up and enables it with the code of the step before: the app, that code, and the backup codes.
pub async fn enable(node: &TestNode, device: &Device) -> (App, String, Vec<String>) {
    let proof = proof(node, device, Purpose::SecondFactor).await;
    early_in_a_step().await;
    let app = App::of(&device.rest.set_up_totp().await.unwrap());
    let spent = app.code(-1);
    let codes = device.rest.enable_totp(&spent, proof).await.unwrap().backup_codes;
    (app, spent, codes)
}

pub async fn code_for(node: &TestNode, phone: &str, purpose: Purpose) -> (VerificationId, String) {
    let verification = Rest::new(&node.url).unwrap().verify(phone, purpose).await.unwrap();
    (verification.verification_id, node.code_for(phone))
}

pub async fn request(node: &TestNode, phone: &str, purpose: Purpose) -> LoginRequest {
    let (verification_id, code) = code_for(node, phone, purpose).await;
    LoginRequest {
        verification_id,
        code,
        device: info("new"),
        keys: DeviceKeys::generate().sign_in_keys(2).unwrap(),
        device_proof: None,
        totp: None,
        backup_code: None,
        pin: None,
    }
}

pub async fn login(node: &TestNode, request: &LoginRequest) -> Result<Tokens, Problem> {
    Rest::new(&node.url).unwrap().login(request).await.map_err(problem)
}

pub fn with_totp(request: &LoginRequest, totp: &str) -> LoginRequest {
    LoginRequest { totp: Some(totp.to_owned()), ..request.clone() }
}

pub fn with_backup_code(request: &LoginRequest, code: &str) -> LoginRequest {
    LoginRequest { backup_code: Some(code.to_owned()), ..request.clone() }
}

pub fn problem(error: Error) -> Problem {
    error.problem().unwrap_or_else(|| panic!("no problem: {error}")).clone()
}

pub fn code<T>(result: Result<T, Error>) -> ErrorCode {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => problem(error).code,
    }
}

/// A second factor that was not accepted, at this place, with so many tries left.
pub fn not_accepted<T>(result: Result<T, Problem>, pointer: &str, attempts_left: i64) {
    let problem = result.err().expect("this should have been refused");
    assert_eq!(problem.code, ErrorCode::CodeRejected, "{problem:?}");
    assert_eq!(problem.more["attempts_left"], attempts_left);
    let places: Vec<_> = problem.errors.iter().map(|error| (error.pointer.as_deref(), error.code.as_str())).collect();
    assert_eq!(places, [(Some(pointer), "not_accepted")]);
}
