-- Accounts that will be deleted, or are being deleted.
CREATE TABLE account_deletions (
    user_id UUID PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    deletes_at TIMESTAMPTZ NOT NULL,
    -- From then on it cannot be cancelled: the number is free, and the rest follows step by step.
    begun_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX account_deletions_due ON account_deletions (deletes_at);
