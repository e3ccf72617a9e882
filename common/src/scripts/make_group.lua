#!lua flags=allow-oom
-- Makes the consumer group of a ready stream, and the stream, unless they exist.
--
-- The script may run when Redis is out of memory (allow-oom), unlike the command: without the group
-- a persister that starts then cannot store what fills the memory.
--
-- KEYS  1 ready
-- ARGV  1 consumer group
-- Reply ok

local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
return redis.status_reply('ok')
