-- Reads the raw events of a bucket (or a directory) with DuckDB:
--
--   .read raw.sql
--   SELECT device_id, count(*)
--   FROM penstock_raw('s3://bucket/prefix', first_hour := '2026-11-24 07', last_hour := '2026-11-24 08')
--   GROUP BY ALL;
--
-- The hours are those of the append to Kafka, in UTC. Give them wherever you can: only their files
-- are opened then. Late events stand where they arrived: for a range of event times ask for some
-- hours more and filter by effective_time.
--
-- It needs no catalog: it reads staged and compacted files alike, and of several copies of an event
-- (a retry, a file that is being replaced) within the hours asked for it keeps the canonical one.
CREATE OR REPLACE MACRO penstock_raw(bucket, first_hour := '0000', last_hour := '9999') AS TABLE
    SELECT *
    FROM read_parquet(
        bucket || '/*/date=*/hour=*/*.parquet',
        hive_partitioning = true,
        hive_types = {'date': VARCHAR, 'hour': VARCHAR}
    )
    WHERE date || ' ' || hour BETWEEN first_hour AND last_hour
    QUALIFY row_number() OVER (
        PARTITION BY fleet, device_id, event_id
        ORDER BY received_at, gateway, epoch, seq
    ) = 1;
