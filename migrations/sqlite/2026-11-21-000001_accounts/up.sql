-- One row: the store's generation and what must agree between program, keys and data.
CREATE TABLE store (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    epoch BLOB NOT NULL,
    key_fingerprint TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

CREATE TABLE users (
    id BLOB PRIMARY KEY,
    phone TEXT NOT NULL UNIQUE,
    -- Raised by adding or removing a device and by a changed registration id (rule D8).
    device_version BIGINT NOT NULL DEFAULT 0,
    -- Number of the newest account event (rule D12).
    account_seq BIGINT NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

CREATE TABLE devices (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    platform TEXT NOT NULL,
    fingerprint TEXT,
    model TEXT,
    os_version TEXT,
    app_version TEXT,
    push TEXT,
    suite TEXT NOT NULL,
    registration_id BIGINT,
    identity_key BLOB NOT NULL,
    signing_key BLOB,
    -- The highest number of a connection (rule D7); a device may begin at 0.
    attempt BIGINT NOT NULL DEFAULT -1,
    -- The newest account event this device has acknowledged.
    account_seen BIGINT NOT NULL DEFAULT 0,
    last_active_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (user_id, identity_key)
);
CREATE INDEX devices_last_active ON devices (last_active_at);

-- A log per user of what changed around him: devices, conversations (rule D12).
CREATE TABLE account_events (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    -- The conversation or user that changed.
    object BLOB NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, seq)
);

-- What every node sweeps (rule D1).
CREATE TABLE wakes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    xid BIGINT NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX wakes_xid ON wakes (xid);
CREATE INDEX wakes_created ON wakes (created_at);
