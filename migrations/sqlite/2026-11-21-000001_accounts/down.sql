DROP TABLE wakes;
DROP TABLE account_events;
DROP TABLE devices;
DROP TABLE users;
DROP TABLE store;
