-- Runs are looked for by their labels.

CREATE INDEX runs_by_label ON runs USING gin (labels jsonb_path_ops);
