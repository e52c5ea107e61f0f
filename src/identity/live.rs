//! Identity and the node's actors, in both directions: the node asks who speaks, identity tells what changed.

use std::sync::OnceLock;

use futures::future::BoxFuture;
use sotto_actors::Node;
use sotto_protocol::close;
use sotto_protocol::event::KeysLow;
use sotto_protocol::problem::Problem;
use sotto_protocol::{DeviceId, Timestamp, UserId};
use uuid::Uuid;

use super::Identity;
use super::changes::Changes;
use super::session::Caller;

impl From<Caller> for sotto_actors::Caller {
    fn from(caller: Caller) -> Self {
        Self {
            user_id: caller.user_id,
            device_id: caller.device_id,
            session_id: caller.session_id,
            token_expires_at: caller.token_expires_at,
        }
    }
}

impl sotto_actors::Identity for Identity {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<sotto_actors::Caller, Problem>> {
        Box::pin(async move {
            let caller = Identity::authenticate(self, token, Timestamp::now()).await.map_err(Problem::from)?;
            Ok(caller.into())
        })
    }

    fn keys_low(&self, device: DeviceId) -> BoxFuture<'_, Vec<KeysLow>> {
        Box::pin(async move { self.low_stocks(device, Timestamp::now()).await.unwrap_or_default() })
    }
}

/// Tells a node, which starts after identity: [`Live::connect`] joins them. Until then nobody has a socket that would
/// have to hear anything. To be told from within the node's runtime.
#[derive(Debug, Default)]
pub struct Live(OnceLock<Node>);

impl Live {
    /// From now on this node is told. A second node is not.
    pub fn connect(&self, node: Node) {
        let _ = self.0.set(node);
    }
}

impl Changes for Live {
    fn devices_changed(&self, user_id: UserId, _told: &[UserId]) {
        if let Some(node) = self.0.get().cloned() {
            actix_rt::spawn(async move { node.devices_changed(user_id).await });
        }
    }

    fn session_ended(&self, user_id: UserId, device_id: DeviceId, _family: Uuid) {
        if let Some(node) = self.0.get() {
            node.end_device(user_id, device_id, close::REVOKED);
        }
    }

    fn keys_low(&self, user_id: UserId, device_id: DeviceId, low: KeysLow) {
        if let Some(node) = self.0.get() {
            node.keys_low(user_id, device_id, low);
        }
    }
}
