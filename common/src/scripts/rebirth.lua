#!lua flags=allow-oom
-- Gives a run new ids after Redis went back in time (a failover to a replica that lagged): its
-- entries have ids that Postgres has assigned to other events. Every entry that is not stored gets
-- a new id in a larger epoch, in the same order; stored entries are dropped. May run when Redis is
-- out of memory (allow-oom), because otherwise the run could not be stored and freed.
--
-- A publisher may write anything to its stream and its meta. Absurd numbers count as absent, and an
-- entry with an absurd count keeps one id. If an id of the stream is so large that no epoch may
-- follow it, the stream is written anew, with no more than MAX_REWRITTEN entries.
--
-- KEYS  1 stream  2 meta  3 bell  4 ready
-- ARGV  1 run  2 watermark epoch  3 watermark seq  then pairs: producer, durable seq
-- Reply the id of the run's last event
-- append.lua describes the fields of meta.

local stream, meta, bell, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

-- A clock may have been wrong by this much when an epoch began.
local MAX_EPOCH_AHEAD_MS = 366 * 86400000
-- More events than any entry holds.
local MAX_COUNT = 65536
-- Fields of an entry that are kept: twice what append.lua writes. `unpack` has a bound as well.
local MAX_VALUES = 24
-- What is kept of a stream that is written anew.
local MAX_REWRITTEN, MAX_REWRITTEN_BYTES = 10000, 64 * 1024 * 1024

local function int(number) return string.format('%.0f', number) end
local function whole(text)
  return text and #text <= 16 and string.match(text, '^%d+$') and tonumber(text) or nil
end

-- 1. Choose an epoch above both the one in Redis and the one in Postgres.
local durable = {}
for i = 4, #ARGV - 1, 2 do durable[ARGV[i]] = tonumber(ARGV[i + 1]) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function sane(number)
  return number and number <= now + MAX_EPOCH_AHEAD_MS and number or 0
end
local old = sane(whole(redis.call('HGET', meta, 'epoch')))
local info, top = redis.pcall('XINFO', 'STREAM', stream), 0
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then top = whole(string.match(info[i + 1], '^%d+')) or math.huge end
end
local must_rewrite = top > now + MAX_EPOCH_AHEAD_MS
local epoch, seq, bytes = math.max(now, old + 1, sane(top) + 1, tonumber(ARGV[2]) + 1), 0, 0

-- 2. Copy the unstored entries behind the last one, then drop everything of older epochs.
local rewritten = {}
local function add(values)
  local id = int(epoch) .. '-' .. int(seq)
  if not must_rewrite then return redis.call('XADD', stream, id, unpack(values)) end
  if #rewritten < MAX_REWRITTEN and bytes < MAX_REWRITTEN_BYTES then rewritten[#rewritten + 1] = { id, values } end
end
local tail = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local upto = tail and tail[1]
local from = '-'
while upto do
  local entries = redis.call('XRANGE', stream, from, upto, 'COUNT', 64)
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local field = {}
    for i = 1, #entry[2], 2 do field[entry[2][i]] = entry[2][i + 1] end
    local count, first = whole(field.c), whole(field.n)
    -- Keep an unreadable entry in its place: the persister turns it into a dead letter.
    if not count or not first or count < 1 or count > MAX_COUNT then count, first = 1, math.huge end
    if first + count - 1 > (durable[field.p] or 0) then
      seq, bytes = seq + count, bytes + #(field.b or field.z or '')
      local values = {}
      for i = 1, math.min(#entry[2], MAX_VALUES), 2 do
        values[i], values[i + 1] = entry[2][i], entry[2][i] == 'o' and int(bytes) or entry[2][i + 1]
      end
      add(values)
    end
    from = '(' .. entry[1]
  end
  -- Redis refuses to look behind the largest id that there is.
  if from == '(' .. upto then break end
end
if must_rewrite then
  redis.call('UNLINK', stream)
  for _, entry in ipairs(rewritten) do redis.call('XADD', stream, entry[1], unpack(entry[2])) end
  upto = rewritten[1]
elseif upto then
  redis.call('XTRIM', stream, 'MINID', '=', int(epoch) .. '-0')
end

-- 3. Reset meta, and queue the run for the persisters.
redis.call('HSET', meta, 'epoch', int(epoch), 'seq', int(seq), 'bytes', int(bytes), 'freed', '0',
  'dirty', int(now), 'queued', int(now), 'watermark', ARGV[2] .. '-' .. ARGV[3])
redis.call('HDEL', meta, 'sealed')
redis.call('PERSIST', meta)
if upto then redis.call('PERSIST', stream) end
for producer, seq_stored in pairs(durable) do
  redis.call('HSET', meta, 'd:' .. producer, int(seq_stored))
end
redis.call('XADD', ready, '*', 'run', ARGV[1])
local id = int(epoch) .. '-' .. int(seq)
redis.call('SPUBLISH', bell, id)
return id
