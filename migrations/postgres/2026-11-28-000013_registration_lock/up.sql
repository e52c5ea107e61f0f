-- PINs that protect numbers: whoever has the number alone neither signs in nor registers anew.
CREATE TABLE registration_locks (
    -- Another one with each PIN: what was proved for one is worth nothing for the next.
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    -- Argon2id hash of the PIN as a PHC string, sealed with the key of this name.
    hash BYTEA NOT NULL,
    key_id TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
