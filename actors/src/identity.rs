//! What the actors need to know of identity, provided by whoever starts the node.

use futures::future::BoxFuture;
use sotto_protocol::event::KeysLow;
use sotto_protocol::{DeviceId, Problem, Timestamp, UserId};
use uuid::Uuid;

/// Who speaks, proven by an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The token family: the signed-in session.
    pub session_id: Uuid,
    /// When the access token runs out.
    pub token_expires_at: Timestamp,
}

/// Checks of identity that live outside this package.
pub trait Identity: Send + Sync + 'static {
    /// Whom an access token speaks for.
    ///
    /// # Errors
    /// `unauthenticated`, or `unavailable` when the database cannot say.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Problem>>;

    /// Whether a token family still stands; `true` when that cannot be said now, for the token was valid.
    fn is_live(&self, family: Uuid) -> BoxFuture<'_, bool>;

    /// Which of a device's stocks of keys run low; empty when that cannot be said now.
    fn keys_low(&self, device: DeviceId) -> BoxFuture<'_, Vec<KeysLow>>;
}
