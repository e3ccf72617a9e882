-- Tokens of programs and sessions of browsers. Only SHA-256 hashes are stored: whoever reads this
-- table cannot act as anybody.

CREATE TABLE tokens (
    id          uuid PRIMARY KEY,
    hash        bytea NOT NULL UNIQUE,
    name        text NOT NULL,
    scopes      text[] NOT NULL,
    run_id      uuid REFERENCES runs ON DELETE CASCADE,  -- may only touch this run
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);

CREATE TABLE sessions (
    hash        bytea PRIMARY KEY,
    token_id    uuid NOT NULL REFERENCES tokens ON DELETE CASCADE, -- signed in with; dies with it
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);

CREATE INDEX sessions_by_expiry ON sessions (expires_at);
