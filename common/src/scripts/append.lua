-- Appends one batch of one producer to its run: the only way into a run stream.
--
-- KEYS  1 stream  2 meta  3 bell  4 ready
-- ARGV  1 run  2 producer  3 producer epoch  4 base  5 acked  6 first  7 count
--       8 cap in entries  9 cap in bytes  10 field of the body: b or z, see body.rs  11 body
--   base   highest producer seq that the producer knows to be in Postgres
--   acked  highest producer seq that Redis has acknowledged to it
--   count  0 asks for the state only, and wakes the persister if its wake-up was lost; it shows a loss
--          (`ok` with less than `acked`) but leaves the larger epoch to the append that claims it;
--          of a newer process it fences the older one
-- Reply {word, last id of the run, durable producer seq, detail}
--   ok      the batch is in the stream, now or since an earlier call; detail: highest seq in Redis
--   gap     nothing appended; detail: the producer seq that must come first
--   full    nothing appended; the run holds as much as it may
--   fenced  nothing appended; detail: the newer producer epoch
--
-- meta  epoch, seq     id of the last event; the epoch is fixed when the stream is born
--       bytes, freed   body bytes appended, and trimmed, since birth
--       dirty          ms of the wake-up in `ready`, while there are unstored events
--       watermark      last stored event id; sealed: final status, once everything is stored
--       cap            "<bytes> <until>": what the run may hold at most until that ms, less than its
--                      producers think; set by the persister while Redis is over its budget (cap.lua)
--       p:<producer>   "<epoch> <seq>" of what Redis has; d:<producer>: seq of what Postgres has

local stream, meta, bell, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local run, producer, field, body = ARGV[1], ARGV[2], ARGV[10], ARGV[11]
local producer_epoch, base, acked = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local first, count = tonumber(ARGV[6]), tonumber(ARGV[7])
local cap_entries, cap_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])

-- A body up to this size rides on the bell, so that who has read all before it need not come for it.
local CARRIED_BYTES = 2048

-- A wake-up that is older than this while events are still unstored counts as lost.
local WAKE_AGAIN_MS = 5000

-- Lua would print a large number as 1.7637e+12.
local function int(number) return string.format('%.0f', number) end

local m = redis.call('HMGET', meta, 'epoch', 'seq', 'bytes', 'freed', 'dirty', 'sealed',
  'p:' .. producer, 'd:' .. producer, 'cap')
local epoch, seq = tonumber(m[1]), tonumber(m[2]) or 0
local bytes, freed = tonumber(m[3]) or 0, tonumber(m[4]) or 0
local dirty, sealed = tonumber(m[5]), m[6]
local durable = math.max(tonumber(m[8]) or 0, base)
local stored, known_epoch, known_seq = durable, nil, nil
if m[7] then
  known_epoch, known_seq = string.match(m[7], '^(%d+) (%d+)$')
  if producer_epoch < tonumber(known_epoch) then
    return {'fenced', int(epoch or 0) .. '-' .. int(seq), int(durable), known_epoch}
  end
  stored = math.max(stored, tonumber(known_seq))
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

if m[9] then
  local cap, till = string.match(m[9], '^(%d+) (%d+)$')
  if cap and now < tonumber(till) then cap_bytes = math.min(cap_bytes, tonumber(cap)) end
end

local function wake()
  redis.call('XADD', ready, '*', 'run', run)
  redis.call('HSET', meta, 'dirty', int(now))
end

if count == 0 then
  -- From this answer on a newer process gives seqs: the older one must not use them up before it does.
  if known_epoch and producer_epoch > tonumber(known_epoch) then
    redis.call('HSET', meta, 'p:' .. producer, int(producer_epoch) .. ' ' .. known_seq)
  end
  if dirty and now - dirty > WAKE_AGAIN_MS then wake() end
  return {'ok', int(epoch or 0) .. '-' .. int(seq), int(durable), int(stored)}
end

-- Born; or reborn, because Redis lost what it had acknowledged: then ids must grow all the same.
if not epoch or stored < acked then
  epoch, seq = math.max(now, (epoch or 0) + 1), 0
  redis.call('HSET', meta, 'epoch', int(epoch), 'seq', '0')
end

local function answer(word, detail)
  return {word, int(epoch) .. '-' .. int(seq), int(durable), int(detail)}
end

local last = first + count - 1
if last <= stored then return answer('ok', stored) end
if first ~= stored + 1 then return answer('gap', stored + 1) end

local entries = redis.call('XLEN', stream)
if entries == 0 then freed = bytes end
if entries >= cap_entries or (entries > 0 and bytes - freed + #body > cap_bytes) then
  return answer('full', stored)
end

seq, bytes = seq + count, bytes + #body
local id = int(epoch) .. '-' .. int(seq)
redis.call('XADD', stream, id, 'p', producer, 'n', int(first), 'c', int(count), 't', int(now),
  'o', int(bytes), field, body)
redis.call('HSET', meta, 'seq', int(seq), 'bytes', int(bytes), 'freed', int(freed),
  'p:' .. producer, int(producer_epoch) .. ' ' .. int(last))
if not dirty then redis.call('PERSIST', stream) end
if sealed then
  redis.call('HDEL', meta, 'sealed')
  redis.call('PERSIST', meta)
end
if not dirty or now - dirty > WAKE_AGAIN_MS then wake() end
local ring = id
if #body <= CARRIED_BYTES then
  -- As `Entry::from_bell` reads it: the id, then names and values, each ended by a newline, the body last.
  ring = table.concat({id, 'p', producer, 'n', int(first), 'c', int(count), 't', int(now), field, body, ''}, '\n')
end
redis.call('SPUBLISH', bell, ring)
return answer('ok', last)
