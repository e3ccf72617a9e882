#!lua flags=no-writes
-- Reads a run: its state, and entries of its stream up to its last id.
--
-- A publisher may write to its stream and its meta without append.lua. So nothing is taken on
-- trust here:
--   * Entries behind the run's last id were not written by append.lua, which moves the id in the
--     same call. They are never returned, only the first of them if the caller asks for it.
--   * An entry above the bound on its size is returned as its size and its beginning. So a reply
--     has at most the bytes asked for and one entry more, whatever a stream holds.
--   * Numbers that append.lua cannot have written make the run `damaged`: then there are no
--     entries.
--
-- KEYS  1 stream  2 meta
-- ARGV  1 first id, exclusive if it begins with (  2 bound on entries  3 bound on the bytes of all
--       entries: the one that reaches it is the last  4 bound on the bytes of one entry
--       5 bytes to return of a larger one  6 `foreign` to look for entries behind the last id
-- Reply {state, last id, watermark, final status, entries, end, foreign}
--   state    ok; none: Redis does not know the run; damaged: meta does not hold a last id
--   entries  {id, {name, value, ...}}, or {id, size, beginning} above the bound
--   end      1 if the stream holds no further entry up to the last id
--   foreign  in the same form, the first entry behind the last id, if there is one

local stream, meta = KEYS[1], KEYS[2]
local max_entries, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local max_entry_bytes, shown_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])

-- A clock may have been wrong by this much when an epoch began.
local MAX_EPOCH_AHEAD_MS = 366 * 86400000
-- Room below the 2^53 up to which a Lua number is exact.
local MAX_SEQ = 2 ^ 52
-- Entries of one call within this script, all of which may be large.
local MAX_STEP = 64
-- What a field takes beside its bytes, about.
local FIELD_BYTES = 16

local function whole(text)
  return text and #text <= 16 and string.match(text, '^%d+$') and tonumber(text) or nil
end

-- 1. The state of the run.
local m = redis.call('HMGET', meta, 'epoch', 'seq', 'watermark', 'sealed')
local epoch, seq = whole(m[1]), whole(m[2])
local time = redis.call('TIME')
local state, last = 'ok', nil
if epoch and seq and epoch <= tonumber(time[1]) * 1000 + MAX_EPOCH_AHEAD_MS and seq <= MAX_SEQ then
  last = m[1] .. '-' .. m[2]
elseif m[1] or m[2] or redis.call('XLEN', stream) > 0 then
  state = 'damaged'
else
  state = 'none'
end
local watermark = m[3] and #m[3] <= 40 and m[3] or ''
local sealed = m[4] and string.sub(m[4], 1, 32) or ''
if not last then return {state, '0-0', watermark, sealed, {}, 1} end

-- 2. An entry as it is returned, and its size.
local function bounded(entry)
  local values, size = entry[2], #entry[2] * FIELD_BYTES
  for i = 1, #values do size = size + #values[i] end
  if size <= max_entry_bytes then return entry, size end
  local beginning, room = {}, shown_bytes
  for i = 1, #values do
    if room <= 0 then break end
    beginning[#beginning + 1] = string.sub(values[i], 1, room)
    room = room - #values[i] - 1
  end
  return {entry[1], size, table.concat(beginning, '\n')}, shown_bytes
end

-- 3. Entries up to the last id, each call as many as are likely to fit.
local entries, bytes, ended, from, step = {}, 0, 0, ARGV[1], 4
while #entries < max_entries and bytes < max_bytes do
  step = math.min(step, max_entries - #entries)
  local batch = redis.call('XRANGE', stream, from, last, 'COUNT', step)
  for i = 1, #batch do
    local entry, size = bounded(batch[i])
    entries[#entries + 1], bytes = entry, bytes + size
    from = '(' .. entry[1]
    if bytes >= max_bytes then break end
  end
  if #batch < step and (#batch == 0 or from == '(' .. batch[#batch][1]) then
    ended = 1
    break
  end
  local mean = math.max(1, bytes / #entries)
  step = math.max(1, math.min(MAX_STEP, math.floor((max_bytes - bytes) / mean)))
end

local reply = {state, last, watermark, sealed, entries, ended}
if ARGV[6] == 'foreign' then
  local foreign = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
  if foreign then reply[7] = bounded(foreign) end
end
return reply
