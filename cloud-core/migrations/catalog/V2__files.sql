-- Files of several kinds, compaction, and consumers that read again from before their position.

ALTER TABLE raw_file
    -- raw: events; dead: dead letters.
    ADD COLUMN kind         text NOT NULL DEFAULT 'raw' CHECK (kind IN ('raw', 'dead')),
    -- Hours since the Unix epoch; all rows of a file were appended to the bus in it.
    ADD COLUMN append_hour  bigint,
    -- Written by compaction into the public prefix.
    ADD COLUMN compacted    boolean NOT NULL DEFAULT false,
    -- Copies of an identity that compaction left out.
    ADD COLUMN duplicates   bigint NOT NULL DEFAULT 0,
    -- From this sequence on readers see the files that took its place.
    ADD COLUMN replaced_seq bigint,
    ADD COLUMN replaced_at  timestamptz,
    DROP CONSTRAINT raw_file_state_check,
    DROP CONSTRAINT raw_file_check,
    DROP CONSTRAINT raw_file_check1;

-- One publication may bring several files, which then share its number.
ALTER TABLE raw_file DROP CONSTRAINT raw_file_catalog_seq_key;
CREATE INDEX raw_file_catalog_seq ON raw_file (catalog_seq) WHERE catalog_seq IS NOT NULL;

ALTER TABLE raw_file
    ADD CHECK (state IN ('pending', 'published', 'replaced', 'abandoned')),
    ADD CHECK ((state IN ('published', 'replaced')) = (catalog_seq IS NOT NULL)),
    ADD CHECK ((state = 'replaced') = (replaced_seq IS NOT NULL)),
    ADD CHECK (state NOT IN ('published', 'replaced')
               OR (rows > 0 AND bytes > 0 AND min_effective <= max_effective
                   AND clock_ahead_count BETWEEN 0 AND rows AND append_hour IS NOT NULL));

DROP INDEX raw_file_time;
CREATE INDEX raw_file_time ON raw_file
    USING gist (int8range(min_effective, max_effective, '[]'))
    WHERE kind = 'raw' AND catalog_seq IS NOT NULL;
DROP INDEX raw_file_clock_ahead;
CREATE INDEX raw_file_clock_ahead ON raw_file (min_effective)
    WHERE kind = 'raw' AND catalog_seq IS NOT NULL AND clock_ahead_count > 0;
CREATE INDEX raw_file_hour ON raw_file (append_hour, compacted)
    WHERE kind = 'raw' AND state = 'published';
CREATE INDEX raw_file_replaced ON raw_file (replaced_at) WHERE state = 'replaced';

-- Which fleets a file holds: compaction writes one fleet a file.
CREATE TABLE raw_file_fleet (
    file_id uuid NOT NULL REFERENCES raw_file ON DELETE CASCADE,
    fleet   text NOT NULL,
    rows    bigint NOT NULL CHECK (rows > 0),
    PRIMARY KEY (file_id, fleet)
);

-- The ranges of a publication stand with the first of its files.
COMMENT ON TABLE raw_file_range IS 'offsets that a publication covers, kept with its first file';

-- Where reading begins after a restart, for a consumer whose effect needs records before its
-- position again; never beyond next_offset.
ALTER TABLE consumer_position
    ADD COLUMN rewind_offset bigint,
    ADD CHECK (rewind_offset IS NULL OR rewind_offset BETWEEN 0 AND next_offset);
