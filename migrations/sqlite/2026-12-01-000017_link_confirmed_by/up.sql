-- The device that confirmed a link: when the account removes it or changes its guards, the link ends.
ALTER TABLE device_links ADD COLUMN confirmed_by BLOB;
