-- The archive: events of sealed runs that are old enough lie in objects outside of Postgres, and their rows go.

ALTER TABLE runs
    -- Up to and with this event the archive holds the run; events behind it are rows, as ever.
    ADD COLUMN archived_epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN archived_seq   bigint NOT NULL DEFAULT 0,
    ADD COLUMN archived_at    timestamptz,
    -- The sealed_at that was archived: a run that was opened and sealed again has another one.
    ADD COLUMN archived_seal  timestamptz;

-- Neither epoch nor seq may stand in an index: they move with every batch.
CREATE INDEX runs_to_archive ON runs (sealed_at) WHERE sealed_at IS DISTINCT FROM archived_seal;

-- Every object that may exist has a row here from before its first byte is written until it is known to be
-- gone: so none is forgotten, whoever dies in between. It outlives its run, hence no reference.
CREATE TABLE archives (
    id           uuid PRIMARY KEY,                      -- of one attempt: no two ever write the same object
    run_id       uuid NOT NULL,
    state        text NOT NULL CHECK (state IN (
                    'writing',                          -- somebody writes it, or died in that
                    'kept',                             -- read back, compared, and what readers are given
                    'leaving')),                        -- to be deleted
    upload       text,                                  -- id of an upload in parts, where one was begun
    -- It holds the events of the run behind this one ...
    after_epoch  bigint NOT NULL,
    after_seq    bigint NOT NULL,
    -- ... up to and with this one.
    epoch        bigint NOT NULL,
    seq          bigint NOT NULL,
    events       bigint NOT NULL DEFAULT 0,
    line_bytes   bigint NOT NULL DEFAULT 0,             -- of the event lines, as runs.bytes counts them
    raw_bytes    bigint NOT NULL DEFAULT 0,             -- of the object, unpacked
    stored_bytes bigint NOT NULL DEFAULT 0,             -- of the object
    index        bytea,                                 -- JSON; the object holds the same at its end
    begun_at     timestamptz NOT NULL DEFAULT now(),
    written_at   timestamptz,                           -- when it was whole
    kept_at      timestamptz,
    rows_gone_at timestamptz                            -- when its rows had all gone
);

ALTER TABLE archives ALTER COLUMN index SET COMPRESSION lz4;

CREATE INDEX archives_by_run ON archives (run_id, epoch, seq);
CREATE INDEX archives_leaving ON archives (id) WHERE state <> 'kept';
CREATE INDEX archives_with_rows ON archives (run_id) WHERE state = 'kept' AND rows_gone_at IS NULL;

-- Runs that retention took while their day stayed, until their rows are gone too.
CREATE TABLE runs_gone (
    run_id      uuid PRIMARY KEY,
    gone_at     timestamptz NOT NULL DEFAULT now()
);
