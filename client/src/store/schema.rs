//! The tables, as `migrations/` makes them.

diesel::table! {
    meta (name) {
        name -> Text,
        value -> Binary,
    }
}

diesel::table! {
    sessions (conversation_id, device_id, session_id) {
        conversation_id -> Text,
        device_id -> Text,
        session_id -> Text,
        pickle -> Binary,
        used_at -> BigInt,
    }
}

diesel::table! {
    devices (device_id) {
        device_id -> Text,
        user_id -> Text,
        suite -> Text,
        identity_key -> Binary,
        listed -> Bool,
    }
}

diesel::table! {
    device_lists (user_id) {
        user_id -> Text,
        fetched_at -> BigInt,
    }
}

diesel::table! {
    conversations (conversation_id) {
        conversation_id -> Text,
        other_user -> Nullable<Text>,
        content -> Binary,
        fresh -> Bool,
    }
}

diesel::table! {
    marks (conversation_id) {
        conversation_id -> Text,
        read_up_to -> BigInt,
        client_seq -> BigInt,
    }
}

diesel::table! {
    group_outbound (conversation_id) {
        conversation_id -> Text,
        session_id -> Text,
        roster -> Text,
        pickle -> Binary,
        made_at -> BigInt,
    }
}

diesel::table! {
    group_inbound (conversation_id, session_id, device_id) {
        conversation_id -> Text,
        session_id -> Text,
        device_id -> Text,
        pickle -> Binary,
    }
}

diesel::table! {
    group_indices (session_id, device_id, message_index) {
        session_id -> Text,
        device_id -> Text,
        message_index -> BigInt,
        message_id -> Text,
    }
}

diesel::table! {
    messages (position) {
        position -> BigInt,
        message_id -> Text,
        conversation_id -> Text,
        seq -> BigInt,
        kind -> Text,
        from_user -> Nullable<Text>,
        from_device -> Nullable<Text>,
        state -> Integer,
        content -> Nullable<Binary>,
        reply_to -> Nullable<Text>,
        client_seq -> Nullable<BigInt>,
        server_time -> BigInt,
    }
}

diesel::table! {
    outbox (position) {
        position -> BigInt,
        message_id -> Text,
        conversation_id -> Text,
        kind -> Text,
        internal -> Bool,
        content -> Binary,
        reply_to -> Nullable<Text>,
        expires_in -> Nullable<BigInt>,
        client_seq -> BigInt,
        request -> Nullable<Text>,
        state -> Integer,
        for_session -> Nullable<Text>,
        created_at -> BigInt,
        seq -> Nullable<BigInt>,
        server_time -> Nullable<BigInt>,
    }
}
