-- Networks that an account signed in from: codes that are asked for from there are counted apart from those of strangers.
CREATE TABLE known_networks (
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Keyed hash of the network, as IPv4 /24, IPv6 /48 or /64.
    network BYTEA NOT NULL,
    -- 90 days after the last sign-in from there.
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, network)
);
CREATE INDEX known_networks_expires_at ON known_networks (expires_at);
