-- A day of a device is 1,440 rows that lie in the table in the order of time, each on a page of its
-- own between those of all other devices. Keys that carry the figures have them side by side: some
-- twenty pages, and the sketches stay unread. Writing costs 64 bytes more a row.
--
-- Where there are rows already, their keys are built anew, and the tables can't be read meanwhile.
-- Hypertables keep theirs: old chunks are compressed by series, which serves the same.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['rollup_1m', 'rollup_1h', 'rollup_1d'] LOOP
        IF EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = name::regclass) THEN
            EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', name, name || '_pkey');
            EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I PRIMARY KEY (series_id, bucket) '
                'INCLUDE (count, sum, min, max, p50, p95, revision, updated_at)', name, name || '_pkey');
        END IF;
    END LOOP;
END $$;
