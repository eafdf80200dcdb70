-- The index of dead letters: what they are looked for by, and what has become of them. The
-- original bytes and the whole context are in the file, at row_number.

CREATE TABLE dead_letter (
    letter_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Its place on the dead-letter topic.
    topic          text NOT NULL,
    "partition"    integer NOT NULL,
    "offset"       bigint NOT NULL,
    file_id        uuid NOT NULL REFERENCES raw_file ON DELETE CASCADE,
    row_number     integer NOT NULL,
    -- Microseconds since the Unix epoch.
    append_time    bigint NOT NULL,
    first_seen     bigint NOT NULL,
    stage          text NOT NULL,
    reason         text NOT NULL,
    detail_preview text NOT NULL,
    fleet          text NOT NULL,
    gateway        text NOT NULL,
    epoch          bigint NOT NULL,
    seq            bigint NOT NULL,
    schema_version integer,
    attempts       bigint NOT NULL,
    device_id      text,
    event_id       uuid,
    event_time     bigint,
    payload_bytes  bigint NOT NULL,
    -- open: nobody has done anything; replayed: sent through replay-events, not yet seen in the
    -- raw store; resolved: its event is in the raw store.
    state          text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'resolved')),
    replays        integer NOT NULL DEFAULT 0,
    replayed_at    timestamptz,
    resolved_at    timestamptz,
    -- Why the last replay refused it: JSON.
    refusal        text,
    refused_at     timestamptz,
    -- When its event is looked for in the raw store next, and how often it was in vain; null when
    -- there is nothing to look for.
    look_at        timestamptz,
    looks          integer NOT NULL DEFAULT 0,
    UNIQUE (topic, "partition", "offset")
);
-- Pages go by (append_time, letter_id); a filter on a name narrows them first.
CREATE INDEX dead_letter_time ON dead_letter (append_time, letter_id);
CREATE INDEX dead_letter_reason ON dead_letter (reason, append_time, letter_id);
CREATE INDEX dead_letter_device ON dead_letter (device_id, append_time, letter_id);
CREATE INDEX dead_letter_gateway ON dead_letter (gateway, append_time, letter_id);
CREATE INDEX dead_letter_fleet ON dead_letter (fleet, append_time, letter_id);
CREATE INDEX dead_letter_look ON dead_letter (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX dead_letter_open ON dead_letter (state) WHERE state <> 'resolved';
CREATE INDEX dead_letter_file ON dead_letter (file_id);

-- Every replay that was asked for. The counts grow with the letters, in one transaction.
CREATE TABLE dead_letter_replay (
    replay_id uuid PRIMARY KEY,
    who       text NOT NULL,
    -- The request: JSON.
    request   text NOT NULL,
    began_at  timestamptz NOT NULL DEFAULT now(),
    ended_at  timestamptz,
    replayed  bigint NOT NULL DEFAULT 0,
    refused   bigint NOT NULL DEFAULT 0
);
CREATE INDEX dead_letter_replay_began ON dead_letter_replay (began_at);
