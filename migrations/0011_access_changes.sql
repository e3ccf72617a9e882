-- What Redis holds copies of and has changed: an outbox, filled by whoever changes a row, psql included, in the same
-- transaction. Gateways take the copies out of Redis and then delete the row; see api/src/access/changes.rs.

CREATE TABLE access_changes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('token', 'session', 'user')),
    subject     uuid NOT NULL,
    hash        bytea,                                  -- of a token or a session: where its copy lies
    at          timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION note_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO access_changes (kind, subject, hash) VALUES ('token', OLD.id, OLD.hash);
    PERFORM pg_notify('access_changes', '');
    RETURN NULL;
END $$;

-- Not the columns that count its uses. One that has ended anyway, when its run is removed, changes nothing.
CREATE TRIGGER note_change AFTER UPDATE OF hash, name, scopes, run_id, labels, user_id, expires_at, revoked_at ON tokens
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION note_token();
CREATE TRIGGER note_end AFTER DELETE ON tokens
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND (OLD.expires_at IS NULL OR OLD.expires_at > now()))
    EXECUTE FUNCTION note_token();

CREATE FUNCTION note_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO access_changes (kind, subject, hash) VALUES ('session', OLD.id, OLD.hash);
    PERFORM pg_notify('access_changes', '');
    RETURN NULL;
END $$;

-- A session that is seen moves its end forward, which its copy learns from whoever does it.
CREATE TRIGGER note_change AFTER UPDATE ON sessions
    FOR EACH ROW WHEN (OLD.hash <> NEW.hash OR OLD.user_id IS DISTINCT FROM NEW.user_id
                       OR OLD.token_id IS DISTINCT FROM NEW.token_id OR NEW.expires_at < OLD.expires_at)
    EXECUTE FUNCTION note_session();
CREATE TRIGGER note_end AFTER DELETE ON sessions
    FOR EACH ROW WHEN (OLD.expires_at > now()) EXECUTE FUNCTION note_session();

CREATE FUNCTION note_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO access_changes (kind, subject) VALUES ('user', OLD.id);
    PERFORM pg_notify('access_changes', '');
    RETURN NULL;
END $$;

CREATE TRIGGER note_change AFTER UPDATE OF name, disabled_at ON users
    FOR EACH ROW WHEN (OLD.name <> NEW.name OR OLD.disabled_at IS DISTINCT FROM NEW.disabled_at)
    EXECUTE FUNCTION note_user();
CREATE TRIGGER note_end AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION note_user();

CREATE FUNCTION note_user_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO access_changes (kind, subject)
    SELECT DISTINCT 'user', one FROM unnest(ARRAY[OLD.user_id, NEW.user_id]) AS one WHERE one IS NOT NULL;
    PERFORM pg_notify('access_changes', '');
    RETURN NULL;
END $$;

CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON user_roles
    FOR EACH ROW EXECUTE FUNCTION note_user_role();

-- Of all who have the role.
CREATE FUNCTION note_role_permission() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO access_changes (kind, subject)
    SELECT DISTINCT 'user', user_id FROM user_roles WHERE role IN (OLD.role, NEW.role);
    PERFORM pg_notify('access_changes', '');
    RETURN NULL;
END $$;

CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON role_permissions
    FOR EACH ROW EXECUTE FUNCTION note_role_permission();

CREATE FUNCTION note_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO access_changes (kind, subject) SELECT 'user', user_id FROM user_roles WHERE role = NEW.name;
    PERFORM pg_notify('access_changes', '');
    RETURN NULL;
END $$;

CREATE TRIGGER note_change AFTER UPDATE OF labels ON roles
    FOR EACH ROW WHEN (OLD.labels IS DISTINCT FROM NEW.labels) EXECUTE FUNCTION note_role();
