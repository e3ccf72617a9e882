#!lua flags=allow-oom
-- Gives a run new ids after Redis went back in time (a failover to a replica that lagged): its
-- entries have ids that Postgres has assigned to other events. Every entry that is not stored gets
-- a new id in a larger epoch, in the same order; stored entries are dropped. May run when Redis is
-- out of memory (allow-oom), because otherwise the run could not be stored and freed.
--
-- KEYS  1 stream  2 meta  3 bell  4 ready
-- ARGV  1 run  2 watermark epoch  3 watermark seq  then pairs: producer, durable seq
-- Reply the id of the run's last event
-- append.lua describes the fields of meta.

local stream, meta, bell, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function int(number) return string.format('%.0f', number) end

-- 1. Choose an epoch above both the one in Redis and the one in Postgres.
local durable = {}
for i = 4, #ARGV - 1, 2 do durable[ARGV[i]] = tonumber(ARGV[i + 1]) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local old = tonumber(redis.call('HGET', meta, 'epoch')) or 0
local epoch, seq, bytes = math.max(now, old + 1, tonumber(ARGV[2]) + 1), 0, 0

-- 2. Copy the unstored entries behind the last one, then drop everything of older epochs.
local tail = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local upto = tail and tail[1]
local from = '-'
while upto do
  local entries = redis.call('XRANGE', stream, from, upto, 'COUNT', 64)
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local field = {}
    for i = 1, #entry[2], 2 do field[entry[2][i]] = entry[2][i + 1] end
    local count, first = tonumber(field.c), tonumber(field.n)
    -- Keep an unreadable entry in its place: the persister turns it into a dead letter.
    if not count or not first or count < 1 then count, first = 1, math.huge end
    if first + count - 1 > (durable[field.p] or 0) then
      seq, bytes = seq + count, bytes + #(field.b or field.z or '')
      local values = {}
      for i = 1, #entry[2], 2 do
        values[i], values[i + 1] = entry[2][i], entry[2][i] == 'o' and int(bytes) or entry[2][i + 1]
      end
      redis.call('XADD', stream, int(epoch) .. '-' .. int(seq), unpack(values))
    end
    from = '(' .. entry[1]
  end
end
if upto then redis.call('XTRIM', stream, 'MINID', '=', int(epoch) .. '-0') end

-- 3. Reset meta, and queue the run for the persisters.
redis.call('HSET', meta, 'epoch', int(epoch), 'seq', int(seq), 'bytes', int(bytes), 'freed', '0',
  'dirty', int(now), 'watermark', ARGV[2] .. '-' .. ARGV[3])
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
