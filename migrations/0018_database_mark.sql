-- A mark by which services notice that the database was restored to an older state: they change it every few seconds,
-- and Redis holds a copy.

CREATE TABLE database_mark (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    mark      uuid NOT NULL,
    marked_at timestamptz NOT NULL
);

INSERT INTO database_mark (mark, marked_at) VALUES (gen_random_uuid(), now());

INSERT INTO schema_versions (version, oldest_program) VALUES (18, 15);
