-- Requests for a code. The code is only here as a keyed hash.
CREATE TABLE verifications (
    id UUID PRIMARY KEY,
    phone TEXT NOT NULL,
    purpose TEXT NOT NULL,
    code_hash BYTEA NOT NULL,
    -- Wrong codes so far.
    tries BIGINT NOT NULL DEFAULT 0,
    expires_at TIMESTAMPTZ NOT NULL,
    used_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX verifications_expiry ON verifications (expires_at);

-- Sliding windows that must survive a restart: what a number, address or user did lately.
CREATE TABLE allowances (
    kind TEXT NOT NULL,
    -- A keyed hash or an id, never a number or an address itself.
    subject BYTEA NOT NULL,
    -- Moments as 8-byte little-endian microseconds, oldest first.
    moments BYTEA NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (kind, subject)
) WITH (fillfactor = 80);
CREATE INDEX allowances_expiry ON allowances (expires_at);

-- Token families: a device is signed in while it has one.
CREATE TABLE sessions (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device_id UUID NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    -- Number of the newest tokens, from 1.
    generation BIGINT NOT NULL,
    -- Number of the newest tokens that have been used.
    confirmed BIGINT NOT NULL DEFAULT 0,
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX sessions_device ON sessions (device_id);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Refresh tokens, by their keyed hash; used ones stay until they expire, so that re-use shows.
CREATE TABLE refresh_tokens (
    hash BYTEA PRIMARY KEY,
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    -- Random; the successor is derived from it and the token itself.
    secret BYTEA NOT NULL,
    used_at TIMESTAMPTZ,
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

-- Families that were ended before their time; every node reads the newest every other second.
CREATE TABLE ended_sessions (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL,
    device_id UUID NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX ended_sessions_created ON ended_sessions (created_at);
