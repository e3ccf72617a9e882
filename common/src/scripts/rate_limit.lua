#!lua flags=allow-oom
-- Checks several limits of one subject, by the clock of Redis. Each consumes its cost only if all
-- of them allow theirs.
--
-- `rate` is GCRA. Its state is the time in microseconds at which the quota is full again; the burst
-- bounds how far that may lie ahead. `window` is a sliding window from two fixed ones: the current
-- one, and the part of the previous one that lies within a window's length before now. Its state is
-- `number:count:count of the previous window`. State expires when it means the same as no state.
-- The script may run when Redis is out of memory (allow-oom), because state is small and limits
-- must hold then too.
--
-- KEYS  one for each limit
-- ARGV  for each limit: kind, cost, microseconds in which one unit refills (rate) or that a window
--       lasts (window), burst in units
-- Reply for each limit {1 if it allows the cost else 0, units left, microseconds until the quota is
--       full, microseconds until the same cost can be allowed}

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local replies, states, all_allow = {}, {}, true

local function int(number) return string.format('%.0f', number) end

local function rate(state, cost, unit, burst)
  local at = math.max(tonumber(state or nil) or 0, now)
  local next = at + cost * unit
  local over = next - burst * unit - now
  -- A sum of fractions may be off by a microsecond or two.
  if over > 2 then
    return nil, { 0, math.max(0, math.floor(burst - (at - now) / unit)), math.ceil(at - now), math.ceil(over) }
  end
  local left = math.max(0, math.floor(burst - (next - now) / unit + 0.000001))
  return { string.format('%.3f', next), math.ceil((next - now) / 1000) + 1 },
    { 1, left, math.ceil(next - now), 0 }
end

local function window(state, cost, length, units)
  local number = math.floor(now / length)
  local elapsed = now - number * length
  local count, previous = 0, 0
  if state then
    local old_number, old_count, old_previous = string.match(state, '^(%d+):(%d+):(%d+)$')
    old_number = tonumber(old_number)
    if old_number == number then
      count, previous = tonumber(old_count), tonumber(old_previous)
    elseif old_number == number - 1 then
      previous = tonumber(old_count)
    end
  end
  local used = count + previous * (1 - elapsed / length)
  local reset = count > 0 and 2 * length - elapsed or previous > 0 and length - elapsed or 0
  if used + cost > units + 0.000001 then
    local wait
    if count + cost <= units then
      -- Possible within this window, once enough of the previous one has slid out.
      wait = length * (1 - (units - count - cost) / previous) - elapsed
    else
      wait = length - elapsed
      if count > 0 and cost <= units then wait = wait + length * math.max(0, 1 - (units - cost) / count) end
    end
    return nil, { 0, math.max(0, math.floor(units - used)), math.ceil(reset), math.ceil(math.max(wait, 1)) }
  end
  count = count + cost
  return { int(number) .. ':' .. int(count) .. ':' .. int(previous), math.ceil((2 * length - elapsed) / 1000) },
    { 1, math.max(0, math.floor(units - used - cost + 0.000001)), math.ceil(2 * length - elapsed), 0 }
end

-- Check every limit, then store the new states only if all of them allow their cost.
for index, key in ipairs(KEYS) do
  local first = (index - 1) * 4
  local check = ARGV[first + 1] == 'window' and window or rate
  local cost, micros, burst = tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3]), tonumber(ARGV[first + 4])
  states[index], replies[index] = check(redis.call('GET', key), cost, micros, burst)
  all_allow = all_allow and states[index] ~= nil
end
for index, key in ipairs(KEYS) do
  local state = states[index]
  if all_allow then
    redis.call('SET', key, state[1], 'PX', int(state[2]))
  elseif state then
    -- This limit allows its cost, but another one does not: nothing is consumed.
    replies[index][2] = replies[index][2] + tonumber(ARGV[index * 4 - 2])
  end
end
return replies
