-- The rollups: aggregates by series and window, and what is still to be recomputed. Everything
-- stands in the schema `rollup` (the pool's search_path), so that the rollups may share a database
-- with the catalog or have their own. Times of events are microseconds since the Unix epoch,
-- except `bucket` of the three tables of rows, which people query; times of rows are the
-- database's clock.

-- As in the catalog: where each consumer goes on, and who may move it.
CREATE TABLE consumer_position (
    role          text NOT NULL,
    topic         text NOT NULL,
    "partition"   integer NOT NULL,
    next_offset   bigint NOT NULL CHECK (next_offset >= 0),
    generation    bigint NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    -- Where reading begins after a restart.
    rewind_offset bigint,
    PRIMARY KEY (role, topic, "partition"),
    CHECK (rewind_offset IS NULL OR rewind_offset BETWEEN 0 AND next_offset)
);

-- Numbers for (fleet, device, metric): four bytes a row instead of three texts. The device ''
-- stands for the whole fleet. The key's order also finds the series of a fleet and of a device.
CREATE TABLE series (
    series_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fleet     text NOT NULL,
    device    text NOT NULL,
    metric    text NOT NULL,
    UNIQUE (fleet, device, metric)
);

-- Rows of one minute, hour and day. `sketch` is the canonical form of the whole aggregate; the
-- other figures are read from it. `revision` counts the times that a row really changed.
-- `last_offset`: the row holds everything of its device up to there (-1: not known from the bus).
--
-- With TimescaleDB installed in this database: hypertables, compressed when they are old. Without:
-- native partitions by range, made when they are needed. Same columns, same keys, same queries.
DO $$
DECLARE
    timescale text;
    width record;
    body constant text := '
        series_id   integer NOT NULL,
        bucket      timestamptz NOT NULL,
        count       bigint NOT NULL CHECK (count > 0),
        sum         double precision NOT NULL,
        min         double precision NOT NULL,
        max         double precision NOT NULL,
        p50         double precision NOT NULL,
        p95         double precision NOT NULL,
        sketch      bytea NOT NULL,
        last_offset bigint NOT NULL,
        revision    integer NOT NULL,
        updated_at  timestamptz NOT NULL,
        PRIMARY KEY (series_id, bucket)';
BEGIN
    SELECT n.nspname INTO timescale FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'timescaledb';
    FOR width IN SELECT * FROM (VALUES
        ('rollup_1m', interval '1 day', interval '7 days'),
        ('rollup_1h', interval '30 days', interval '90 days'),
        ('rollup_1d', interval '365 days', interval '730 days')) AS w (name, chunk, compress_after)
    LOOP
        IF timescale IS NULL THEN
            EXECUTE format('CREATE TABLE %I (%s) PARTITION BY RANGE (bucket)', width.name, body);
        ELSE
            EXECUTE format('CREATE TABLE %I (%s)', width.name, body);
            EXECUTE format('SELECT %I.create_hypertable(%L, %L, chunk_time_interval => %L::interval, '
                'create_default_indexes => false)',
                timescale, width.name, 'bucket', width.chunk);
            EXECUTE format('ALTER TABLE %I SET (timescaledb.compress, '
                'timescaledb.compress_segmentby = ''series_id'', '
                'timescaledb.compress_orderby = ''bucket'')', width.name);
            EXECUTE format('SELECT %I.add_compression_policy(%L, %L::interval)',
                timescale, width.name, width.compress_after);
        END IF;
        -- For whole fleets: rows arrive about in the order of time.
        EXECUTE format('CREATE INDEX %I ON %I USING brin (bucket) WITH (pages_per_range = 16, '
            'autosummarize = on)', width.name || '_bucket', width.name);
    END LOOP;
END $$;

-- How far each device's minutes are closed, exclusive: those before are rebuild's alone, those
-- after are the stream's. The least bigint: rows were written, nothing is closed yet.
CREATE TABLE device_state (
    fleet          text NOT NULL,
    device         text NOT NULL,
    "partition"    integer NOT NULL,
    closed_through bigint NOT NULL,
    PRIMARY KEY (fleet, device)
) WITH (fillfactor = 80);
CREATE INDEX device_state_partition ON device_state ("partition");

-- Hours of devices to be computed again from the raw events. A mark that changes while it is
-- worked on has another version and stays.
CREATE TABLE rebuild_mark (
    fleet         text NOT NULL,
    device        text NOT NULL,
    hour          bigint NOT NULL,
    version       bigint NOT NULL DEFAULT 1,
    "partition"   integer,
    -- Raw must have stored what stands at these offsets (raw-events, replay-events).
    event_offset  bigint,
    replay_offset bigint,
    -- Worked on once the device is closed through `ready_through`, removed if through `done_through`.
    ready_through bigint NOT NULL,
    done_through  bigint NOT NULL,
    -- Worked on without waiting for the device; now only to be confirmed when it is closed.
    parked        boolean NOT NULL DEFAULT false,
    reason        text NOT NULL,
    -- The requests that wait for it.
    requests      bigint[] NOT NULL DEFAULT '{}',
    marked_at     timestamptz NOT NULL DEFAULT now(),
    not_before    timestamptz NOT NULL DEFAULT now(),
    lease         uuid,
    leased_until  timestamptz,
    PRIMARY KEY (fleet, device, hour)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX rebuild_mark_hour ON rebuild_mark (hour);
CREATE INDEX rebuild_mark_requested ON rebuild_mark USING gin (requests) WHERE requests <> '{}';

-- Ranges that somebody asked to be rebuilt; marked hour by hour, when there is room.
CREATE TABLE rebuild_request (
    request_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Not given: all.
    fleet         text,
    device        text,
    from_hour     bigint NOT NULL,
    to_hour       bigint NOT NULL CHECK (to_hour > from_hour),
    -- The first hour that is not marked yet.
    next_hour     bigint NOT NULL,
    marks         bigint NOT NULL DEFAULT 0,
    rows_changed  bigint NOT NULL DEFAULT 0,
    rows_deleted  bigint NOT NULL DEFAULT 0,
    hours_refused bigint NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    done_at       timestamptz
);

-- Windows to be merged again from finer rows: device '' merges the whole fleet (1m from the
-- devices' 1m, then 1h and 1d); otherwise 1h from 1m, and 1d from 1h.
CREATE TABLE merge_mark (
    level   text NOT NULL CHECK (level IN ('1m', '1h', '1d')),
    fleet   text NOT NULL,
    device  text NOT NULL,
    bucket  bigint NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    -- A finished window was corrected: what is above must follow soon.
    urgent  boolean NOT NULL,
    due_at  timestamptz NOT NULL,
    -- Workers share the marks by it.
    shard   smallint NOT NULL GENERATED ALWAYS AS ((hashtext(fleet || ':' || device) & 15)::smallint) STORED,
    CHECK (device = '' OR level <> '1m'),
    PRIMARY KEY (level, fleet, device, bucket)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX merge_mark_due ON merge_mark (due_at);
CREATE INDEX merge_mark_group ON merge_mark (level, bucket, shard);

-- Records that the stream gave up on, by provenance: rebuild leaves them out as well.
CREATE TABLE poison (
    gateway text NOT NULL,
    epoch   bigint NOT NULL,
    seq     bigint NOT NULL,
    reason  text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway, epoch, seq)
);
