#!lua flags=allow-oom
-- Removes from a ready stream what no script of ours wrote: entries that do not name a run of the
-- partition, and the key itself if it is no stream. If an entry had an id so large that hardly
-- another may follow, which would stop all appends of the partition, the stream is made anew.
--
-- KEYS  1 ready
-- ARGV  1 consumer group  2 partition  3 number of partitions  4 first id, exclusive if it begins
--       with (  5 bound on the entries that are looked at
-- Reply {entries and keys that were removed, first id of the next call, or ''}

local ready, group = KEYS[1], ARGV[1]
local partition, partitions, from, max_entries = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])

-- Entries of one call within this script, all of which may be large.
local STEP = 50
-- A clock may have been wrong by this much.
local MAX_AHEAD_MS = 366 * 86400000
-- An id as text.
local UUID = '^' .. ('%x'):rep(8) .. ('%-' .. ('%x'):rep(4)):rep(3) .. '%-' .. ('%x'):rep(12) .. '$'

local kind = redis.call('TYPE', ready).ok
if kind == 'none' then return {0, ''} end
if kind ~= 'stream' then
  redis.call('UNLINK', ready)
  return {1, ''}
end

-- 1. Remove what does not name a run of the partition, which the last byte of its id decides.
local function names_run(values)
  local run = values[2]
  if #values ~= 2 or values[1] ~= 'run' or not string.match(run, UUID) then return false end
  return tonumber(string.sub(run, 35), 16) % partitions == partition
end

local seen, removed, kept = 0, 0, {}
while seen < max_entries do
  -- Redis refuses to look behind the largest id that there is: then `entries` holds an error alone.
  local entries = redis.pcall('XRANGE', ready, from, '+', 'COUNT', STEP)
  if #entries == 0 then
    from = ''
    break
  end
  for _, entry in ipairs(entries) do
    seen, from = seen + 1, '(' .. entry[1]
    if names_run(entry[2]) then
      kept[#kept + 1] = entry[2][2]
    else
      redis.pcall('XACK', ready, group, entry[1])
      removed = removed + redis.call('XDEL', ready, entry[1])
    end
  end
end

-- 2. Make the stream anew if its ids are used up. What it held is only delivered again.
local info, generated = redis.call('XINFO', 'STREAM', ready), ''
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then generated = info[i + 1] end
end
local now = tonumber(redis.call('TIME')[1]) * 1000
if tonumber(string.match(generated, '^%d+')) > now + MAX_AHEAD_MS then
  redis.call('UNLINK', ready)
  redis.call('XGROUP', 'CREATE', ready, group, '0', 'MKSTREAM')
  for _, run in ipairs(kept) do redis.call('XADD', ready, '*', 'run', run) end
  return {removed + 1, ''}
end
return {removed, from}
