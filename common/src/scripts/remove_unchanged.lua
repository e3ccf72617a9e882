-- Removes agents from a sorted set, unless a heartbeat has arrived since the worker read them.
--
-- KEYS  1 pulses or new agents
-- ARGV  pairs: agent, time of its last heartbeat as read
-- Reply how many were removed

local key, removed = KEYS[1], 0
for i = 1, #ARGV - 1, 2 do
  if tonumber(redis.call('ZSCORE', key, ARGV[i]) or nil) == tonumber(ARGV[i + 1]) then
    removed = removed + redis.call('ZREM', key, ARGV[i])
  end
end
return removed
