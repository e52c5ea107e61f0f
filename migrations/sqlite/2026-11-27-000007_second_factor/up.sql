-- The second factor of an account, being set up or enabled.
CREATE TABLE second_factors (
    -- Another one with each set-up: what was proved for one secret is worth nothing for the next.
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    -- The secret, sealed with the key of this name.
    secret BLOB NOT NULL,
    key_id TEXT NOT NULL,
    -- Wrong codes while it was being set up.
    tries BIGINT NOT NULL DEFAULT 0,
    -- The newest time step whose code was used: neither it nor an older one is taken again.
    last_step BIGINT NOT NULL DEFAULT 0,
    -- Null while it is being set up.
    enabled_at INTEGER,
    -- Until when a set-up can be finished.
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
-- Set-ups that nobody finished are swept.
CREATE INDEX second_factors_pending ON second_factors (expires_at) WHERE enabled_at IS NULL;

-- Codes that stand in for the second factor, once each.
CREATE TABLE backup_codes (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES second_factors (user_id) ON DELETE CASCADE,
    salt BLOB NOT NULL,
    -- Salted hash of the code, sealed with the key of this name.
    hash BLOB NOT NULL,
    key_id TEXT NOT NULL,
    used_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX backup_codes_user ON backup_codes (user_id);
