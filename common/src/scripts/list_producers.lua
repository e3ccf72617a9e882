#!lua flags=no-writes
-- Lists producers of a run, as far as they are ids. A publisher may write any field to meta.
--
-- KEYS  1 meta
-- ARGV  1 bound on the producers
-- Reply their ids

-- An id as text.
local UUID = ('%x'):rep(8) .. ('%-' .. ('%x'):rep(4)):rep(3) .. '%-' .. ('%x'):rep(12)

local meta, max_producers = KEYS[1], tonumber(ARGV[1])
local producers = {}
if redis.call('TYPE', meta).ok ~= 'hash' then return producers end
for _, field in ipairs(redis.call('HKEYS', meta)) do
  if #producers >= max_producers then break end
  local id = #field == 38 and string.match(field, '^p:(' .. UUID .. ')$')
  if id then producers[#producers + 1] = id end
end
return producers
