#!lua flags=allow-oom
-- Lowers for a while what a run may hold in Redis. append.lua reads this cap. A run that no longer
-- exists is not created again. May run when Redis is out of memory (allow-oom): that is what it is
-- for.
--
-- KEYS  1 meta
-- ARGV  1 bytes  2 duration in ms
-- Reply 1, or 0 if Redis does not know the run

local meta = KEYS[1]
if redis.call('EXISTS', meta) == 0 then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local until_ms = string.format('%.0f', now + tonumber(ARGV[2]))
redis.call('HSET', meta, 'cap', ARGV[1] .. ' ' .. until_ms)
return 1
