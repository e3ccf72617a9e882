#!lua flags=allow-oom
-- After a commit: tells producers and viewers what Postgres holds, trims it to the live window, and
-- takes the run off the ready stream, or puts it at the back of the line if there is more.
-- Allowed where Redis has no memory left: nothing else would give it any.
--
-- KEYS  1 stream  2 meta  3 bell  4 ready  5 control
-- ARGV  1 run  2 watermark epoch  3 watermark seq  4 sealed: a final status, or ''
--       5 window in events  6 window in bytes  7 window in seconds  8 group
--       9 number of ready entries to acknowledge, then their ids, then pairs: producer, durable seq
-- Reply clean | more | gone (Redis no longer knows the run)

local stream, meta, bell, ready, control = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local run, epoch, seq, sealed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local window_events, window_bytes, window_seconds = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local group, acks = ARGV[8], tonumber(ARGV[9])

-- Body bytes below which a stream of which all is stored is made as small as it can be.
local SMALL_BYTES = 2048

local function int(number) return string.format('%.0f', number) end
local watermark = int(epoch) .. '-' .. int(seq)

local function acknowledge()
  for i = 10, 9 + acks do
    redis.call('XACK', ready, group, ARGV[i])
    redis.call('XDEL', ready, ARGV[i])
  end
end

local m = redis.call('HMGET', meta, 'epoch', 'seq', 'bytes', 'freed', 'watermark')
local at_epoch, at_seq = tonumber(m[1]), tonumber(m[2])
if not at_epoch then
  acknowledge()
  return 'gone'
end

local told_epoch, told_seq = string.match(m[5] or '0-0', '^(%d+)-(%d+)$')
told_epoch, told_seq = tonumber(told_epoch), tonumber(told_seq)
if epoch > told_epoch or (epoch == told_epoch and seq > told_seq) then
  redis.call('HSET', meta, 'watermark', watermark)
end
for i = 10 + acks, #ARGV - 1, 2 do
  local field = 'd:' .. ARGV[i]
  local known = tonumber(redis.call('HGET', meta, field)) or 0
  if tonumber(ARGV[i + 1]) > known then redis.call('HSET', meta, field, ARGV[i + 1]) end
end

-- Only what is at or below the watermark may go.
local function first_entry()
  local entry = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not entry then return nil end
  local field = {}
  for i = 1, #entry[2], 2 do field[entry[2][i]] = entry[2][i + 1] end
  return entry[1], tonumber(field.o) or 0, #(field.b or field.z or '')
end
local function stored(id)
  local e, s = string.match(id, '^(%d+)-(%d+)$')
  e, s = tonumber(e), tonumber(s)
  return e < epoch or (e == epoch and s <= seq)
end
local bytes, freed = tonumber(m[3]) or 0, tonumber(m[4]) or 0
local trimmed = 0
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
  freed = offset - size
  if bytes - freed <= window_bytes or not stored(id) then break end
  redis.call('XDEL', stream, id)
  freed = offset
end
redis.call('HSET', meta, 'freed', int(freed))

local word
if at_epoch == epoch and at_seq == seq then
  word = 'clean'
  acknowledge()
  redis.call('HDEL', meta, 'dirty')
  -- An idle run then costs no more than its meta hash; the next append takes this back.
  redis.call('EXPIRE', stream, window_seconds)
  if bytes - freed < SMALL_BYTES then
    -- Redis gives a stream 4 KiB to begin with; what is loaded has the size of what it holds.
    local whole, life = redis.call('DUMP', stream), redis.call('PTTL', stream)
    if whole and life > 0 then redis.call('RESTORE', stream, int(life), whole, 'REPLACE') end
  end
  if sealed ~= '' then
    redis.call('HSET', meta, 'sealed', sealed)
    redis.call('EXPIRE', meta, window_seconds)
    -- What nobody took must not meet a later attempt of the run.
    redis.call('DEL', control)
  end
else
  word = 'more'
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('XADD', ready, '*', 'run', run)
  redis.call('HSET', meta, 'dirty', int(now))
  acknowledge()
end
redis.call('SPUBLISH', bell, word == 'clean' and sealed ~= '' and 'sealed' or 'stored')
return word
