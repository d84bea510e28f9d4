#!lua flags=allow-oom
-- Writes a stream anew, without the bytes of deleted entries: Redis keeps those until all of their neighbours are deleted, too.
--
-- KEYS[1] the stream
-- ARGV[1] the longest stream that is written anew: Redis does nothing else meanwhile
--
-- Returns 1, or 0 if that was not needed; -1 if the stream is too long. The ids stay, and so does the last one.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local rows, told = redis.call('XINFO', 'STREAM', KEYS[1]), {}
for i = 1, #rows, 2 do told[rows[i]] = rows[i + 1] end
if told.length == 0 or told['entries-added'] == told.length then return 0 end
if told.length > tonumber(ARGV[1]) then return -1 end
local entries, left = redis.call('XRANGE', KEYS[1], '-', '+'), redis.call('PTTL', KEYS[1])
redis.call('UNLINK', KEYS[1])
for _, entry in ipairs(entries) do redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
redis.call(
  'XSETID', KEYS[1], told['last-generated-id'], 'ENTRIESADDED', told['entries-added'], 'MAXDELETEDID', told['max-deleted-entry-id']
)
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end
return 1
