//! What an export takes from the store beside what its user sees elsewhere.

use crate::types::{Json, Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use sotto_protocol::conversation::{ConversationType, Role};
use sotto_protocol::{ConversationId, DeviceId, Seq, Timestamp};

/// A session of an account.
#[derive(Clone, Debug, QueryableByName)]
#[allow(missing_docs)]
pub struct ExportedSessionRow {
    #[diesel(sql_type = Uuid)]
    pub id: uuid::Uuid,
    #[diesel(sql_type = Uuid)]
    pub device_id: DeviceId,
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
    #[diesel(sql_type = Moment)]
    pub expires_at: Timestamp,
}

/// A stay of an account in a conversation.
#[derive(Clone, Debug, QueryableByName)]
#[allow(missing_docs)]
pub struct ExportedStayRow {
    #[diesel(sql_type = Uuid)]
    pub conversation_id: ConversationId,
    #[diesel(sql_type = Word)]
    pub kind: ConversationType,
    #[diesel(sql_type = Nullable<Text>)]
    pub name: Option<String>,
    #[diesel(sql_type = Word)]
    pub role: Role,
    #[diesel(sql_type = Moment)]
    pub joined_at: Timestamp,
    #[diesel(sql_type = BigInt)]
    pub from_seq: Seq,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub to_seq: Option<Seq>,
    #[diesel(sql_type = BigInt)]
    pub read_up_to: Seq,
}

/// The push tokens of a device.
#[derive(Clone, Debug, QueryableByName)]
#[allow(missing_docs)]
pub struct ExportedPushRow {
    #[diesel(sql_type = Uuid)]
    pub id: DeviceId,
    #[diesel(sql_type = Nullable<Json>)]
    pub push: Option<serde_json::Value>,
}
