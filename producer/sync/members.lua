#!lua flags=no-writes
-- Reads some of the members that a sync knows, and names the process that has read them.
--
-- KEYS[1] members
-- ARGV[1] cursor  [2] about how many
--
-- Returns {run id of the server, next cursor, fields and values}. A cursor counts in one process only: another one
-- has its members in another order.

local server = redis.call('INFO', 'server')
local next_cursor, found = unpack(redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]))
return {string.match(server, 'run_id:(%w+)'), next_cursor, found}
