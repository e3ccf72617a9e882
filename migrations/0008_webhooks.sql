-- Webhooks, and when recurring jobs run.

-- How a job went the last time, and when it is put into the queue again: the queue itself forgets what is done.
CREATE TABLE recurring_jobs (
    name        text PRIMARY KEY,
    ended_at    timestamptz,
    took_ms     integer,
    error       text,                                   -- null if it went well
    next_at     timestamptz
);

-- Webhooks: who wants to be told of which changes of runs, what there is to send, and what became of it.

CREATE TABLE webhooks (
    id          uuid PRIMARY KEY,
    url         text NOT NULL,
    secret      bytea NOT NULL,                         -- signing needs it as it is: a hash would not do
    statuses    text[] NOT NULL,                        -- statuses of runs, and 'sealed', 'incomplete'
    labels      jsonb NOT NULL DEFAULT '{}',            -- only runs with all of these
    enabled     boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    failures    integer NOT NULL DEFAULT 0,             -- attempts in a row that failed
    held_until  timestamptz NOT NULL DEFAULT '-infinity', -- it failed for long: nothing is sent before
    note        text                                    -- why it was disabled, if not by a person
);

CREATE TABLE webhook_deliveries (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(), -- the receiver's webhook-id: the same in every attempt
    webhook     uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    run_id      uuid,                                   -- null for a test; the run may be gone by now
    event       text NOT NULL,
    body        text NOT NULL,                          -- the bytes that are signed, the same in every attempt
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts    integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    due_at      timestamptz NOT NULL DEFAULT now(),     -- next attempt
    tried_since timestamptz,                            -- first attempt, or first one since it was replayed
    claim       uuid,                                   -- whoever sends it at the moment ...
    claimed_until timestamptz NOT NULL DEFAULT '-infinity', -- ... and until when nobody else does
    ended_at    timestamptz
);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, due_at) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_undelivered ON webhook_deliveries (webhook, state) WHERE state <> 'delivered';
CREATE INDEX webhook_deliveries_newest ON webhook_deliveries (created_at DESC, id);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE state <> 'waiting';

CREATE TABLE webhook_attempts (
    delivery    uuid NOT NULL REFERENCES webhook_deliveries ON DELETE CASCADE,
    number      integer NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    took_ms     integer NOT NULL,
    status      smallint,                               -- of the answer, if there was one
    error       text,                                   -- null for a success
    PRIMARY KEY (delivery, number)
);

CREATE INDEX webhook_attempts_failed ON webhook_attempts (at) WHERE error IS NOT NULL;

-- A change of a run and the deliveries that tell of it are one transaction, whoever makes the change: so the rule
-- stands here, as that of lost runs does. A run that passes through several statuses between two commits is told
-- with the last one.
CREATE FUNCTION tell_webhooks() RETURNS trigger
    LANGUAGE plpgsql AS $$
DECLARE
    happened text[] := '{}';
BEGIN
    IF NEW.status <> OLD.status THEN
        happened := array_append(happened, NEW.status);
    END IF;
    IF NEW.sealed_at IS NOT NULL AND OLD.sealed_at IS NULL THEN
        happened := array_append(happened, 'sealed');
    ELSIF NEW.ended_at IS NOT NULL AND NEW.sealed_at IS NULL
          AND (OLD.ended_at IS NULL OR OLD.sealed_at IS NOT NULL) THEN
        happened := array_append(happened, 'incomplete');
    END IF;
    -- The lock keeps a webhook that is being removed from failing this transaction by its foreign key.
    INSERT INTO webhook_deliveries (webhook, run_id, event, body)
    SELECT w.id, NEW.id, 'run.' || what, jsonb_build_object(
               'type', 'run.' || what, 'timestamp', now(), 'data', jsonb_build_object(
                   'run', NEW.id, 'name', NEW.name, 'labels', NEW.labels, 'status', NEW.status,
                   'was', OLD.status, 'sealed', NEW.sealed_at IS NOT NULL, 'missing', v.missing,
                   'created_at', NEW.created_at, 'started_at', NEW.started_at, 'ended_at', NEW.ended_at,
                   'failure', v.failure))::text
      FROM webhooks w
     CROSS JOIN unnest(happened) AS what
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(missing), 0) AS missing,
                  (array_agg(jsonb_build_object('variation', variation, 'exit_code', exit_code, 'signal', signal,
                                                'message', left(message, 1000)) ORDER BY variation)
                       FILTER (WHERE status = 'failed'))[1] AS failure
             FROM variations WHERE run_id = NEW.id) AS v
     WHERE w.enabled AND what = ANY(w.statuses) AND NEW.labels @> w.labels
       FOR KEY SHARE OF w;
    RETURN NULL;
END $$;

CREATE TRIGGER tell_webhooks AFTER UPDATE OF status, ended_at, sealed_at ON runs
    FOR EACH ROW WHEN (OLD.status <> NEW.status OR OLD.ended_at IS DISTINCT FROM NEW.ended_at
                       OR (OLD.sealed_at IS NULL) <> (NEW.sealed_at IS NULL))
    EXECUTE FUNCTION tell_webhooks();
