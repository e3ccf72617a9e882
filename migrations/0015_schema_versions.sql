-- Which programs work with a schema. Each migration from here on states its own version, and the oldest one whose programs
-- work with it: so that a program accepts a newer schema during an upgrade and after a rollback, if that schema says so.

CREATE TABLE schema_versions (
    version         bigint PRIMARY KEY,
    oldest_program  bigint NOT NULL CHECK (oldest_program BETWEEN 1 AND version)
);

-- No program from before 15 reads this table, so none of them can be told that it fits.
INSERT INTO schema_versions (version, oldest_program) VALUES (15, 15);
