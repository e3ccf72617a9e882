-- Replaces the value of a cache key, unless it is not the expected one.
--
-- KEYS  1 the cache key
-- ARGV  1 expected value  2 new value  3 time to live in ms, or 0 to keep the present one
-- Reply 1 if it was replaced, else 0
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
