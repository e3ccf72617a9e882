#!lua flags=allow-oom
-- Settles a run after a commit: reports to producers and viewers what Postgres holds, trims the
-- stored part to the live window, and acknowledges the entries of the ready queue.
--
-- Why this is one script, and how it bounds memory:
--   * The watermark, the trimming and the acknowledgement change together, so there is no state
--     between them to recover from. A persister that dies before the call leaves its ready entries
--     pending; the next one finds the events below the watermark in Postgres and calls this script.
--     A repeated call is harmless: the watermark only moves forward.
--   * Only events at or below the watermark are trimmed. What is not stored stays.
--   * If events remain, the run goes to the end of the ready queue, behind all other runs.
--   * If everything is stored, the stream expires on its own (EXPIRE), and the next append takes
--     that back (PERSIST). No process has to remember to trim an idle run, which then costs only
--     its meta hash.
--   * A publisher may write anything to its stream and its meta. What is no sane number counts as 0,
--     so this script never fails for it and never does more than its bounds.
--   * A small stream is reloaded (DUMP, RESTORE) once everything is stored: Redis allocates 4 KiB
--     for every stream, but loads one at its real size, a quarter of that for a run of one event.
--   * The script may run when Redis is out of memory (allow-oom), like all scripts that free
--     memory: if Redis rejected it like other writes, nothing could ever be trimmed and Redis would
--     stay full.
--
-- KEYS  1 stream  2 meta  3 bell  4 ready  5 control  6 notices (channel of the run's agents)
--       7 wake
-- ARGV  1 run  2 watermark epoch  3 watermark seq  4 sealed: the final status, or ''
--       5 window in events  6 window in bytes  7 window in seconds  8 consumer group
--       9 number of ready entries to acknowledge, then their ids, then pairs: producer, durable seq
-- Reply clean  everything is stored
--       more   events remain, and the run is in the ready queue again
--       gone   Redis no longer knows the run; the ready entries are acknowledged
-- append.lua describes the fields of meta.

local stream, meta, bell, ready, control = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local notices, wake_key = KEYS[6], KEYS[7]
local run, epoch, seq, sealed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local window_events, window_bytes, window_seconds = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local group, acks = ARGV[8], tonumber(ARGV[9])

-- A stream with fewer body bytes, and less memory, is reloaded at its real size once everything is
-- stored.
local SMALL_BYTES, SMALL_MEMORY = 2048, 16384

-- Entries that one call deletes for the bound in bytes: the next call goes on.
local MAX_DELETED = 20000

local function int(number) return string.format('%.0f', number) end
local function whole(text)
  return text and #text <= 16 and string.match(text, '^%d+$') and tonumber(text) or 0
end
local watermark = int(epoch) .. '-' .. int(seq)

local function acknowledge()
  for i = 10, 9 + acks do
    redis.call('XACK', ready, group, ARGV[i])
    redis.call('XDEL', ready, ARGV[i])
  end
end

-- 1. Read the state of the run.
local m = redis.call('HMGET', meta, 'epoch', 'seq', 'bytes', 'freed', 'watermark')
local at_epoch, at_seq = tonumber(m[1]), tonumber(m[2])
if not m[1] then
  acknowledge()
  return 'gone'
end

-- 2. Move the watermark forward, and the durable seqs that append.lua returns to producers.
--    A watermark above the run's last id is not ours. A durable seq is overwritten in any case: a
--    larger one would make a producer drop what is not stored, and a smaller one, where two calls
--    overtake each other, costs nothing.
local old_epoch, old_seq = string.match(m[5] or '', '^(%d+)-(%d+)$')
old_epoch, old_seq = whole(old_epoch), whole(old_seq)
local is_known = at_epoch and at_seq and (old_epoch < at_epoch or (old_epoch == at_epoch and old_seq <= at_seq))
if not is_known or epoch > old_epoch or (epoch == old_epoch and seq > old_seq) then
  redis.call('HSET', meta, 'watermark', watermark)
end
for i = 10 + acks, #ARGV - 1, 2 do redis.call('HSET', meta, 'd:' .. ARGV[i], ARGV[i + 1]) end

-- 3. Trim the stored part to the live window, by events and then by bytes.
local function first_entry()
  local entry = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not entry then return nil end
  local field = {}
  for i = 1, #entry[2], 2 do field[entry[2][i]] = entry[2][i + 1] end
  return entry[1], whole(field.o), #(field.b or field.z or '')
end
local function stored(id)
  local e, s = string.match(id, '^(%d+)-(%d+)$')
  e, s = tonumber(e), tonumber(s)
  return e < epoch or (e == epoch and s <= seq)
end
local bytes, freed = whole(m[3]), whole(m[4])
-- A number that is none would make append.lua answer `full` for ever, or never.
if m[3] and int(bytes) ~= m[3] then redis.call('HSET', meta, 'bytes', int(bytes)) end
local trimmed, deleted = 0, 0
if seq > window_events then
  trimmed = redis.call('XTRIM', stream, 'MINID', '=', int(epoch) .. '-' .. int(seq - window_events + 1))
end
while trimmed > 0 or bytes - freed > window_bytes do
  trimmed = 0
  local id, offset, size = first_entry()
  if not id then
    freed = bytes
    break
  end
  -- An offset above all bytes of the run is not ours.
  freed = math.min(math.max(0, offset - size), bytes)
  if bytes - freed <= window_bytes or deleted >= MAX_DELETED or not stored(id) then break end
  redis.call('XDEL', stream, id)
  deleted = deleted + 1
  freed = math.min(offset, bytes)
end
redis.call('HSET', meta, 'freed', int(freed))

-- 4. Acknowledge, and let the stored stream expire or queue the run again.
local word
-- An epoch that has just begun has no events, but an earlier one may have some left.
local is_new = at_epoch and at_epoch > epoch and at_seq == 0
  and not redis.call('XRANGE', stream, '(' .. watermark, '+', 'COUNT', 1)[1]
if is_new or (at_epoch == epoch and at_seq == seq) then
  word = 'clean'
  acknowledge()
  redis.call('HDEL', meta, 'dirty', 'queued')
  redis.call('EXPIRE', stream, window_seconds)
  -- A short stream has few parts, so measuring it exactly is cheap.
  local is_small = bytes - freed < SMALL_BYTES and redis.call('XLEN', stream) < 100
  if is_small and (redis.call('MEMORY', 'USAGE', stream, 'SAMPLES', 0) or 0) < SMALL_MEMORY then
    local dump, ttl = redis.call('DUMP', stream), redis.call('PTTL', stream)
    if dump and ttl > 0 then redis.call('RESTORE', stream, int(ttl), dump, 'REPLACE') end
  end
  if sealed ~= '' then
    redis.call('HSET', meta, 'sealed', sealed)
    redis.call('EXPIRE', meta, window_seconds)
    -- Commands that no agent took must not reach a later attempt of the run.
    redis.call('DEL', control)
    -- An agent may have left something in it.
    redis.call('UNLINK', wake_key)
  end
else
  word = 'more'
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('XADD', ready, '*', 'run', run)
  redis.call('HSET', meta, 'dirty', int(now), 'queued', int(now))
  acknowledge()
end

-- 5. Wake the gateways, for viewers and for the agents that publish through them.
if #ARGV > 9 + acks then redis.call('SPUBLISH', notices, 'durable') end
redis.call('SPUBLISH', bell, word == 'clean' and sealed ~= '' and 'sealed' or 'stored')
return word
