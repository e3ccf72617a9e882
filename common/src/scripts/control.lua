-- Gives the agents of a run one command, an entry for each variation it is for, or for none of them.
-- An entry stays until the agent of its variation has deleted it, the run is over, or nobody has
-- taken it for as long as the key lives.
--
-- KEYS  1 control
-- ARGV  1 id of the command  2 command  3 by whom  4 data, or ''
--       5 most entries that may wait  6 life of the key in seconds  7... variations
-- Reply ok | full (nothing added: too many commands wait to be taken)

local control = KEYS[1]
local id, command, by, data = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most, life = tonumber(ARGV[5]), ARGV[6]

if redis.call('XLEN', control) + #ARGV - 6 > most then return 'full' end
for i = 7, #ARGV do
  redis.call('XADD', control, '*', 'id', id, 'command', command, 'variation', ARGV[i], 'by', by,
    'data', data)
end
redis.call('EXPIRE', control, life)
return 'ok'
