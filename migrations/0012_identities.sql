-- Whom an OpenID Connect issuer knows by a subject, and who that is here. A user has one identity of an issuer: an address
-- that an issuer hands on to somebody else does not bring their user along.

CREATE TABLE identities (
    issuer      text NOT NULL,
    subject     text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    email       text NOT NULL,                          -- by which the user was found or made
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (issuer, subject),
    CONSTRAINT identities_of_user UNIQUE (user_id, issuer)
);
