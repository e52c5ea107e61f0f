//! The tables, once for both databases. `tests/` compares them with what the migrations made.

#![allow(missing_docs, reason = "columns are explained in the migrations")]

use diesel::{allow_tables_to_appear_in_same_query, table};

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// One row: the store's generation and what must agree between program, keys and data.
    store (id) {
        id -> BigInt,
        epoch -> Uuid,
        key_fingerprint -> Nullable<Text>,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Accounts.
    users (id) {
        id -> Uuid,
        phone -> Text,
        device_version -> BigInt,
        account_seq -> BigInt,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Json, Moment, Uuid, Word};
    /// Devices of accounts, with the keys that never change.
    devices (id) {
        id -> Uuid,
        user_id -> Uuid,
        name -> Text,
        platform -> Word,
        fingerprint -> Nullable<Text>,
        model -> Nullable<Text>,
        os_version -> Nullable<Text>,
        app_version -> Nullable<Text>,
        push -> Nullable<Json>,
        suite -> Word,
        registration_id -> Nullable<BigInt>,
        identity_key -> Binary,
        signing_key -> Nullable<Binary>,
        attempt -> BigInt,
        account_seen -> BigInt,
        last_address -> Nullable<Text>,
        verified_by -> Nullable<Uuid>,
        verified_at -> Nullable<Moment>,
        expiry_told_at -> Nullable<Moment>,
        last_active_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
        identity_signature -> Nullable<Binary>,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Json, Moment, Uuid};
    /// What changed around a user, in order.
    account_events (user_id, seq) {
        user_id -> Uuid,
        seq -> BigInt,
        kind -> Text,
        object -> Uuid,
        body -> Json,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::Moment;
    /// What every node sweeps.
    wakes (id) {
        id -> BigInt,
        xid -> BigInt,
        body -> Binary,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid, Word};
    /// Direct and group conversations.
    conversations (id) {
        id -> Uuid,
        kind -> Word,
        name -> Nullable<Text>,
        direct_pair -> Nullable<Text>,
        created_by -> Uuid,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// What every append locks and changes.
    heads (conversation_id) {
        conversation_id -> Uuid,
        last_seq -> BigInt,
        floor_seq -> BigInt,
        membership_version -> BigInt,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// The count of receipts of a conversation.
    receipts (conversation_id) {
        conversation_id -> Uuid,
        version -> BigInt,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid, Word};
    /// Intervals of seq in which a user belongs to a conversation.
    memberships (conversation_id, user_id, from_seq) {
        conversation_id -> Uuid,
        user_id -> Uuid,
        from_seq -> BigInt,
        to_seq -> Nullable<BigInt>,
        role -> Word,
        first_sent_seq -> Nullable<BigInt>,
        joined_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Json, Moment, Uuid, Word};
    /// The logs of all conversations.
    messages (conversation_id, seq) {
        conversation_id -> Uuid,
        seq -> BigInt,
        message_id -> Uuid,
        sender_user -> Nullable<Uuid>,
        sender_device -> Nullable<Uuid>,
        kind -> Word,
        ciphertext -> Nullable<Binary>,
        envelopes -> Nullable<Binary>,
        reply_to -> Nullable<Uuid>,
        client_seq -> Nullable<BigInt>,
        system -> Nullable<Json>,
        expires_at -> Nullable<Moment>,
        edited_at -> Nullable<Moment>,
        deleted_at -> Nullable<Moment>,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// How far each device has stored each conversation.
    marks (conversation_id, device_id) {
        conversation_id -> Uuid,
        device_id -> Uuid,
        user_id -> Uuid,
        delivered_up_to -> BigInt,
        delivered_version -> BigInt,
        delivered_at -> Moment,
        receipts_seen -> BigInt,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// How far each member has read.
    reads (conversation_id, user_id) {
        conversation_id -> Uuid,
        user_id -> Uuid,
        read_up_to -> BigInt,
        read_version -> BigInt,
        read_by -> Uuid,
        read_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Answers that are given again for the same `Idempotency-Key`.
    idempotency_keys (device_id, route, key) {
        device_id -> Uuid,
        route -> Text,
        key -> Text,
        body_hash -> Binary,
        status -> Nullable<BigInt>,
        answer -> Nullable<Binary>,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid, Word};
    /// Requests for a code.
    verifications (id) {
        id -> Uuid,
        phone -> Text,
        purpose -> Word,
        code_hash -> Binary,
        tries -> BigInt,
        expires_at -> Moment,
        used_at -> Nullable<Moment>,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::Moment;
    /// Sliding windows that must survive a restart.
    allowances (kind, subject) {
        kind -> Text,
        subject -> Binary,
        moments -> Binary,
        expires_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Token families.
    sessions (id) {
        id -> Uuid,
        user_id -> Uuid,
        device_id -> Uuid,
        generation -> BigInt,
        confirmed -> BigInt,
        expires_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Families that were ended before their time.
    ended_sessions (id) {
        id -> Uuid,
        user_id -> Uuid,
        device_id -> Uuid,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Refresh tokens, by their keyed hash.
    refresh_tokens (hash) {
        hash -> Binary,
        session_id -> Uuid,
        generation -> BigInt,
        secret -> Binary,
        used_at -> Nullable<Moment>,
        expires_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Public keys that devices publish beside their identity.
    prekeys (device_id, kind, key_id) {
        device_id -> Uuid,
        kind -> Text,
        key_id -> BigInt,
        public_key -> Binary,
        signature -> Nullable<Binary>,
        expires_at -> Nullable<Moment>,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// The highest id of a one-time key that a device has ever uploaded.
    key_counters (device_id, kind) {
        device_id -> Uuid,
        kind -> Text,
        highest -> BigInt,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Json, Moment, Uuid};
    /// Lives of nodes that have been seen lately.
    nodes (incarnation) {
        incarnation -> Uuid,
        node_id -> Text,
        version -> Text,
        started_at -> Moment,
        seen_at -> Moment,
        sockets -> BigInt,
        sessions -> BigInt,
        conversations -> BigInt,
        sweep_lag_ms -> BigInt,
        is_draining -> Bool,
        redis -> Nullable<Text>,
        degraded -> Json,
        missed -> Json,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// The second factor of an account, being set up or enabled.
    second_factors (id) {
        id -> Uuid,
        user_id -> Uuid,
        secret -> Binary,
        key_id -> Text,
        tries -> BigInt,
        last_step -> BigInt,
        enabled_at -> Nullable<Moment>,
        expires_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
        enabled_by -> Nullable<Uuid>,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Json, Moment, Uuid, Word};
    /// New devices that wait for an account to take them.
    device_links (id) {
        id -> Uuid,
        challenge_hash -> Binary,
        secret_hash -> Binary,
        suite -> Word,
        identity_key -> Binary,
        signing_key -> Nullable<Binary>,
        device -> Json,
        keys -> Json,
        address -> Nullable<Text>,
        stage -> Word,
        user_id -> Nullable<Uuid>,
        session_id -> Nullable<Uuid>,
        used_at -> Nullable<Moment>,
        expires_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
        confirmed_by -> Nullable<Uuid>,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Codes that stand in for the second factor, once each.
    backup_codes (id) {
        id -> Uuid,
        user_id -> Uuid,
        salt -> Binary,
        hash -> Binary,
        key_id -> Text,
        used_at -> Nullable<Moment>,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Where the trails of accounts end.
    trail_heads (user_id) {
        user_id -> Uuid,
        seq -> BigInt,
        hash -> Binary,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// What happened to accounts' devices and security.
    trail (user_id, seq) {
        user_id -> Uuid,
        seq -> BigInt,
        entry -> Text,
        hash -> Binary,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Tries to sign in, of accounts that exist.
    logins (user_id, created_at, id) {
        id -> Uuid,
        user_id -> Uuid,
        device_id -> Nullable<Uuid>,
        method -> Text,
        outcome -> Text,
        address -> Nullable<Text>,
        agent -> Nullable<Text>,
        created_at -> Moment,
        updated_at -> Moment,
        verification_id -> Nullable<Uuid>,
        tries -> Nullable<BigInt>,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Accounts that will be deleted, or are being deleted.
    account_deletions (user_id) {
        user_id -> Uuid,
        deletes_at -> Moment,
        begun_at -> Nullable<Moment>,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// PINs that protect numbers.
    registration_locks (id) {
        id -> Uuid,
        user_id -> Uuid,
        hash -> Binary,
        key_id -> Text,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

table! {
    use diesel::sql_types::*;
    use crate::types::{Moment, Uuid};
    /// Networks that accounts signed in from, as keyed hashes.
    known_networks (user_id, network) {
        user_id -> Uuid,
        network -> Binary,
        expires_at -> Moment,
        created_at -> Moment,
        updated_at -> Moment,
    }
}

allow_tables_to_appear_in_same_query!(
    users,
    devices,
    account_events,
    conversations,
    heads,
    receipts,
    memberships,
    messages,
    marks,
    reads,
);
