-- Who may use the API, what they changed, and the copy of the device groups.

-- Secrets are random, so that a plain hash of them is enough; the secret itself is nowhere.
CREATE TABLE access_token (
    token_id   uuid PRIMARY KEY,
    name       text NOT NULL CHECK (name <> ''),
    role       text NOT NULL CHECK (role IN ('viewer', 'analyst', 'admin')),
    -- SHA-256.
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

-- A browser that has shown a token: what its cookie holds is another secret, which ends sooner.
CREATE TABLE access_session (
    hash       bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    token_id   uuid NOT NULL REFERENCES access_token ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX access_session_token ON access_session (token_id);
CREATE INDEX access_session_expiry ON access_session (expires_at);

CREATE TABLE audit_entry (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    -- The token's name, or the command line.
    who      text NOT NULL,
    token_id uuid,
    action   text NOT NULL,
    -- JSON.
    detail   text NOT NULL
);

-- Nobody edits the past, not even by a mistake in the code.
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- The groups belong to another system; they are imported whole or in parts.
CREATE TABLE device_group (
    group_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name     text NOT NULL UNIQUE CHECK (name <> '')
);
CREATE TABLE device_group_member (
    group_id integer NOT NULL REFERENCES device_group ON DELETE CASCADE,
    fleet    text NOT NULL,
    device   text NOT NULL,
    PRIMARY KEY (group_id, fleet, device)
);
CREATE INDEX device_group_member_device ON device_group_member (fleet, device);
