ALTER TABLE logins DROP COLUMN tries;
ALTER TABLE logins DROP COLUMN verification_id;
