#!lua flags=allow-oom
-- Removes all that Redis holds of a deleted run, and marks it as deleted, so that an agent that
-- still publishes to it is refused and stops. A repeated call is harmless: it also removes what was
-- written since, and renews the mark.
--
-- Entries of the ready queue that name the run are acknowledged by the persister that takes them.
-- May run when Redis is out of memory (allow-oom), because it frees memory.
--
-- KEYS  1 stream  2 meta  3 bell  4 ready  5 control  6 pulses  7 new agents  8 wake
-- ARGV  1 run  2 life of the mark in seconds  3 consumer group
--       4 number of ready entries to acknowledge, then their ids, then agents of the run
-- Reply 1
-- append.lua describes the fields of meta.

local stream, meta, ready, control = KEYS[1], KEYS[2], KEYS[4], KEYS[5]
local life, group, acks = ARGV[2], ARGV[3], tonumber(ARGV[4])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

redis.call('UNLINK', stream, meta, control, KEYS[8])
redis.call('HSET', meta, 'deleted', string.format('%.0f', now))
redis.call('EXPIRE', meta, life)
for i = 5, 4 + acks do
  redis.call('XACK', ready, group, ARGV[i])
  redis.call('XDEL', ready, ARGV[i])
end
for i = 5 + acks, #ARGV do
  redis.call('ZREM', KEYS[6], ARGV[i])
  redis.call('ZREM', KEYS[7], ARGV[i])
end
return 1
