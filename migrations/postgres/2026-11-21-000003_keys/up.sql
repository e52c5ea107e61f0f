-- Public keys that devices publish beside their identity, one row per key.
CREATE TABLE prekeys (
    device_id UUID NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    -- signed, one_time, pq_last_resort, pq_one_time
    kind TEXT NOT NULL,
    key_id BIGINT NOT NULL,
    public_key BYTEA NOT NULL,
    signature BYTEA,
    expires_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (device_id, kind, key_id)
);

-- The highest id of a one-time key that a device has ever uploaded. Whoever claims or uploads keys of a
-- device locks its row of the kind `one_time` first.
CREATE TABLE key_counters (
    device_id UUID NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    highest BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (device_id, kind)
) WITH (fillfactor = 80);
