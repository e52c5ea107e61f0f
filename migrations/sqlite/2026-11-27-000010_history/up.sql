-- Where the trail of an account ends; the row is locked while an entry is appended, as the last lock of a transaction.
CREATE TABLE trail_heads (
    user_id BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- Number of the newest entry, from 1.
    seq BIGINT NOT NULL,
    hash BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

-- What happened to an account's devices and its security, each entry chained to the one before.
CREATE TABLE trail (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    -- The text that was hashed, byte for byte.
    entry TEXT NOT NULL,
    hash BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, seq)
);

-- Tries to sign in, of accounts that exist.
CREATE TABLE logins (
    id BLOB NOT NULL,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The device that was signed in.
    device_id BLOB,
    method TEXT NOT NULL,
    outcome TEXT NOT NULL,
    address TEXT,
    agent TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, created_at, id)
);
CREATE INDEX logins_created ON logins (created_at);
