ALTER TABLE device_links DROP COLUMN confirmed_by;
