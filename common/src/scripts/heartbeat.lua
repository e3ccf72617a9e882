#!lua flags=allow-oom
-- Records the heartbeat of an agent by the clock of Redis, publishes it to the viewers of its run,
-- and reports the agent to the worker if this is its first heartbeat, or the first after a silence.
--
-- The script may run when Redis is out of memory (allow-oom): an agent that waits for memory is not
-- lost.
--
-- KEYS  1 pulses  2 new agents  3 channel
-- ARGV  1 agent  2 message for viewers  3 silence after which the agent counts as new, in ms
-- Reply 1

local pulses, news, channel = KEYS[1], KEYS[2], KEYS[3]
local agent = ARGV[1]

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local score = string.format('%.0f', now)
local before = tonumber(redis.call('ZSCORE', pulses, agent) or nil)
if not before or now - before >= tonumber(ARGV[3]) then redis.call('ZADD', news, score, agent) end
redis.call('ZADD', pulses, score, agent)
redis.call('SPUBLISH', channel, ARGV[2])
return 1
