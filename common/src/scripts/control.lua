#!lua flags=allow-oom
-- Sends a command to the agents of a run: one entry for each variation, or none at all if too many
-- entries wait. An entry stays until the agent of its variation deletes it, the run is over, or the
-- key expires.
--
-- The script may run when Redis is out of memory (allow-oom): what it adds is bounded, and a run
-- that fills Redis must be stoppable.
--
-- KEYS  1 control  2 notices (channel of the run's agents)
-- ARGV  1 id of the command  2 command  3 sent by  4 data, or ''
--       5 bound on waiting entries  6 time to live of the key in seconds  7... variations
-- Reply ok, or full: nothing was added, because too many entries wait

local control, notices = KEYS[1], KEYS[2]
local id, command, by, data = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_entries, ttl = tonumber(ARGV[5]), ARGV[6]

if redis.call('XLEN', control) + #ARGV - 6 > max_entries then return 'full' end
for i = 7, #ARGV do
  redis.call('XADD', control, '*', 'id', id, 'command', command, 'variation', ARGV[i], 'by', by,
    'data', data)
end
redis.call('EXPIRE', control, ttl)
-- Agents that publish through a gateway learn of the command by it.
redis.call('SPUBLISH', notices, 'command')
return 'ok'
