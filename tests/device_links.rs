//! Linking a new device by a QR code through HTTP on real nodes: who may, who may not, races, lost answers, two nodes.

mod client;
mod nodes;
mod refusals;
mod scans;

use crate::support::node::TestNode;
use crate::support::people::{Device, info};
use sotto_client::device_link::Collected;
use sotto_client::protocol::auth::{DeviceInfo, Purpose, Tokens};
use sotto_client::protocol::device_link::{BeginLink, BegunLink, CollectLink, ConfirmLink, LinkCode, LinkUri};
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::protocol::{Binary, LinkId};
use sotto_client::{DeviceKeys, Error, Rest};

/// A device that shows its QR code.
pub struct Newcomer {
    pub keys: DeviceKeys,
    pub begun: BegunLink,
    pub rest: Rest,
}

impl Newcomer {
    pub async fn at(node: &TestNode, name: &str) -> Self {
        Self::with(node, DeviceKeys::generate(), name).await.unwrap()
    }

    pub async fn with(node: &TestNode, keys: DeviceKeys, name: &str) -> Result<Self, Error> {
        Self::saying(node, keys, info(name)).await
    }

    pub async fn saying(node: &TestNode, mut keys: DeviceKeys, device: DeviceInfo) -> Result<Self, Error> {
        let rest = Rest::new(&node.url).unwrap();
        let request = BeginLink { device, keys: keys.sign_in_keys(5).unwrap() };
        let begun = rest.begin_link(&request).await?;
        Ok(Self { keys, begun, rest })
    }

    pub fn id(&self) -> LinkId {
        self.begun.link_id
    }

    /// What somebody reads from the QR code.
    pub fn code(&self) -> LinkCode {
        let uri = LinkUri::parse(&self.begun.qr).unwrap();
        assert_eq!((uri.link_id, &uri.code.challenge), (self.begun.link_id, &self.begun.challenge));
        uri.code
    }

    pub fn request(&self) -> CollectLink {
        CollectLink {
            link_secret: self.begun.link_secret.clone(),
            challenge: self.begun.challenge.clone(),
            proof: self.keys.link_proof(self.begun.link_id, &self.begun.challenge),
        }
    }

    pub async fn collect(&self) -> Result<Collected, Error> {
        self.rest.collect_link(self.id(), &self.request()).await
    }

    pub async fn tokens(&self) -> Tokens {
        match self.collect().await.unwrap() {
            Collected::Tokens(tokens) => tokens,
            Collected::Pending(pending) => panic!("nobody has confirmed: {pending:?}"),
        }
    }
}

/// A proof with the right code.
pub async fn proof(node: &TestNode, device: &Device) -> Reauthentication {
    let verification = Rest::new(&node.url).unwrap().verify(&device.phone, Purpose::DeviceLink).await.unwrap();
    let code = node.code_for(&device.phone);
    Reauthentication::by_code(verification.verification_id, code)
}

pub async fn confirmation(node: &TestNode, device: &Device, newcomer: &Newcomer) -> ConfirmLink {
    ConfirmLink::new(newcomer.code(), proof(node, device).await)
}

/// Scans and confirms.
pub async fn take_in(node: &TestNode, device: &Device, newcomer: &Newcomer) {
    device.rest.scan_link(newcomer.id(), &newcomer.code()).await.unwrap();
    let confirmation = confirmation(node, device, newcomer).await;
    device.rest.confirm_link(newcomer.id(), &confirmation).await.unwrap();
}

pub fn code<T>(result: Result<T, Error>) -> ErrorCode {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => error.code().unwrap_or_else(|| panic!("no problem: {error}")),
    }
}

/// The same bytes with one bit changed.
pub fn other(bytes: &Binary) -> Binary {
    let mut bytes = bytes.0.clone();
    bytes[0] ^= 1;
    Binary(bytes)
}
