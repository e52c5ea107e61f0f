-- Networks that an account signed in from: codes that are asked for from there are counted apart from those of strangers.
CREATE TABLE known_networks (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Keyed hash of the network, as IPv4 /24, IPv6 /48 or /64.
    network BLOB NOT NULL,
    -- 90 days after the last sign-in from there.
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, network)
);
CREATE INDEX known_networks_expires_at ON known_networks (expires_at);
