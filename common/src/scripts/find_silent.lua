#!lua flags=allow-oom
-- Returns the agents of a partition that are new or came back, and those that are silent.
--
-- Silence counts only while a worker scans. After a gap between two scans (Redis was unreachable,
-- or no worker ran), agents may have been unable to send heartbeats, so they get the full time
-- again.
--
-- Agents write to these keys, and may write anything. What heartbeat.lua cannot have written is
-- removed: a key of another type, a member that is no id, a time of no sense. An agent whose
-- heartbeat lies in the future was heard now.
--
-- The script may run when Redis is out of memory (allow-oom): it replaces times, and removes.
--
-- KEYS  1 pulses  2 new agents  3 watch (hash: since when without a gap, and last scan)
-- ARGV  1 silence from which an agent is returned, in ms  2 time that must have been scanned, in ms
--       3 longest gap between two scans, in ms  4 bound on the agents of each list
-- Reply {now, {agent, last heartbeat, ...} of new agents, the same of silent agents with the
--       longest silence first, how much was removed, 1 if the bounds left more to remove}

local pulses, news, watch = KEYS[1], KEYS[2], KEYS[3]
local silent_after, scan_time, max_gap, max_agents = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

-- Members of one read of a sorted set, and the reads of one call.
local STEP, MAX_STEPS = 200, 50
-- A clock of Redis that was set back makes heartbeats lie in the future for so long.
local MAX_AHEAD_MS = 60000

-- An id as text.
local UUID = '^' .. ('%x'):rep(8) .. ('%-' .. ('%x'):rep(4)):rep(3) .. '%-' .. ('%x'):rep(12) .. '$'

local function int(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- 1. Remove keys of another type, and take heartbeats from the future back to now.
local removed, has_more = 0, 0
for key, kind in pairs({ [pulses] = 'zset', [news] = 'zset', [watch] = 'hash' }) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then removed = removed + redis.call('UNLINK', key) end
end
for _, key in ipairs({ pulses, news }) do
  local ahead = redis.call('ZRANGE', key, '(' .. int(now + MAX_AHEAD_MS), '+inf', 'BYSCORE', 'LIMIT', 0, STEP)
  for _, agent in ipairs(ahead) do redis.call('ZADD', key, int(now), agent) end
  if #ahead == STEP then has_more = 1 end
end

-- 2. Since when workers scan without a gap.
local function moment(text)
  local number = text and #text <= 16 and string.match(text, '^%d+$') and tonumber(text)
  return number and number <= now and number or nil
end
local scans = redis.call('HMGET', watch, 'since', 'last')
local since, last = moment(scans[1]), moment(scans[2])
if not since or not last or now - last > max_gap then since = now end
redis.call('HSET', watch, 'since', int(since), 'last', int(now))
redis.call('EXPIRE', watch, 86400)

-- 3. The agents, and what is none.
local function agents(key, upto)
  local list, from = {}, 0
  for _ = 1, MAX_STEPS do
    local members = redis.call('ZRANGE', key, '-inf', upto, 'BYSCORE', 'LIMIT', from, STEP, 'WITHSCORES')
    for i = 1, #members, 2 do
      local agent, score = members[i], tonumber(members[i + 1])
      local is_agent = #agent == 36 and string.match(agent, UUID)
      if is_agent and score and score > now + MAX_AHEAD_MS then
        -- The next call takes it back to now.
        from = from + 1
      elseif is_agent and score and score >= 0 and score == math.floor(score) then
        list[#list + 1], list[#list + 2] = agent, int(score)
        if #list >= 2 * max_agents then return list end
        from = from + 1
      else
        removed = removed + redis.call('ZREM', key, agent)
      end
    end
    if #members < 2 * STEP then return list end
  end
  has_more = 1
  return list
end
local silent = {}
if now - since >= scan_time then silent = agents(pulses, int(now - silent_after)) end
return {int(now), agents(news, '+inf'), silent, removed, has_more}
