#!lua flags=allow-oom
-- Takes the users of agents that are due to be checked, and lets them be due again later: so each
-- is checked by one worker, and again if that worker dies.
--
-- The script may run when Redis is out of memory (allow-oom): it replaces times.
--
-- KEYS  1 users
-- ARGV  1 time until they are due again, in ms  2 how many at most
-- Reply the users

local users = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = redis.call('ZRANGE', users, '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, ARGV[2])
local again = string.format('%.0f', now + tonumber(ARGV[1]))
for _, user in ipairs(due) do redis.call('ZADD', users, again, user) end
return due
