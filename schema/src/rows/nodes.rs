//! What nodes say of themselves.

use crate::types::{Json, Moment, Uuid};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use sotto_protocol::{DeviceId, Timestamp};

/// What a node writes about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its life.
    pub incarnation: uuid::Uuid,
    /// Its name; several may have the same by mistake.
    pub node_id: String,
    /// The program's version.
    pub version: String,
    /// When this life began, by the database's clock; none: now.
    pub started_at: Option<Timestamp>,
    /// Open sockets.
    pub sockets: i64,
    /// Users with a socket.
    pub sessions: i64,
    /// Conversations in use.
    pub conversations: i64,
    /// Time from the commit of its newest canary to its own sweep's reading it, in milliseconds.
    pub sweep_lag_ms: i64,
    /// Whether it takes its leave.
    pub is_draining: bool,
    /// Whether Redis answers; none: it works without.
    pub redis: Option<bool>,
    /// The paths whose canaries do not arrive.
    pub degraded: Vec<String>,
    /// The incarnations that have not sent its canaries back.
    pub missed: Vec<uuid::Uuid>,
}

/// A node as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct NodeRow {
    /// Its life.
    #[diesel(sql_type = Uuid)]
    pub incarnation: uuid::Uuid,
    /// Its name.
    #[diesel(sql_type = Text)]
    pub node_id: String,
    /// The program's version.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// When this life began, by the database's clock.
    #[diesel(sql_type = Moment)]
    pub started_at: Timestamp,
    /// Milliseconds since then.
    #[diesel(sql_type = BigInt)]
    pub up_ms: i64,
    /// Milliseconds since it was seen.
    #[diesel(sql_type = BigInt)]
    pub silent_ms: i64,
    /// Open sockets.
    #[diesel(sql_type = BigInt)]
    pub sockets: i64,
    /// Users with a socket.
    #[diesel(sql_type = BigInt)]
    pub sessions: i64,
    /// Conversations in use.
    #[diesel(sql_type = BigInt)]
    pub conversations: i64,
    /// Time from the commit of its newest canary to its own sweep's reading it, in milliseconds.
    #[diesel(sql_type = BigInt)]
    pub sweep_lag_ms: i64,
    /// Whether it takes its leave.
    #[diesel(sql_type = Bool)]
    pub is_draining: bool,
    /// `ok` or `away`; none: it works without Redis.
    #[diesel(sql_type = Nullable<Text>)]
    pub redis: Option<String>,
    #[diesel(sql_type = Json)]
    degraded: serde_json::Value,
    #[diesel(sql_type = Json)]
    missed: serde_json::Value,
}

impl NodeRow {
    /// The paths whose canaries do not arrive there.
    #[must_use]
    pub fn degraded(&self) -> Vec<String> {
        serde_json::from_value(self.degraded.clone()).unwrap_or_default()
    }

    /// The incarnations that have not sent its canaries back.
    #[must_use]
    pub fn missed(&self) -> Vec<uuid::Uuid> {
        serde_json::from_value(self.missed.clone()).unwrap_or_default()
    }
}

/// A device that has claimed a newer connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub struct NewerRow {
    /// The device.
    #[diesel(sql_type = Uuid)]
    pub device_id: DeviceId,
    /// Its newest connection's number.
    #[diesel(sql_type = BigInt)]
    pub attempt: i64,
}
