CREATE TABLE conversations (
    id BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT,
    -- The two users of a direct conversation, lower id first: one conversation per pair.
    direct_pair TEXT UNIQUE,
    created_by BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

-- What every append locks and changes, kept narrow and apart so that updates stay in the page.
CREATE TABLE heads (
    conversation_id BLOB PRIMARY KEY,
    last_seq BIGINT NOT NULL DEFAULT 0,
    floor_seq BIGINT NOT NULL DEFAULT 0,
    membership_version BIGINT NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

-- The count of receipts of a conversation; always locked after heads.
CREATE TABLE receipts (
    conversation_id BLOB PRIMARY KEY,
    version BIGINT NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Intervals of seq in which a user belongs to a conversation, kept after leaving (rule D9).
CREATE TABLE memberships (
    conversation_id BLOB NOT NULL,
    user_id BLOB NOT NULL,
    from_seq BIGINT NOT NULL,
    to_seq BIGINT,
    role TEXT NOT NULL,
    -- His first message here, for receipts and for the rule on unanswered contacts.
    first_sent_seq BIGINT,
    joined_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, user_id, from_seq)
) WITHOUT ROWID;
CREATE INDEX memberships_user ON memberships (user_id, conversation_id);

-- No foreign key to conversations: it would take a share lock per row of every append.
CREATE TABLE messages (
    conversation_id BLOB NOT NULL,
    seq BIGINT NOT NULL,
    message_id BLOB NOT NULL,
    sender_user BLOB,
    sender_device BLOB,
    kind TEXT NOT NULL,
    -- One shared ciphertext, or the packed envelopes of all devices.
    ciphertext BLOB,
    envelopes BLOB,
    reply_to BLOB,
    client_seq BIGINT,
    system TEXT,
    expires_at INTEGER,
    edited_at INTEGER,
    deleted_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE (message_id, conversation_id)
);
CREATE INDEX messages_expiry ON messages (expires_at) WHERE expires_at IS NOT NULL;

-- How far each device has stored each conversation; no row: up to where its interval begins.
CREATE TABLE marks (
    conversation_id BLOB NOT NULL,
    device_id BLOB NOT NULL,
    user_id BLOB NOT NULL,
    delivered_up_to BIGINT NOT NULL,
    delivered_version BIGINT NOT NULL DEFAULT 0,
    delivered_at INTEGER NOT NULL,
    -- The newest receipt of this conversation that this device has acknowledged.
    receipts_seen BIGINT NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, device_id)
) WITHOUT ROWID;
CREATE INDEX marks_device ON marks (device_id);

-- How far each member has read.
CREATE TABLE reads (
    conversation_id BLOB NOT NULL,
    user_id BLOB NOT NULL,
    read_up_to BIGINT NOT NULL,
    read_version BIGINT NOT NULL,
    -- The device that read last: the one that is not told.
    read_by BLOB NOT NULL,
    read_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
) WITHOUT ROWID;

-- Receipts per message, for people and reports: marks seen from the messages' side.
CREATE VIEW message_receipts AS
    SELECT m.conversation_id, m.seq, m.message_id, k.user_id, k.device_id, k.delivered_at
    FROM messages m
    JOIN marks k ON k.conversation_id = m.conversation_id AND k.delivered_up_to >= m.seq;

CREATE TABLE idempotency_keys (
    device_id BLOB NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash BLOB NOT NULL,
    -- Null while the first request runs.
    status BIGINT,
    answer BLOB,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, route, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
