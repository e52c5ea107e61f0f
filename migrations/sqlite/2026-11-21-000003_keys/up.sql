-- Public keys that devices publish beside their identity, one row per key.
CREATE TABLE prekeys (
    device_id BLOB NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    -- signed, one_time, pq_last_resort, pq_one_time
    kind TEXT NOT NULL,
    key_id BIGINT NOT NULL,
    public_key BLOB NOT NULL,
    signature BLOB,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, kind, key_id)
);

-- The highest id of a one-time key that a device has ever uploaded. Whoever claims or uploads keys of a
-- device locks its row of the kind `one_time` first.
CREATE TABLE key_counters (
    device_id BLOB NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    highest BIGINT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, kind)
);
