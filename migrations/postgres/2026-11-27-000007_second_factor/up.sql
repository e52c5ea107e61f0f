-- The second factor of an account, being set up or enabled.
CREATE TABLE second_factors (
    -- Another one with each set-up: what was proved for one secret is worth nothing for the next.
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    -- The secret, sealed with the key of this name.
    secret BYTEA NOT NULL,
    key_id TEXT NOT NULL,
    -- Wrong codes while it was being set up.
    tries BIGINT NOT NULL DEFAULT 0,
    -- The newest time step whose code was used: neither it nor an older one is taken again.
    last_step BIGINT NOT NULL DEFAULT 0,
    -- Null while it is being set up.
    enabled_at TIMESTAMPTZ,
    -- Until when a set-up can be finished.
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 80);
-- Set-ups that nobody finished are swept.
CREATE INDEX second_factors_pending ON second_factors (expires_at) WHERE enabled_at IS NULL;

-- Codes that stand in for the second factor, once each.
CREATE TABLE backup_codes (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES second_factors (user_id) ON DELETE CASCADE,
    salt BYTEA NOT NULL,
    -- Salted hash of the code, sealed with the key of this name.
    hash BYTEA NOT NULL,
    key_id TEXT NOT NULL,
    used_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX backup_codes_user ON backup_codes (user_id);
