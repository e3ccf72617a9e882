-- Runs that are deleted on request, runs that are held, and from where a change was made.

-- What remains of a deleted run. The row is made in the transaction that deletes the run, so that the rest is found
-- and removed even if a process dies right afterwards. It stays: an agent that comes back later is told that its run
-- was deleted.
CREATE TABLE deleted_runs (
    run_id      uuid PRIMARY KEY,
    deleted_at  timestamptz NOT NULL DEFAULT now(),
    agents      uuid[] NOT NULL,                        -- whose keys in Redis go too; empty once they are gone
    removed_at  timestamptz                             -- when nothing was left of the run
);

CREATE INDEX deleted_runs_unfinished ON deleted_runs (run_id) WHERE removed_at IS NULL;

-- A legal hold: while it lasts, neither retention nor a request deletes the run. Columns, not a label: labels never
-- change, and decide who may see a run.
ALTER TABLE runs
    ADD COLUMN hold_reason text,
    ADD COLUMN held_by     text,
    ADD COLUMN held_at     timestamptz,
    ADD CONSTRAINT runs_hold CHECK (num_nulls(hold_reason, held_by, held_at) IN (0, 3)) NOT VALID;

CREATE INDEX webhook_deliveries_by_run ON webhook_deliveries (run_id) WHERE run_id IS NOT NULL;

-- The address of the client; null for the operator's command line, and for entries from before.
ALTER TABLE audit_log ADD COLUMN address text;

INSERT INTO permissions VALUES ('runs:delete', 'delete runs, and hold them against deletion');
