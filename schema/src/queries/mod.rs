//! All queries, one file per table family. Compiled once per database: see the package's head.

use super::{Connection, Shared, sql};
use crate::StoreError;

/// An id as the rows of `given_rows!` hold it.
fn hex(id: uuid::Uuid) -> String {
    id.simple().to_string()
}

// Where devices stand in conversations of their users: one text for all conversations of many devices, and for one of one.
// The lists are parts of the text: columns before, where the memberships come from, the device, and what follows the joins.
macro_rules! places {
    ([$($columns:tt)*] [$($memberships:tt)*] [$($device:tt)*] [$($rest:tt)*]) => {
        concat!(
            "SELECT ",
            $($columns)*
            "m.conversation_id, \
            COALESCE(k.delivered_up_to, MIN(m.from_seq) - 1) AS mark, \
            MAX(COALESCE(m.to_seq, h.last_seq)) AS head, \
            h.floor_seq AS floor, \
            MAX(CASE WHEN m.to_seq IS NULL THEN r.version ELSE 0 END) AS receipts_version, \
            COALESCE(k.receipts_seen, 0) AS receipts_seen \
         FROM ",
            $($memberships)*
            " JOIN heads h ON h.conversation_id = m.conversation_id \
         JOIN receipts r ON r.conversation_id = m.conversation_id \
         LEFT JOIN marks k ON k.conversation_id = m.conversation_id AND k.device_id = ",
            $($device)*
            $($rest)*
        )
    };
}

pub mod account_log;
pub mod allowances;
pub mod arrivals;
pub mod conversations;
pub mod deletions;
pub mod device_link;
pub mod devices;
pub mod export;
pub mod idempotency;
pub mod keys;
pub mod logins;
pub mod members;
pub mod meta;
pub mod networks;
pub mod nodes;
pub mod notices;
pub mod number;
pub mod own_devices;
pub mod proofs;
pub mod reauthentication;
pub mod recovery;
pub mod registration_lock;
pub mod sealed;
pub mod second_factor;
pub mod seed;
pub mod sign_in;
pub mod sync;
pub mod trail;
pub mod verifications;
pub mod wakes;
