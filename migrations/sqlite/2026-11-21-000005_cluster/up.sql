-- One row for each life of a node, written by itself every two seconds.
CREATE TABLE nodes (
    incarnation BLOB PRIMARY KEY,
    node_id TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    sockets BIGINT NOT NULL,
    sessions BIGINT NOT NULL,
    conversations BIGINT NOT NULL,
    sweep_lag_ms BIGINT NOT NULL,
    is_draining BOOLEAN NOT NULL,
    -- `ok` or `away`; null: the node works without Redis.
    redis TEXT,
    -- The paths whose canaries do not arrive, as a list of words.
    degraded TEXT NOT NULL,
    -- The incarnations that have not sent a canary back, as a list.
    missed TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;
