-- Shows the worker which agents of a partition are new, and which are silent.
--
-- Silence counts only while somebody looked: after a gap between two looks (Redis was away, or no worker
-- ran) the agents may have been unable to be heard, so they get the time of a whole silence again.
--
-- KEYS  1 pulses  2 news  3 watch
-- ARGV  1 milliseconds of silence from which an agent is shown  2 milliseconds that must have been watched
--       3 longest gap between two looks in milliseconds  4 most agents of each sort
-- Reply {now, {agent, heard...} new, {agent, heard...} silent, longest silence first}

local pulses, news, watch = KEYS[1], KEYS[2], KEYS[3]
local silent_after, watched, gap, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local function int(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local seen = redis.call('HMGET', watch, 'since', 'last')
local since, last = tonumber(seen[1] or nil), tonumber(seen[2] or nil)
if not since or not last or now - last > gap then since = now end
redis.call('HSET', watch, 'since', int(since), 'last', int(now))
redis.call('EXPIRE', watch, 86400)

local silent = {}
if now - since >= watched then
  silent = redis.call('ZRANGE', pulses, '-inf', int(now - silent_after), 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
end
return {int(now), redis.call('ZRANGE', news, 0, tonumber(most) - 1, 'WITHSCORES'), silent}
