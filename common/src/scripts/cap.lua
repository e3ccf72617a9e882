#!lua flags=allow-oom
-- Lowers what a run may hold in Redis, for a while: see append.lua. A run that is gone stays gone.
--
-- KEYS  1 meta
-- ARGV  1 bytes  2 how long, in ms
-- Reply 1, or 0 if Redis does not know the run

local meta = KEYS[1]
if redis.call('EXISTS', meta) == 0 then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local till = string.format('%.0f', now + tonumber(ARGV[2]))
redis.call('HSET', meta, 'cap', ARGV[1] .. ' ' .. till)
return 1
