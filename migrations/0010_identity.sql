-- Users, their roles, and what was done to access. Tables that exist are only added to: a gateway of the version before
-- goes on with its tokens and sessions.

CREATE TABLE users (
    id          uuid PRIMARY KEY,
    -- Without an @, so that it is never somebody else's address: one signs in by either.
    name        text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    email       text NOT NULL CHECK (email ~ '^[^@[:space:][:cntrl:]]+@[^@[:space:][:cntrl:]]+$' AND length(email) <= 254),
    password    text,                                   -- argon2id as a PHC string; null: signs in by other ways only
    preferences jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(preferences) = 'object'),
    created_at  timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

CREATE UNIQUE INDEX users_name ON users (lower(name));
CREATE UNIQUE INDEX users_email ON users (lower(email));

CREATE TABLE permissions (
    name        text PRIMARY KEY,
    description text NOT NULL
);

INSERT INTO permissions VALUES
    ('runs:read',    'see runs and what they printed'),
    ('runs:publish', 'create runs and publish to them'),
    ('runs:control', 'cancel, pause and feed runs'),
    ('admin',        'everything');

CREATE TABLE roles (
    name        text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    description text NOT NULL DEFAULT '',
    built_in    boolean NOT NULL DEFAULT false,
    labels      jsonb CHECK (jsonb_typeof(labels) = 'object'), -- only for runs with all of these; null: for all
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE role_permissions (
    role        text NOT NULL REFERENCES roles ON DELETE CASCADE ON UPDATE CASCADE,
    permission  text NOT NULL REFERENCES permissions,
    PRIMARY KEY (role, permission)
);

INSERT INTO roles (name, description, built_in) VALUES
    ('viewer',   'sees all runs', true),
    ('operator', 'sees, starts and controls all runs', true),
    ('admin',    'everything', true);

INSERT INTO role_permissions VALUES
    ('viewer', 'runs:read'),
    ('operator', 'runs:read'), ('operator', 'runs:publish'), ('operator', 'runs:control'),
    ('admin', 'admin');

CREATE TABLE user_roles (
    user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role        text NOT NULL REFERENCES roles ON DELETE CASCADE ON UPDATE CASCADE,
    granted_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, role)
);

CREATE INDEX user_roles_by_role ON user_roles (role);

ALTER TABLE tokens
    ADD COLUMN user_id      uuid REFERENCES users ON DELETE CASCADE, -- never may more than this user may now
    ADD COLUMN labels       jsonb CHECK (jsonb_typeof(labels) = 'object'), -- only runs with all of these
    ADD COLUMN created_by   text,
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN uses         bigint NOT NULL DEFAULT 0;

CREATE INDEX tokens_by_user ON tokens (user_id) WHERE user_id IS NOT NULL;

ALTER TABLE sessions
    ALTER COLUMN token_id DROP NOT NULL,
    ADD COLUMN id           uuid NOT NULL DEFAULT gen_random_uuid() CONSTRAINT sessions_id UNIQUE, -- for lists: the hash stays here
    ADD COLUMN user_id      uuid REFERENCES users ON DELETE CASCADE,
    ADD COLUMN client       text,                       -- one session per client of a user
    ADD COLUMN user_agent   text,
    ADD COLUMN data         jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(data) = 'object'),
    ADD COLUMN last_seen_at timestamptz NOT NULL DEFAULT now(),
    ADD CONSTRAINT sessions_owner CHECK (num_nonnulls(user_id, token_id) = 1);

CREATE UNIQUE INDEX sessions_client ON sessions (user_id, client) WHERE client IS NOT NULL;
CREATE INDEX sessions_by_user ON sessions (user_id) WHERE user_id IS NOT NULL;

-- What changed who may do what, or controlled a run. It names who did it even after they are gone.
CREATE TABLE audit_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    actor       uuid,                                   -- user or token; null: the operator's command line
    actor_name  text NOT NULL,
    action      text NOT NULL,                          -- such as user.disabled
    target      text,                                   -- the user, role, token, session or run
    details     jsonb NOT NULL DEFAULT '{}'             -- never a secret
);

CREATE INDEX audit_log_by_actor ON audit_log (actor, id);
CREATE INDEX audit_log_by_action ON audit_log (action, id);
