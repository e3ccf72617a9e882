-- What was redacted in stored runs, by whom and when.

CREATE TABLE redactions (
    id           uuid PRIMARY KEY,
    run_id       uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    -- Events from this id to that one, both included.
    from_epoch   bigint NOT NULL,
    from_seq     bigint NOT NULL,
    to_epoch     bigint NOT NULL,
    to_seq       bigint NOT NULL,
    is_text      boolean NOT NULL,                      -- a text within the events, or all that they say
    text         bytea,                                 -- which; null as soon as it is redacted
    reason       text,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    events       bigint NOT NULL DEFAULT 0,             -- events that it has changed
    finished_at  timestamptz,
    failure      text,                                  -- why it was given up
    CONSTRAINT redactions_forget CHECK (finished_at IS NULL OR text IS NULL)
);

CREATE INDEX redactions_by_run ON redactions (run_id, requested_at);
CREATE INDEX redactions_unfinished ON redactions (run_id) WHERE finished_at IS NULL;

-- Grows when a redaction is requested and when it is finished, so that a copy of the run can be told to be outdated. If
-- it is not 0, the stored lines are as many and as long as the seals of the run say, and their checksums are others.
ALTER TABLE runs ADD COLUMN redaction_revision integer NOT NULL DEFAULT 0;

INSERT INTO permissions VALUES ('runs:redact', 'redact what runs have printed');

-- An older program reads and stores runs as before. It must not archive a run that is being redacted, so it may serve
-- while programs are replaced, and not longer.
INSERT INTO schema_versions (version, oldest_program) VALUES (17, 15);
