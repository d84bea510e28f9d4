#!lua flags=no-writes
-- Reads some fields of a hash, or some keys of a server, and names the process that has read them.
--
-- KEYS[1] the hash; with SCAN, a key of the slot whose keys are read
-- ARGV[1] 'HSCAN' or 'SCAN'  [2] cursor  [3] about how many
--     SCAN: [4] pattern  [5] type of the keys; '' = any
--
-- Returns {run id of the process, next cursor, fields and values or keys}.

local server = redis.call('INFO', 'server')
local words = {ARGV[2], 'MATCH', ARGV[4], 'COUNT', ARGV[3]}
if ARGV[1] == 'HSCAN' then words = {KEYS[1], ARGV[2], 'COUNT', ARGV[3]} end
if ARGV[5] and ARGV[5] ~= '' then
  words[#words + 1] = 'TYPE'
  words[#words + 1] = ARGV[5]
end
local next_cursor, found = unpack(redis.call(ARGV[1], unpack(words)))
return {string.match(server, 'run_id:(%w+)'), next_cursor, found}
