-- Finds what a user's log holds about a subject, which a newer event replaces. Not unique: a node of the version before writes
-- one event after the other while an upgrade rolls, and the next event of this version replaces them all.
CREATE INDEX account_events_subject ON account_events (user_id, kind, object);
