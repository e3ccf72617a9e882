-- Tokens that are issued for a run have a parent: the token or the user that asked for them. They may do what
-- the parent may at that moment, and end with the parent and with the run. Tokens that exist have no parent and
-- go on as they are. Programs of the version before go on with this schema. They bound a token of a run by its
-- user, but not by its parent token, and do not end it with the run.

ALTER TABLE tokens
    ADD COLUMN parent_id  uuid REFERENCES tokens ON DELETE CASCADE, -- a parent that is a user stands in user_id
    ADD COLUMN renewed_at timestamptz,                  -- when the parent last asked for it; null: it has no parent
    ADD CONSTRAINT tokens_of_run CHECK (renewed_at IS NULL AND parent_id IS NULL
        OR renewed_at IS NOT NULL AND run_id IS NOT NULL AND created_by IS NULL
           AND num_nonnulls(parent_id, user_id) = 1);

CREATE INDEX tokens_by_parent ON tokens (parent_id) WHERE parent_id IS NOT NULL;

-- A parent has no parent itself, so there are no chains and no circles.
CREATE FUNCTION check_token_parent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM tokens WHERE id = NEW.parent_id AND renewed_at IS NOT NULL)
       OR EXISTS (SELECT FROM tokens WHERE parent_id = NEW.id) OR NEW.parent_id = NEW.id THEN
        RAISE EXCEPTION 'a token of a run cannot be a parent' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER check_parent BEFORE INSERT OR UPDATE OF parent_id ON tokens
    FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL) EXECUTE FUNCTION check_token_parent();

-- As before, and the two new columns. Copies of a token of a run hold nothing of its parent but its hash, so a
-- change of the parent concerns the copy of the parent alone.
DROP TRIGGER note_change ON tokens;
CREATE TRIGGER note_change
    AFTER UPDATE OF hash, name, scopes, run_id, labels, user_id, expires_at, revoked_at, parent_id, renewed_at ON tokens
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION note_token();
