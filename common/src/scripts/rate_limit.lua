#!lua flags=allow-oom
-- Asks several limits of one subject at once, by Redis' clock: each takes its cost only if all allow it.
--
-- `rate` is GCRA: the state is the time at which everything taken so far is given back, in microseconds; it may lie
-- so far ahead as the burst allows. `window` counts in windows of fixed length, and takes of the last one what of it
-- still lies within a window's length before now: the state is `number:count:count of the one before`.
-- State expires when it says no more than no state; it is small, so it is kept even where memory is at its limit.
--
-- KEYS  one for each limit
-- ARGV  for each limit: kind, cost, microseconds a unit costs (rate) or a window lasts (window), most units
-- Reply for each limit {1 if it allows it, units that are left, microseconds until all are, microseconds to wait}

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local replies, states, all = {}, {}, true

local function int(number) return string.format('%.0f', number) end

local function rate(state, cost, unit, most)
  local at = math.max(tonumber(state or nil) or 0, now)
  local next = at + cost * unit
  local over = next - most * unit - now
  -- A microsecond or two is what a sum of fractions may be off.
  if over > 2 then
    return nil, { 0, math.max(0, math.floor(most - (at - now) / unit)), math.ceil(at - now), math.ceil(over) }
  end
  local left = math.max(0, math.floor(most - (next - now) / unit + 0.000001))
  return { string.format('%.3f', next), math.ceil((next - now) / 1000) + 1 },
    { 1, left, math.ceil(next - now), 0 }
end

local function window(state, cost, length, most)
  local number = math.floor(now / length)
  local past = now - number * length
  local count, before = 0, 0
  if state then
    local was, had, had_before = string.match(state, '^(%d+):(%d+):(%d+)$')
    was = tonumber(was)
    if was == number then
      count, before = tonumber(had), tonumber(had_before)
    elseif was == number - 1 then
      before = tonumber(had)
    end
  end
  local taken = count + before * (1 - past / length)
  local reset = count > 0 and 2 * length - past or before > 0 and length - past or 0
  if taken + cost > most + 0.000001 then
    local wait
    if count + cost <= most then
      -- In this window, once enough of the last one lies too far back.
      wait = length * (1 - (most - count - cost) / before) - past
    else
      wait = length - past
      if count > 0 and cost <= most then wait = wait + length * math.max(0, 1 - (most - cost) / count) end
    end
    return nil, { 0, math.max(0, math.floor(most - taken)), math.ceil(reset), math.ceil(math.max(wait, 1)) }
  end
  count = count + cost
  return { int(number) .. ':' .. int(count) .. ':' .. int(before), math.ceil((2 * length - past) / 1000) },
    { 1, math.max(0, math.floor(most - taken - cost + 0.000001)), math.ceil(2 * length - past), 0 }
end

for place, key in ipairs(KEYS) do
  local first = (place - 1) * 4
  local ask = ARGV[first + 1] == 'window' and window or rate
  local cost, unit, most = tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3]), tonumber(ARGV[first + 4])
  states[place], replies[place] = ask(redis.call('GET', key), cost, unit, most)
  all = all and states[place] ~= nil
end
for place, key in ipairs(KEYS) do
  local state = states[place]
  if all then
    redis.call('SET', key, state[1], 'PX', int(state[2]))
  elseif state then
    -- It would have allowed it, and nothing is taken.
    replies[place][2] = replies[place][2] + tonumber(ARGV[place * 4 - 2])
  end
end
return replies
