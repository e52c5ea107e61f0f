-- One row for each life of a node, written by itself every two seconds. All moments are the database's: the clocks of
-- nodes may differ.
CREATE TABLE nodes (
    incarnation UUID PRIMARY KEY,
    node_id TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL,
    sockets BIGINT NOT NULL,
    sessions BIGINT NOT NULL,
    conversations BIGINT NOT NULL,
    sweep_lag_ms BIGINT NOT NULL,
    is_draining BOOLEAN NOT NULL,
    -- `ok` or `away`; null: the node works without Redis.
    redis TEXT,
    -- The paths whose canaries do not arrive, as a list of words.
    degraded JSONB NOT NULL,
    -- The incarnations that have not sent a canary back, as a list.
    missed JSONB NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);
