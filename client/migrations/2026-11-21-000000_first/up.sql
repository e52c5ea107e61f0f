-- Columns named pickle, content and value hold bytes sealed with the store's key.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
);

-- One line of Olm sessions per conversation and device: within a conversation the server keeps the
-- order, so that a session never has to bridge more than a few numbers.
CREATE TABLE sessions (
    conversation_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    pickle BLOB NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, device_id, session_id)
);

-- Identity keys never change for a device: the first one seen is kept and compared ever after.
CREATE TABLE devices (
    device_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    suite TEXT NOT NULL,
    identity_key BLOB NOT NULL,
    listed BOOLEAN NOT NULL
);
CREATE INDEX devices_by_user ON devices (user_id);

-- Users whose whole device list is known.
CREATE TABLE device_lists (
    user_id TEXT NOT NULL PRIMARY KEY,
    fetched_at BIGINT NOT NULL
);

CREATE TABLE conversations (
    conversation_id TEXT NOT NULL PRIMARY KEY,
    other_user TEXT,
    content BLOB NOT NULL,
    fresh BOOLEAN NOT NULL
);
CREATE INDEX conversations_by_user ON conversations (other_user);

CREATE TABLE marks (
    conversation_id TEXT NOT NULL PRIMARY KEY,
    read_up_to BIGINT NOT NULL,
    client_seq BIGINT NOT NULL
);

CREATE TABLE group_outbound (
    conversation_id TEXT NOT NULL PRIMARY KEY,
    session_id TEXT NOT NULL,
    roster TEXT NOT NULL,
    pickle BLOB NOT NULL,
    made_at BIGINT NOT NULL
);

CREATE TABLE group_inbound (
    conversation_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    pickle BLOB NOT NULL,
    PRIMARY KEY (conversation_id, session_id, device_id)
);

-- A number of a group session belongs to one message, or somebody replays.
CREATE TABLE group_indices (
    session_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    message_index BIGINT NOT NULL,
    message_id TEXT NOT NULL,
    PRIMARY KEY (session_id, device_id, message_index)
);

CREATE TABLE messages (
    position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    from_user TEXT,
    from_device TEXT,
    state INTEGER NOT NULL,
    content BLOB,
    reply_to TEXT,
    client_seq BIGINT,
    server_time BIGINT NOT NULL,
    UNIQUE (message_id, conversation_id)
);
CREATE INDEX messages_by_seq ON messages (conversation_id, seq);

CREATE TABLE outbox (
    position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    conversation_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    internal BOOLEAN NOT NULL,
    content BLOB NOT NULL,
    reply_to TEXT,
    expires_in BIGINT,
    client_seq BIGINT NOT NULL,
    request TEXT,
    state INTEGER NOT NULL,
    for_session TEXT,
    created_at BIGINT NOT NULL,
    seq BIGINT,
    server_time BIGINT
);
CREATE INDEX outbox_by_state ON outbox (state, conversation_id);
