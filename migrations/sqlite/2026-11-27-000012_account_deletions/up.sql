-- Accounts that will be deleted, or are being deleted.
CREATE TABLE account_deletions (
    user_id BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    deletes_at INTEGER NOT NULL,
    -- From then on it cannot be cancelled: the number is free, and the rest follows step by step.
    begun_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX account_deletions_due ON account_deletions (deletes_at);
