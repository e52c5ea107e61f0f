//! What the server knows of an account, put together for its user.
//!
//! Limit: three times a day per account, in the database; it fails closed.

use std::time::Duration;

use sotto_protocol::export::{Export, ExportedConversation, ExportedDevice, ExportedSession};
use sotto_protocol::{ConversationId, Seq, Timestamp};
use sotto_schema::rows::sign_in::Allowance;
use uuid::Uuid;

use super::Identity;
use super::session::Caller;
use crate::error::ApiError;

/// Exports of an account in a day.
const A_DAY: u32 = 3;
const DAY: Duration = Duration::from_secs(86_400);
/// Rows that are read at once.
const AT_ONCE: usize = 500;

/// What there is beside an export.
const NOT_INCLUDED: [&str; 4] = [
    "messages: ciphertexts that the server cannot read; GET /v1/conversations/{id}/messages gives those of yours",
    "one-time keys and signed prekeys: public, and known to your devices; the stock stands here",
    "counts for limits: kept under keyed hashes of numbers and networks, which cannot be turned back",
    "tokens and secrets: only as hashes or sealed",
];

impl Identity {
    /// Everything that the server knows of the caller's account, but for what [`Export::not_included`] names.
    ///
    /// # Errors
    /// 429 after three in a day.
    pub async fn export(&self, caller: &Caller, now: Timestamp) -> Result<Export, ApiError> {
        let user = caller.user_id;
        if self.limits.enabled {
            let allowance = Allowance::new("export", user.as_bytes().as_slice(), A_DAY, DAY);
            if let Some(reached) = self.store.take_allowance(allowance, 1, now).await? {
                return Err(ApiError::limited(&reached));
            }
        }
        let me = self.me(caller).await?;
        let mut push = self.store.exported_push_tokens(user).await?;
        let mut devices = Vec::new();
        for device in self.own_devices(caller).await?.devices {
            let keys = self.store.key_count(device.device_id).await?;
            let place = push.iter().position(|row| row.id == device.device_id);
            let tokens = place.and_then(|place| push.swap_remove(place).push);
            let push = tokens.and_then(|tokens| serde_json::from_value(tokens).ok());
            devices.push(ExportedDevice { device, push, keys });
        }
        let sessions = self.store.exported_sessions(user).await?.into_iter().map(|row| ExportedSession {
            session_id: row.id,
            device_id: row.device_id,
            created_at: row.created_at,
            expires_at: row.expires_at,
        });
        let sessions = sessions.collect();
        let (mut trail, mut after) = (Vec::new(), 0);
        let trail_head = loop {
            let (items, head) = self.trail(caller, after, AT_ONCE).await?;
            let Some(last) = items.last() else {
                break head;
            };
            after = last.seq;
            trail.extend(items);
        };
        let (mut logins, mut before) = (Vec::new(), None);
        loop {
            let found = self.logins(caller, before, AT_ONCE, now).await?;
            let Some((id, last)) = found.last() else {
                break;
            };
            before = Some((last.at, *id));
            logins.extend(found.into_iter().map(|(_, login)| login));
        }
        let waiting = self.store.account_events_after(user, 0, i64::MAX).await?.len();
        Ok(Export {
            exported_at: now,
            user: me.user,
            devices,
            sessions,
            second_factor: self.second_factor(caller, now).await?,
            registration_lock: self.registration_lock(caller).await?,
            deletion: self.deletion(caller).await?,
            conversations: self.stays(caller).await?,
            trail,
            trail_head,
            logins,
            waiting_events: u64::try_from(waiting).unwrap_or(u64::MAX),
            not_included: NOT_INCLUDED.map(str::to_owned).to_vec(),
        })
    }

    async fn stays(&self, caller: &Caller) -> Result<Vec<ExportedConversation>, ApiError> {
        let limit = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
        let mut after: (ConversationId, Seq) = (ConversationId(Uuid::nil()), 0);
        let mut stays = Vec::new();
        loop {
            let rows = self.store.exported_stays(caller.user_id, after, limit).await?;
            let Some(last) = rows.last() else {
                return Ok(stays);
            };
            after = (last.conversation_id, last.from_seq);
            stays.extend(rows.into_iter().map(|row| ExportedConversation {
                conversation_id: row.conversation_id,
                kind: row.kind,
                name: row.name,
                role: row.role,
                joined_at: row.joined_at,
                from_seq: row.from_seq,
                to_seq: row.to_seq,
                read_up_to: row.read_up_to,
            }));
        }
    }
}
