-- Events, partitioned by day: run ids are UUIDv7, so the id tells the day the run was created, all
-- events of a run lie in one partition, and retention drops whole partitions.

CREATE TABLE events (
    run_id       uuid NOT NULL,
    epoch        bigint NOT NULL,
    seq          bigint NOT NULL,
    producer     uuid NOT NULL,
    producer_seq bigint NOT NULL,
    kind         smallint NOT NULL,   -- 0 output 1 log 2 status 3 progress 4 metric 5 heartbeat 6 control 7 gap
    variation    smallint NOT NULL,
    level        text,
    time         timestamptz NOT NULL, -- the producer's clock
    appended_at  timestamptz NOT NULL, -- Redis' clock
    body         bytea NOT NULL,       -- the event line as the producer wrote it; NUL and all
    PRIMARY KEY (run_id, epoch, seq)
) PARTITION BY RANGE (run_id);

ALTER TABLE events ALTER COLUMN body SET COMPRESSION lz4;

-- The smallest UUIDv7 of a moment.
CREATE FUNCTION uuid_v7_floor(moment timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid;

-- Makes the partition of a day (UTC) if it is missing; says whether it did. Attaching a finished
-- table, unlike creating a partition in place, does not stop readers and writers of the others.
CREATE FUNCTION make_events_partition(day date) RETURNS boolean
    LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'events_' || to_char(day, 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('runcast events partitions'));
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', partition);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition,
        uuid_v7_floor(day::timestamp AT TIME ZONE 'UTC'),
        uuid_v7_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
    RETURN true;
END $$;

-- What stood in a run stream and is no event. The run goes on; the bytes are kept for a person to read.
CREATE TABLE dead_letters (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id      uuid NOT NULL,
    epoch       bigint NOT NULL,
    seq         bigint NOT NULL,
    reason      text NOT NULL,
    body        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX dead_letters_by_run ON dead_letters (run_id, epoch, seq);
