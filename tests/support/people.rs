//! People: accounts with devices, made by the real sign-in, with keys but no encryption of their own.

use super::node::TestNode;
use sotto_client::protocol::auth::{DeviceInfo, LoginRequest, Platform, Purpose, RegisterRequest, Tokens};
use sotto_client::protocol::frame::Welcome;
use sotto_client::protocol::message::{Envelope, Kind, OutgoingMessage};
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::{Binary, ConversationId, DeviceId, MessageId, UserId};
use sotto_client::{DeviceKeys, Rest, Socket, SocketOptions};
use std::sync::atomic::{AtomicU32, Ordering};

/// A signed-in device.
pub struct Device {
    pub url: String,
    pub user_id: UserId,
    pub device_id: DeviceId,
    pub phone: String,
    pub tokens: Tokens,
    pub keys: DeviceKeys,
    pub rest: Rest,
}

/// A number that no other test uses.
pub fn fresh_phone() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("+4179{:04}{:04}", std::process::id() % 10_000, COUNT.fetch_add(1, Ordering::Relaxed))
}

pub fn info(name: &str) -> DeviceInfo {
    DeviceInfo {
        name: name.to_owned(),
        platform: Platform::Desktop,
        fingerprint: None,
        model: None,
        os_version: None,
        app_version: None,
        push: None,
    }
}

/// Registers a new account with one device.
pub async fn register(node: &TestNode, name: &str) -> Device {
    let phone = fresh_phone();
    let rest = Rest::new(&node.url).expect("a URL");
    let verification = rest.verify(&phone, Purpose::Registration).await.expect("a code is sent");
    let mut keys = DeviceKeys::generate();
    let request = RegisterRequest {
        verification_id: verification.verification_id,
        code: node.code_for(&phone),
        device: info(name),
        keys: keys.sign_in_keys(20).expect("keys"),
        totp: None,
        backup_code: None,
        pin: None,
        replace: None,
    };
    let tokens = rest.register(&request).await.expect("registered");
    device(node, phone, tokens, keys)
}

/// Signs a further device of the same account in.
pub async fn second_device(node: &TestNode, first: &Device, name: &str) -> Device {
    let rest = Rest::new(&node.url).expect("a URL");
    let verification = rest.verify(&first.phone, Purpose::Login).await.expect("a code is sent");
    let mut keys = DeviceKeys::generate();
    let request = LoginRequest {
        verification_id: verification.verification_id,
        code: node.code_for(&first.phone),
        device: info(name),
        keys: keys.sign_in_keys(20).expect("keys"),
        device_proof: None,
        totp: None,
        backup_code: None,
        pin: None,
    };
    let tokens = rest.login(&request).await.expect("signed in");
    device(node, first.phone.clone(), tokens, keys)
}

fn device(node: &TestNode, phone: String, tokens: Tokens, keys: DeviceKeys) -> Device {
    let rest = Rest::new(&node.url).expect("a URL").with_token(&tokens.access_token);
    Device { url: node.url.clone(), user_id: tokens.user_id, device_id: tokens.device_id, phone, tokens, keys, rest }
}

/// A fresh code for a device's own number, as a proof.
pub async fn proof(node: &TestNode, device: &Device, purpose: Purpose) -> Reauthentication {
    let verification = device.rest.verify(&device.phone, purpose).await.expect("a code is sent");
    Reauthentication::by_code(verification.verification_id, node.code_for(&device.phone))
}

/// Two accounts with a direct conversation.
pub async fn pair(node: &TestNode) -> (Device, Device, ConversationId) {
    let (alice, bob) = (register(node, "alice").await, register(node, "bob").await);
    let conversation = alice.rest.create_direct(bob.user_id).await.expect("a conversation");
    (alice, bob, conversation.conversation_id)
}

impl Device {
    /// The same device against another node.
    pub fn at(&self, node: &TestNode) -> Rest {
        Rest::new(&node.url).expect("a URL").with_token(&self.tokens.access_token)
    }

    /// A socket that has got its `welcome`. It acknowledges nothing by itself.
    pub async fn socket(&self) -> (Socket, Welcome) {
        Socket::connect(&self.url, &SocketOptions::hello(&self.tokens.access_token)).await.expect("welcome")
    }

    /// A socket with a number of its own.
    pub async fn socket_with(&self, attempt: i64) -> sotto_client::Result<(Socket, Welcome)> {
        Socket::connect(&self.url, &SocketOptions::hello(&self.tokens.access_token).attempt(attempt)).await
    }
}

/// A message with a shared ciphertext.
pub fn shared(conversation_id: ConversationId, text: &str) -> OutgoingMessage {
    OutgoingMessage {
        message_id: MessageId::ordered(),
        conversation_id,
        kind: Kind::Text,
        ciphertext: Some(Binary(text.as_bytes().to_vec())),
        envelopes: None,
        reply_to: None,
        expires_in: None,
        client_seq: None,
        roster: None,
    }
}

/// A message with an envelope per device.
pub fn enveloped(conversation_id: ConversationId, to: &[&Device], text: &str) -> OutgoingMessage {
    let envelope = |device: &&Device| Envelope {
        user_id: device.user_id,
        device_id: device.device_id,
        registration_id: None,
        kind: 1,
        ciphertext: Binary(format!("{text} for {}", device.device_id).into_bytes()),
    };
    OutgoingMessage {
        ciphertext: None,
        envelopes: Some(to.iter().map(envelope).collect()),
        ..shared(conversation_id, text)
    }
}
