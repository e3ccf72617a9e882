-- Takes agents off a sorted set, unless they have been heard since they were read.
--
-- KEYS  1 pulses or news
-- ARGV  pairs: agent, heard
-- Reply how many were taken off

local key, gone = KEYS[1], 0
for i = 1, #ARGV - 1, 2 do
  if tonumber(redis.call('ZSCORE', key, ARGV[i]) or nil) == tonumber(ARGV[i + 1]) then
    gone = gone + redis.call('ZREM', key, ARGV[i])
  end
end
return gone
