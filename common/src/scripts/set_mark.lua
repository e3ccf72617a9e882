#!lua flags=allow-oom
-- Replaces the mark of the database that services have seen last.
--
-- The script may run when Redis is out of memory (allow-oom): the value keeps its length.
--
-- KEYS  1 mark
-- ARGV  1 value
-- Reply ok

return redis.call('SET', KEYS[1], ARGV[1])
