-- Returns the agents of a partition that are new or came back, and those that are silent.
--
-- Silence counts only while a worker scans. After a gap between two scans (Redis was unreachable,
-- or no worker ran), agents may have been unable to send heartbeats, so they get the full time
-- again.
--
-- KEYS  1 pulses  2 new agents  3 watch (hash: since when without a gap, and last scan)
-- ARGV  1 silence from which an agent is returned, in ms  2 time that must have been scanned, in ms
--       3 longest gap between two scans, in ms  4 bound on the agents of each list
-- Reply {now, {agent, last heartbeat, ...} of new agents, the same of silent agents with the
--       longest silence first}

local pulses, news, watch = KEYS[1], KEYS[2], KEYS[3]
local silent_after, scan_time, max_gap, max_agents = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local function int(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local scans = redis.call('HMGET', watch, 'since', 'last')
local since, last = tonumber(scans[1] or nil), tonumber(scans[2] or nil)
if not since or not last or now - last > max_gap then since = now end
redis.call('HSET', watch, 'since', int(since), 'last', int(now))
redis.call('EXPIRE', watch, 86400)

local silent = {}
if now - since >= scan_time then
  silent = redis.call('ZRANGE', pulses, '-inf', int(now - silent_after), 'BYSCORE', 'LIMIT', 0, max_agents, 'WITHSCORES')
end
return {int(now), redis.call('ZRANGE', news, 0, tonumber(max_agents) - 1, 'WITHSCORES'), silent}
