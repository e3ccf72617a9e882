-- Removes consumers that no longer run from the group of a ready stream: idle for long, with no
-- pending entries.
--
-- KEYS  1 ready
-- ARGV  1 consumer group  2 idle time in ms
-- Reply the names of the removed consumers

local ready, group, min_idle = KEYS[1], ARGV[1], tonumber(ARGV[2])
local removed = {}
if redis.call('EXISTS', ready) == 0 then return removed end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', ready)) do
  if info[2] == group then
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', ready, group)) do
      local field = {}
      for i = 1, #consumer, 2 do field[consumer[i]] = consumer[i + 1] end
      if field.pending == 0 and field.idle > min_idle then
        redis.call('XGROUP', 'DELCONSUMER', ready, group, field.name)
        removed[#removed + 1] = field.name
      end
    end
  end
end
return removed
