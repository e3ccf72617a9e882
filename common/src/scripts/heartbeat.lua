-- Takes an agent's sign of life: notes when it was heard, by Redis' clock, tells the viewers of its run,
-- and hands it to the worker if it is heard for the first time or again after a silence.
--
-- KEYS  1 pulses  2 news  3 channel
-- ARGV  1 agent  2 what to tell viewers  3 milliseconds of silence after which it is news
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
