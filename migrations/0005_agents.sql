-- Who publishes, and whether it lives; who does the worker's single tasks; and what a lost agent means for
-- the status of its variation and run.

CREATE TABLE agents (
    agent       uuid PRIMARY KEY,                       -- the id of its producer
    run_id      uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    variation   smallint NOT NULL,
    host        text NOT NULL,
    pid         bigint NOT NULL,
    version     text NOT NULL,
    started_at  timestamptz NOT NULL,
    health      text NOT NULL CHECK (health IN ('alive', 'stale', 'lost', 'ended')),
    changed_at  timestamptz NOT NULL DEFAULT now()      -- when its health changed
);

CREATE INDEX agents_by_run ON agents (run_id, variation);
CREATE INDEX agents_by_health ON agents (health, agent);

CREATE TABLE leases (
    name        text PRIMARY KEY,
    holder      uuid NOT NULL,
    token       bigint NOT NULL,                        -- the fencing number: grows with every new holder
    expires_at  timestamptz NOT NULL
);

-- A variation that is not over is lost when all its agents are, and comes back with one of them. The rule
-- stands here because statuses have two writers, the persister and the worker, in any order: a status that
-- is stored late must not revive a dead agent's variation. An agent without signs of life (one that
-- publishes over HTTP) has no row and is never lost.
CREATE FUNCTION lose_variation() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM agents WHERE run_id = NEW.run_id AND variation = NEW.variation AND health = 'lost')
       AND NOT EXISTS (SELECT FROM agents WHERE run_id = NEW.run_id AND variation = NEW.variation
                          AND health IN ('alive', 'stale')) THEN
        NEW.status := 'lost';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER lose_variation BEFORE UPDATE OF status ON variations
    FOR EACH ROW WHEN (NEW.status IN ('pending', 'running')) EXECUTE FUNCTION lose_variation();

-- A run that is not over is lost while one of its variations is.
CREATE FUNCTION lose_run() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM variations WHERE run_id = NEW.id AND status = 'lost') THEN
        NEW.status := 'lost';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER lose_run BEFORE UPDATE OF status ON runs
    FOR EACH ROW WHEN (NEW.status IN ('pending', 'running')) EXECUTE FUNCTION lose_run();

-- Runs are removed when they are too old, and what hangs on them with them.
CREATE INDEX tokens_by_run ON tokens (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX sessions_by_token ON sessions (token_id);
