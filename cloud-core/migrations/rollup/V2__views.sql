-- For people and their tools (Grafana, psql): the rows with the names of their series. The whole
-- fleet is the device ''. Not for percentiles of several devices: those can't be averaged; ask the
-- API, which merges the sketches.
CREATE VIEW minutes AS
    SELECT fleet, device, metric, bucket, count, sum, sum / count AS avg, min, max, p50, p95,
           revision, updated_at
    FROM rollup_1m JOIN series USING (series_id);
CREATE VIEW hours AS
    SELECT fleet, device, metric, bucket, count, sum, sum / count AS avg, min, max, p50, p95,
           revision, updated_at
    FROM rollup_1h JOIN series USING (series_id);
CREATE VIEW days AS
    SELECT fleet, device, metric, bucket, count, sum, sum / count AS avg, min, max, p50, p95,
           revision, updated_at
    FROM rollup_1d JOIN series USING (series_id);
