-- Fleets of devices: their keys, and how much each may send to one gateway.

CREATE TABLE fleet (
    name                text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    created_at          timestamptz NOT NULL DEFAULT now(),
    -- A bucket each; none: no limit.
    requests_per_second double precision CHECK (requests_per_second > 0),
    requests_burst      bigint CHECK (requests_burst BETWEEN 1 AND 4294967295),
    events_per_second   double precision CHECK (events_per_second > 0),
    events_burst        bigint CHECK (events_burst BETWEEN 1 AND 4294967295),
    CHECK ((requests_per_second IS NULL) = (requests_burst IS NULL)),
    CHECK ((events_per_second IS NULL) = (events_burst IS NULL))
);

-- Keys are random, so that a plain hash of them is enough; the key itself is nowhere.
CREATE TABLE fleet_key (
    key_id     uuid PRIMARY KEY,
    fleet      text NOT NULL REFERENCES fleet,
    -- SHA-256.
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX fleet_key_fleet ON fleet_key (fleet);
