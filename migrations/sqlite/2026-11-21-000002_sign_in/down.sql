DROP TABLE ended_sessions;
DROP TABLE refresh_tokens;
DROP TABLE sessions;
DROP TABLE allowances;
DROP TABLE verifications;
