//! What the store knows of an `Idempotency-Key`.

use sotto_protocol::{DeviceId, Timestamp};

/// Where a key counts: one device, one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencySlot {
    /// The calling device.
    pub device_id: DeviceId,
    /// The route, as `POST /v1/messages`.
    pub route: String,
    /// The client's key.
    pub key: String,
}

/// What became of claiming a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyClaim {
    /// The request may run; it names itself by this moment when it ends.
    Yours(Timestamp),
    /// An earlier request with the same body runs at present.
    Running,
    /// The key was used with another body.
    OtherBody,
    /// An earlier request with the same body was answered so.
    Answered {
        /// HTTP status.
        status: i64,
        /// The body.
        answer: Vec<u8>,
    },
}
