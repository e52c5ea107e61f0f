CREATE TABLE conversations (
    id UUID PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT,
    -- The two users of a direct conversation, lower id first: one conversation per pair.
    direct_pair TEXT UNIQUE,
    created_by UUID NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

-- What every append locks and changes, kept narrow and apart so that updates stay in the page.
CREATE TABLE heads (
    conversation_id UUID PRIMARY KEY,
    last_seq BIGINT NOT NULL DEFAULT 0,
    floor_seq BIGINT NOT NULL DEFAULT 0,
    membership_version BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 80);

-- The count of receipts of a conversation; always locked after heads.
CREATE TABLE receipts (
    conversation_id UUID PRIMARY KEY,
    version BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 80);

-- Intervals of seq in which a user belongs to a conversation, kept after leaving (rule D9).
CREATE TABLE memberships (
    conversation_id UUID NOT NULL,
    user_id UUID NOT NULL,
    from_seq BIGINT NOT NULL,
    to_seq BIGINT,
    role TEXT NOT NULL,
    -- His first message here, for receipts and for the rule on unanswered contacts.
    first_sent_seq BIGINT,
    joined_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (conversation_id, user_id, from_seq)
);
CREATE INDEX memberships_user ON memberships (user_id, conversation_id);

-- No foreign key to conversations: it would take a share lock per row of every append.
CREATE TABLE messages (
    conversation_id UUID NOT NULL,
    seq BIGINT NOT NULL,
    message_id UUID NOT NULL,
    sender_user UUID,
    sender_device UUID,
    kind TEXT NOT NULL,
    -- One shared ciphertext, or the packed envelopes of all devices.
    ciphertext BYTEA,
    envelopes BYTEA,
    reply_to UUID,
    client_seq BIGINT,
    system JSONB,
    expires_at TIMESTAMPTZ,
    edited_at TIMESTAMPTZ,
    deleted_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE (message_id, conversation_id)
);
ALTER TABLE messages ALTER COLUMN ciphertext SET STORAGE EXTERNAL;
ALTER TABLE messages ALTER COLUMN envelopes SET STORAGE EXTERNAL;
CREATE INDEX messages_expiry ON messages (expires_at) WHERE expires_at IS NOT NULL;

-- How far each device has stored each conversation; no row: up to where its interval begins.
CREATE TABLE marks (
    conversation_id UUID NOT NULL,
    device_id UUID NOT NULL,
    user_id UUID NOT NULL,
    delivered_up_to BIGINT NOT NULL,
    delivered_version BIGINT NOT NULL DEFAULT 0,
    delivered_at TIMESTAMPTZ NOT NULL,
    -- The newest receipt of this conversation that this device has acknowledged.
    receipts_seen BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (conversation_id, device_id)
) WITH (fillfactor = 80);
CREATE INDEX marks_device ON marks (device_id);

-- How far each member has read.
CREATE TABLE reads (
    conversation_id UUID NOT NULL,
    user_id UUID NOT NULL,
    read_up_to BIGINT NOT NULL,
    read_version BIGINT NOT NULL,
    -- The device that read last: the one that is not told.
    read_by UUID NOT NULL,
    read_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
) WITH (fillfactor = 80);

-- Receipts per message, for people and reports: marks seen from the messages' side.
CREATE VIEW message_receipts AS
    SELECT m.conversation_id, m.seq, m.message_id, k.user_id, k.device_id, k.delivered_at
    FROM messages m
    JOIN marks k ON k.conversation_id = m.conversation_id AND k.delivered_up_to >= m.seq;

CREATE TABLE idempotency_keys (
    device_id UUID NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash BYTEA NOT NULL,
    -- Null while the first request runs.
    status BIGINT,
    answer BYTEA,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (device_id, route, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
