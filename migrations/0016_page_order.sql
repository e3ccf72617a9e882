-- Reading a page of events in the order of their key, whatever the planner believes.
--
-- A partition that was just filled has no statistics yet. The planner then expects a handful of rows, so it collects all
-- rows of the run by a bitmap and sorts them: a second and more for each page of a run of a million events, until the first
-- ANALYZE, a minute later. The key has the order of the page already, so these functions leave the planner no other way.

CREATE FUNCTION events_after(
    run uuid, from_epoch bigint, from_seq bigint, all_channels boolean, kinds smallint[], channels int[], max_rows bigint
) RETURNS SETOF events
    LANGUAGE plpgsql STABLE
    SET enable_bitmapscan = off
    SET enable_seqscan = off
    SET enable_sort = off
AS $$
BEGIN
    RETURN QUERY
        SELECT * FROM events e
         WHERE e.run_id = run AND (e.epoch, e.seq) > (from_epoch, from_seq)
           AND (all_channels OR e.kind = ANY(kinds) OR e.kind * 1000 + e.variation = ANY(channels))
         ORDER BY e.epoch, e.seq
         LIMIT max_rows;
END $$;

CREATE FUNCTION events_before(
    run uuid, to_epoch bigint, to_seq bigint, all_channels boolean, kinds smallint[], channels int[], max_rows bigint
) RETURNS SETOF events
    LANGUAGE plpgsql STABLE
    SET enable_bitmapscan = off
    SET enable_seqscan = off
    SET enable_sort = off
AS $$
BEGIN
    RETURN QUERY
        SELECT * FROM events e
         WHERE e.run_id = run AND (e.epoch, e.seq) < (to_epoch, to_seq)
           AND (all_channels OR e.kind = ANY(kinds) OR e.kind * 1000 + e.variation = ANY(channels))
         ORDER BY e.epoch DESC, e.seq DESC
         LIMIT max_rows;
END $$;

-- Programs from before only lack these functions, and do not call them.
INSERT INTO schema_versions (version, oldest_program) VALUES (16, 15);
