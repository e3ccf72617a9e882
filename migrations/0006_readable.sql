-- Events as people read them with psql, and dead letters that can be read again.

-- Who published a line that was no event; null for a whole entry, which says so itself if it can be read.
ALTER TABLE dead_letters ADD COLUMN producer uuid, ADD COLUMN producer_seq bigint;

-- The text of an event line; null where it has none. NUL, which Postgres' text cannot hold, is shown as U+FFFD;
-- bytes that are no UTF-8 are shown as psql shows bytea. Computed when it is asked for, since a stored copy
-- would make every row longer by what it already holds.
CREATE FUNCTION event_text(body bytea) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    line json := replace(convert_from(body, 'UTF8'), '\u0000', '\ufffd')::json;
BEGIN
    RETURN coalesce(line ->> 'text', encode(decode(line ->> 'bytes', 'base64'), 'escape'));
EXCEPTION WHEN data_exception THEN
    RETURN encode(body, 'escape');
END $$;

CREATE VIEW events_readable AS
SELECT e.run_id,
       r.name AS run,
       e.epoch || '-' || e.seq AS id,
       (ARRAY['output', 'log', 'status', 'progress', 'metric', 'heartbeat', 'control', 'gap'])[e.kind + 1] AS kind,
       e.variation,
       e.level,
       e.time,
       e.appended_at,
       left(event_text(e.body), 120) AS preview,
       event_text(e.body) AS text,
       encode(e.body, 'escape') AS line,
       e.producer,
       e.producer_seq,
       e.epoch,
       e.seq
  FROM events e JOIN runs r ON r.id = e.run_id;
