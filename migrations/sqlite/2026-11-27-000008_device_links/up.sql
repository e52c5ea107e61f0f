-- New devices that show a QR code and wait for an account to take them. Rows live for minutes.
CREATE TABLE device_links (
    id BLOB PRIMARY KEY,
    -- Keyed hashes of what stands in the QR code, and of what only the new device knows.
    challenge_hash BLOB NOT NULL,
    secret_hash BLOB NOT NULL,
    suite TEXT NOT NULL,
    identity_key BLOB NOT NULL,
    signing_key BLOB,
    -- What the new device says of itself, and its public keys, complete and checked.
    device TEXT NOT NULL,
    keys TEXT NOT NULL,
    address TEXT,
    stage TEXT NOT NULL,
    -- The account that has scanned it first.
    user_id BLOB REFERENCES users (id) ON DELETE CASCADE,
    -- The token family that was given for it.
    session_id BLOB,
    used_at INTEGER,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX device_links_expires ON device_links (expires_at);
CREATE INDEX device_links_user ON device_links (user_id) WHERE user_id IS NOT NULL;

-- What an owner sees of his devices.
ALTER TABLE devices ADD COLUMN last_address TEXT;
ALTER TABLE devices ADD COLUMN verified_by BLOB;
ALTER TABLE devices ADD COLUMN verified_at INTEGER;
-- When the others were told of its silence.
ALTER TABLE devices ADD COLUMN expiry_told_at INTEGER;
-- The mark of an installation stands once in an account: of two that have the same, one keeps it.
UPDATE devices SET fingerprint = NULL WHERE EXISTS (
    SELECT 1 FROM devices other
    WHERE other.user_id = devices.user_id AND other.fingerprint = devices.fingerprint AND other.id < devices.id
);
CREATE UNIQUE INDEX devices_fingerprint ON devices (user_id, fingerprint) WHERE fingerprint IS NOT NULL;
