DROP TABLE registration_locks;
