#!lua flags=allow-oom
-- Removes from a run what append.lua cannot have written, so that it can append again: keys of
-- another type, and a stream whose ids have passed the last id of the run (append.lua could not
-- add to it any more). Such a stream is removed as a whole, and only once all of the run is stored.
--
-- KEYS  1 stream  2 meta  3 control
-- ARGV  1 id of the last event that Postgres holds
-- Reply {keys of another type that were removed, 1 if the stream was removed}

local stream, meta, control = KEYS[1], KEYS[2], KEYS[3]

-- 1. Remove keys of another type.
local wrong = 0
for key, expected in pairs({ [stream] = 'stream', [meta] = 'hash', [control] = 'stream' }) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= expected then wrong = wrong + redis.call('UNLINK', key) end
end
if redis.call('EXISTS', stream) == 0 then return {wrong, 0} end

-- 2. Remove the stream, if all of the run is stored and its ids have passed the last id. Ids are
--    compared as text of equal length: those of a publisher may be above what a number holds.
local function comparable(id)
  local epoch, seq = string.match(id, '^(%d+)-(%d+)$')
  if not epoch or #epoch > 20 or #seq > 20 then return nil end
  return string.rep('0', 20 - #epoch) .. epoch .. string.rep('0', 20 - #seq) .. seq
end
local m = redis.call('HMGET', meta, 'epoch', 'seq')
local last = comparable((m[1] or '') .. '-' .. (m[2] or ''))
if not last or last ~= comparable(ARGV[1]) then return {wrong, 0} end
local info, generated = redis.call('XINFO', 'STREAM', stream), nil
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then generated = info[i + 1] end
end
if comparable(generated) <= last then return {wrong, 0} end
return {wrong, redis.call('UNLINK', stream)}
