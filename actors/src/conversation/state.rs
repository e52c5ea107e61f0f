//! What is known of a conversation, and the check of a message against its device list.

use sotto_protocol::conversation::ConversationType;
use sotto_protocol::message::{DeviceRef, OutgoingMessage};
use sotto_protocol::{DeviceId, ErrorCode, Problem, Seq, UserId, limits};
use sotto_schema::rows::ConversationState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

/// What is known of the conversation, and since when.
pub(super) struct State {
    pub(super) kind: ConversationType,
    pub(super) members: HashMap<UserId, MemberState>,
    /// Former members, and where their last interval ends.
    pub(super) former: HashMap<UserId, Seq>,
    /// Devices of present members.
    pub(super) devices: BTreeMap<DeviceRef, Option<i64>>,
    pub(super) membership_version: i64,
    pub(super) device_versions: i64,
    pub(super) last_seq: Seq,
    /// When the look at the database began.
    pub(super) read_at: Instant,
}

pub(super) struct MemberState {
    pub(super) has_sent: bool,
    pub(super) has_read: bool,
}

impl State {
    pub(super) fn of(state: ConversationState, read_at: Instant) -> Self {
        let device_versions =
            state.members.iter().filter(|row| row.to_seq.is_none()).map(|row| row.device_version).sum();
        let mut members = HashMap::new();
        let mut former: HashMap<UserId, Seq> = HashMap::new();
        for row in state.members {
            if let Some(end) = row.to_seq {
                let last = former.entry(row.user_id).or_default();
                *last = (*last).max(end);
                continue;
            }
            let member = MemberState { has_sent: row.first_sent_seq.is_some(), has_read: row.read_up_to > 0 };
            members.insert(row.user_id, member);
        }
        let devices = state
            .devices
            .into_iter()
            .map(|row| (DeviceRef { user_id: row.user_id, device_id: row.device_id }, row.registration_id))
            .collect();
        Self {
            kind: state.conversation.kind,
            members,
            former,
            devices,
            membership_version: state.conversation.membership_version,
            device_versions,
            last_seq: state.conversation.last_seq,
            read_at,
        }
    }

    pub(super) const fn versions(&self) -> (i64, i64) {
        (self.membership_version, self.device_versions)
    }

    pub(super) fn roster(&self) -> String {
        roster(self.membership_version, self.device_versions)
    }
}

/// The version of a device list, as clients carry it.
#[must_use]
pub fn roster(membership_version: i64, device_versions: i64) -> String {
    format!("{membership_version}.{device_versions}")
}

/// The device list against the envelopes, or the roster of a shared ciphertext. `Ok(true)`: it was used.
pub(super) fn check_devices(state: &State, message: &OutgoingMessage, sender: DeviceId) -> Result<bool, Problem> {
    let Some(envelopes) = &message.envelopes else {
        return match &message.roster {
            Some(roster) if *roster != state.roster() => {
                Err(mismatch(ErrorCode::DeviceListMismatch, &[], &[], &[]).with("roster", state.roster()))
            }
            Some(_) => Ok(true),
            None => Ok(false),
        };
    };
    let mut given = HashSet::with_capacity(envelopes.len());
    let mut extra = Vec::new();
    let mut stale = Vec::new();
    for envelope in envelopes {
        let device = DeviceRef { user_id: envelope.user_id, device_id: envelope.device_id };
        given.insert(device);
        match state.devices.get(&device) {
            None => extra.push(device),
            Some(Some(present)) if envelope.registration_id.is_some_and(|used| used != *present) => stale.push(device),
            Some(_) => {}
        }
    }
    let missing: Vec<DeviceRef> =
        state.devices.keys().filter(|device| device.device_id != sender && !given.contains(device)).copied().collect();
    if !stale.is_empty() {
        return Err(mismatch(ErrorCode::DeviceStale, &missing, &extra, &stale));
    }
    if !missing.is_empty() || !extra.is_empty() {
        return Err(mismatch(ErrorCode::DeviceListMismatch, &missing, &extra, &stale));
    }
    Ok(true)
}

pub(super) fn mismatch(code: ErrorCode, missing: &[DeviceRef], extra: &[DeviceRef], stale: &[DeviceRef]) -> Problem {
    let list = |devices: &[DeviceRef]| {
        let first = devices.iter().take(limits::MAX_MISMATCHES).collect::<Vec<_>>();
        serde_json::to_value(first).unwrap_or_default()
    };
    Problem::new(code, "encrypt for the conversation's present devices and send again")
        .with("missing", list(missing))
        .with("extra", list(extra))
        .with("stale", list(stale))
}
