-- The catalog: which raw files exist, what they hold, and how far each consumer has come.
-- Times of events are microseconds since the Unix epoch; times of rows are the database's clock.

-- Numbers the publications of the whole catalog without gaps: whoever reads as of n sees exactly
-- the files with catalog_seq <= n. The row's lock puts publications in order.
CREATE TABLE catalog_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    seq      bigint NOT NULL
);
INSERT INTO catalog_head (seq) VALUES (0);

CREATE TABLE raw_file (
    file_id           uuid PRIMARY KEY,
    path              text NOT NULL UNIQUE,
    -- pending: announced, perhaps uploaded; published: readers see it; abandoned: to be deleted.
    state             text NOT NULL CHECK (state IN ('pending', 'published', 'abandoned')),
    created_at        timestamptz NOT NULL DEFAULT now(),
    published_at      timestamptz,
    abandoned_at      timestamptz,
    object_deleted_at timestamptz,
    rows              bigint,
    bytes             bigint,
    min_effective     bigint,
    max_effective     bigint,
    clock_ahead_count bigint,
    catalog_seq       bigint UNIQUE,
    CHECK ((state = 'published') = (catalog_seq IS NOT NULL)),
    CHECK (state <> 'published' OR (rows > 0 AND bytes > 0 AND min_effective <= max_effective
                                    AND clock_ahead_count BETWEEN 0 AND rows))
);
CREATE INDEX raw_file_time ON raw_file
    USING gist (int8range(min_effective, max_effective, '[]')) WHERE state = 'published';
CREATE INDEX raw_file_clock_ahead ON raw_file (min_effective)
    WHERE state = 'published' AND clock_ahead_count > 0;
CREATE INDEX raw_file_unfinished ON raw_file (state, created_at) WHERE state <> 'published';

-- The offsets from_offset <= o < to_offset that a published file covers.
CREATE TABLE raw_file_range (
    file_id     uuid NOT NULL REFERENCES raw_file ON DELETE CASCADE,
    topic       text NOT NULL,
    "partition" integer NOT NULL,
    from_offset bigint NOT NULL,
    to_offset   bigint NOT NULL CHECK (to_offset > from_offset),
    PRIMARY KEY (file_id, topic, "partition")
);
CREATE INDEX raw_file_range_offsets ON raw_file_range (topic, "partition", from_offset);

-- Where each consumer goes on. Only an owner with the row's generation may move it; every new
-- owner raises the generation first, which fences the one before.
CREATE TABLE consumer_position (
    role        text NOT NULL,
    topic       text NOT NULL,
    "partition" integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    generation  bigint NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (role, topic, "partition")
);
