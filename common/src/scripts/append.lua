-- Appends one batch of events to a run. This is the only way into a run stream.
--
-- What the script guarantees:
--   * Event ids are dense. The events of a run are numbered 1, 2, 3, ... within an epoch, and a
--     Redis entry has the id `<epoch>-<seq>` of its last event. So a reader sees every gap, and
--     "entries after my cursor" includes every event that it has not seen.
--   * A batch is appended once. Each producer numbers its own events (the producer seq). A batch
--     that the stream holds already gets `ok` and changes nothing, so a producer may always send it
--     again.
--   * Producer seqs have no gaps. A batch that does not follow the last one gets `gap` and the seq
--     that must come first.
--   * An old process of a producer is fenced: its producer epoch is smaller than the known one.
--   * Lost writes are noticed. An acknowledgement by Redis is not durable, so a producer keeps
--     every event until Postgres has it. It sends the seq that Redis has acknowledged (`acked`): if
--     Redis holds less, it has lost data (a flush, a failover). Then the run gets a new, larger
--     epoch, and the producer sends the missing events again. Postgres and viewers recognize
--     repeated events by producer and producer seq.
--   * Memory is bounded. A run that has reached its cap gets `full`; the producer waits and spools.
-- The batch, the state of the run and both wake-ups change together, because a script is atomic.
-- Wake-ups are only hints: a lost one does no harm. The first call after WAKE_AGAIN_MS wakes the
-- persisters again, and a gateway reads each watched run every few seconds even without one.
--
-- An agent that calls this has a Redis user that may touch the keys of its run alone, and Redis
-- checks its rights for each command in here. So it does not name the ready queue: the script then
-- changes the wake key of the run. Redis tells the persisters which wake keys change, whatever is
-- in them, and they put the run into the queue (enqueue.lua).
--
-- KEYS  1 stream  2 meta  3 bell (channel that wakes gateways)  4 wake
--       5 ready (queue of the persisters), where the caller may write to it
-- ARGV  1 run  2 producer  3 producer epoch  4 base  5 acked  6 first  7 count
--       8 cap in entries  9 cap in bytes  10 field of the body: b or z, see encoding.rs  11 body
--   cap    may only lower MAX_ENTRIES and MAX_BYTES
--   base   highest producer seq that the producer knows to be in Postgres
--   acked  highest producer seq that Redis has acknowledged to the producer
--   first  producer seq of the first event of the batch
--   count  number of events in the batch. 0 only queries the state: it wakes the persister if a
--          wake-up was lost, and fences older processes of the producer. It reports lost writes
--          (`ok` with a detail below `acked`) but leaves the new epoch to the next append.
-- Reply {word, id of the run's last event, producer seq that Postgres holds, detail}
--   ok      the stream holds the batch, since this call or an earlier one
--           detail: highest producer seq that Redis holds
--   gap     nothing appended; detail: the producer seq that must come first
--   full    nothing appended; detail: highest producer seq that Redis holds
--   fenced  nothing appended; detail: the newer producer epoch
--   gone    nothing appended: the run was deleted
--
-- Fields of meta
--   epoch, seq    id of the last event; the epoch is set when the stream is created
--   bytes, freed  body bytes appended, and trimmed, since the run or its last rebirth.lua began
--   dirty         time of the last wake-up, in ms; absent while everything is stored
--   queued        the value of dirty for which the run has entered `ready`
--   watermark     id of the last stored event
--   sealed        final status, once everything is stored
--   deleted       time at which the run was deleted, in ms; then the only field, see delete_run.lua
--   cap           "<bytes> <until ms>": a lower cap, set by cap.lua while Redis exceeds its budget
--   p:<producer>  "<producer epoch> <producer seq>": newest epoch, and highest seq in Redis
--   d:<producer>  highest producer seq that Postgres holds

local stream, meta, bell, wake_key, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local run, producer, field, body = ARGV[1], ARGV[2], ARGV[10], ARGV[11]
local producer_epoch, base, acked = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local first, count = tonumber(ARGV[6]), tonumber(ARGV[7])

-- What a run may hold, whatever the caller says: `MAX_RUN_ENTRIES` and `MAX_RUN_BYTES` in limits.rs.
local MAX_ENTRIES, MAX_BYTES = 1000000, 268435456
local cap_entries = math.min(tonumber(ARGV[8]), MAX_ENTRIES)
local cap_bytes = math.min(tonumber(ARGV[9]), MAX_BYTES)

-- If events are still unstored this long after the wake-up of the persisters, it counts as lost.
local WAKE_AGAIN_MS = 5000

-- Prints all digits: Lua itself prints a large number as 1.7637e+12.
local function int(number) return string.format('%.0f', number) end

-- 1. Read the state of the run and of this producer, and fence an old process.
local m = redis.call('HMGET', meta, 'epoch', 'seq', 'bytes', 'freed', 'dirty', 'sealed',
  'p:' .. producer, 'd:' .. producer, 'cap', 'deleted')
if m[10] then return {'gone', '0-0', '0', '0'} end
local epoch, seq = tonumber(m[1]), tonumber(m[2]) or 0
local bytes, freed = tonumber(m[3]) or 0, tonumber(m[4]) or 0
local dirty, sealed = tonumber(m[5]), m[6]
local durable = math.max(tonumber(m[8]) or 0, base)
local stored, known_epoch, known_seq = durable, nil, nil
if m[7] then
  known_epoch, known_seq = string.match(m[7], '^(%d+) (%d+)$')
end
if known_epoch then
  if producer_epoch < tonumber(known_epoch) then
    return {'fenced', int(epoch or 0) .. '-' .. int(seq), int(durable), known_epoch}
  end
  stored = math.max(stored, tonumber(known_seq))
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

if m[9] then
  local cap, until_ms = string.match(m[9], '^(%d+) (%d+)$')
  if cap and now < tonumber(until_ms) then cap_bytes = math.min(cap_bytes, tonumber(cap)) end
end

-- A hash without fields does not exist, so the key is changed and not left.
local function touch_wake_key()
  redis.call('HSET', wake_key, 'run', run)
  redis.call('HDEL', wake_key, 'run')
end

local function wake()
  if ready then
    redis.call('XADD', ready, '*', 'run', run)
    redis.call('HSET', meta, 'dirty', int(now), 'queued', int(now))
  else
    redis.call('HSET', meta, 'dirty', int(now))
    touch_wake_key()
  end
end

-- 2. A query of the state ends here.
if count == 0 then
  -- After this reply the newer process assigns seqs: fence the older one now, before it uses them.
  if known_epoch and producer_epoch > tonumber(known_epoch) then
    redis.call('HSET', meta, 'p:' .. producer, int(producer_epoch) .. ' ' .. known_seq)
  end
  if dirty and now - dirty > WAKE_AGAIN_MS then wake() end
  return {'ok', int(epoch or 0) .. '-' .. int(seq), int(durable), int(stored)}
end

-- 3. Start an epoch for a new run, or for one that lost acknowledged writes. The new epoch is
--    larger
-- in any case, because ids must never decrease.
if not epoch or stored < acked then
  epoch, seq = math.max(now, (epoch or 0) + 1), 0
  redis.call('HSET', meta, 'epoch', int(epoch), 'seq', '0')
end

local function reply(word, detail)
  return {word, int(epoch) .. '-' .. int(seq), int(durable), int(detail)}
end

-- 4. Accept only the batch that comes next, and only below the cap.
local last = first + count - 1
if last <= stored then return reply('ok', stored) end
if first ~= stored + 1 then return reply('gap', stored + 1) end

local entries = redis.call('XLEN', stream)
if entries == 0 then freed = bytes end
if entries >= cap_entries or (entries > 0 and bytes - freed + #body > cap_bytes) then
  return reply('full', stored)
end

-- 5. Append it. A stream with unstored events must not expire: take back what settle.lua has set.
seq, bytes = seq + count, bytes + #body
local id = int(epoch) .. '-' .. int(seq)
local added = redis.pcall('XADD', stream, id, 'p', producer, 'n', int(first), 'c', int(count),
  't', int(now), 'o', int(bytes), field, body)
if type(added) == 'table' and added.err then
  -- No script of ours leaves a stream that takes no more: the persisters repair it.
  if ready then redis.call('XADD', ready, '*', 'run', run) else touch_wake_key() end
  return added
end
redis.call('HSET', meta, 'seq', int(seq), 'bytes', int(bytes), 'freed', int(freed),
  'p:' .. producer, int(producer_epoch) .. ' ' .. int(last))
if not dirty then redis.call('PERSIST', stream) end
if sealed then
  redis.call('HDEL', meta, 'sealed')
  redis.call('PERSIST', meta)
end

-- 6. Wake the persisters, unless the run is in their queue already, and the gateways.
if not dirty or now - dirty > WAKE_AGAIN_MS then wake() end
redis.call('SPUBLISH', bell, id)
return reply('ok', last)
