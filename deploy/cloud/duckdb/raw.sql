-- Reads the raw events of a bucket (or a directory) with DuckDB:
--
--   .read raw.sql
--   SELECT device_id, count(*) FROM penstock_raw('s3://bucket/prefix')
--   WHERE date = '2026-11-24' AND hour = 7 GROUP BY ALL;
--
-- date and hour are those of the append to Kafka, in UTC; give them wherever you can: only those
-- files are opened then. An event stands under its first append, and late ones stand where they
-- arrived: for a range of event times ask for some hours more and filter by effective_time.
--
-- The view needs no catalog: it reads staged and compacted files alike, and of several copies of an
-- event (a retry, a file being replaced) it keeps the canonical one. Copies of one event that arrived
-- in different hours are told apart only when both hours are asked for.
CREATE OR REPLACE MACRO penstock_raw(bucket) AS TABLE
    SELECT *
    FROM read_parquet(bucket || '/*/date=*/hour=*/*.parquet', hive_partitioning = true)
    QUALIFY row_number() OVER (
        PARTITION BY date, hour, fleet, device_id, event_id
        ORDER BY received_at, gateway, epoch, seq
    ) = 1;
