DROP INDEX devices_fingerprint;
ALTER TABLE devices DROP COLUMN expiry_told_at;
ALTER TABLE devices DROP COLUMN verified_at;
ALTER TABLE devices DROP COLUMN verified_by;
ALTER TABLE devices DROP COLUMN last_address;
DROP TABLE device_links;
