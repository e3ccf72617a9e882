-- Takes consumers that are gone off a ready stream: silent for long, and nothing is pending for them.
--
-- KEYS  1 ready
-- ARGV  1 group  2 milliseconds of silence
-- Reply the names that were taken off

local ready, group, silence = KEYS[1], ARGV[1], tonumber(ARGV[2])
local gone = {}
if redis.call('EXISTS', ready) == 0 then return gone end
for _, described in ipairs(redis.call('XINFO', 'GROUPS', ready)) do
  if described[2] == group then
    for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', ready, group)) do
      local field = {}
      for i = 1, #one, 2 do field[one[i]] = one[i + 1] end
      if field.pending == 0 and field.idle > silence then
        redis.call('XGROUP', 'DELCONSUMER', ready, group, field.name)
        gone[#gone + 1] = field.name
      end
    end
  end
end
return gone
