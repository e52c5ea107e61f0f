-- Where the trail of an account ends; the row is locked while an entry is appended, as the last lock of a transaction.
CREATE TABLE trail_heads (
    user_id UUID PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- Number of the newest entry, from 1.
    seq BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 80);

-- What happened to an account's devices and its security, each entry chained to the one before.
CREATE TABLE trail (
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    -- The text that was hashed, byte for byte.
    entry TEXT NOT NULL,
    hash BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, seq)
);

-- Tries to sign in, of accounts that exist. Its partitions, one for each month (UTC), are made ahead by the nodes.
CREATE TABLE logins (
    id UUID NOT NULL,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The device that was signed in.
    device_id UUID,
    method TEXT NOT NULL,
    outcome TEXT NOT NULL,
    address TEXT,
    agent TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, created_at, id)
) PARTITION BY RANGE (created_at);
