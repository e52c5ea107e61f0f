//! Catching up by REST.

use crate::event::Event;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// `GET /v1/sync`: the oldest events above the device's stored marks.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SyncPage {
    /// The events.
    pub events: Vec<Event>,
    /// To be acknowledged once they are stored on the device.
    pub cursor: String,
    /// Whether more wait behind them.
    pub has_more: bool,
    /// The store's generation; new after a restore.
    pub epoch: Uuid,
}

/// `POST /v1/sync/ack`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SyncAck {
    /// From the page.
    pub cursor: String,
}
