-- Replaces a copy by another, unless something else than expected stands there.
--
-- KEYS[1] the copy; ARGV[1] what must stand there, ARGV[2] what shall, ARGV[3] its life in milliseconds, 0 for what is
-- left of that of its predecessor.
-- Answers 1 if it did.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
