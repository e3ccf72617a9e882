#!lua flags=allow-oom
-- Puts a run into the ready queue whose agent has changed its wake key: the agent itself may not
-- write to the queue. Every persister calls this; the first call counts. A worker calls it for a
-- run of which Postgres has lost events.
--
-- A publisher may write anything to its meta: then its run enters the queue for nothing, or not.
-- The script may run when Redis is out of memory (allow-oom): storing the run is what frees memory.
--
-- KEYS  1 stream  2 meta  3 bell  4 ready
-- ARGV  1 run  2 `woken`: the wake key was changed, so what is in order is looked at as well
--              `sweep`: it may have been changed, so only a run with unstored events is queued
--              `behind`: Postgres lacks events that Redis holds, so the run is queued in any case,
--              and its keys do not expire until it is stored
-- Reply 1 if the run has entered the queue, else 0
-- append.lua describes the fields of meta.

local stream, meta, ready = KEYS[1], KEYS[2], KEYS[4]
local run, reason = ARGV[1], ARGV[2]

-- A time in ms, printed.
local MAX_LENGTH = 16

-- Meta of another type is repaired by the persister that takes the run.
local length = redis.pcall('HSTRLEN', meta, 'dirty')
local is_hash = type(length) == 'number'
if reason == 'behind' then
  redis.call('PERSIST', stream)
  redis.call('PERSIST', meta)
  redis.call('XADD', ready, '*', 'run', run)
  return 1
end
local dirty = is_hash and length > 0 and length <= MAX_LENGTH and redis.call('HGET', meta, 'dirty')
if dirty and redis.call('HSTRLEN', meta, 'queued') == length and redis.call('HGET', meta, 'queued') == dirty then
  return 0
end
if is_hash and length == 0 and reason == 'sweep' then return 0 end
redis.call('XADD', ready, '*', 'run', run)
if dirty then redis.call('HSET', meta, 'queued', dirty) end
return 1
