#!lua flags=no-writes
-- Reads fields of a hash whose values are short. A value above the bound, and a key of another
-- type, count as absent: agents write these keys, and may write anything.
--
-- KEYS  1 description of an agent
-- ARGV  1 bound on the bytes of a value  2... fields
-- Reply their values

local key, max_bytes = KEYS[1], tonumber(ARGV[1])
local values = {}
local is_hash = redis.call('TYPE', key).ok == 'hash'
for i = 2, #ARGV do
  local is_short = is_hash and redis.call('HSTRLEN', key, ARGV[i]) <= max_bytes
  values[i - 1] = is_short and redis.call('HGET', key, ARGV[i]) or false
end
return values
