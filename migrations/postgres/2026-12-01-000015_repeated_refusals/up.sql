-- The request for a code that a refused try was made with: its entries are bounded.
ALTER TABLE logins ADD COLUMN verification_id UUID;
-- Refused tries that a summary stands for; NULL: the entry stands for one try. A summary's updated_at is its last try.
ALTER TABLE logins ADD COLUMN tries BIGINT;
