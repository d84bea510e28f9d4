#!lua flags=allow-oom
-- Writes a stream anew, without the bytes of deleted entries, which Redis keeps until all of their neighbours are deleted, too; of an
-- outcome log, some entries with other rows: those without a person who is erased.
--
-- KEYS[1] the stream  [2] of an outcome log, its hash `recorded`, which counts its bytes
-- ARGV[1] the longest stream that is written anew: Redis does nothing else meanwhile  then per entry with other rows: id, rows
--
-- Returns 1, or 0 if that was not needed; -1 if the stream is too long. The ids stay, and so does the last one.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local rows, told, anew = redis.call('XINFO', 'STREAM', KEYS[1]), {}, {}
for i = 1, #rows, 2 do told[rows[i]] = rows[i + 1] end
if told.length == 0 or (told['entries-added'] == told.length and #ARGV == 1) then return 0 end
if told.length > tonumber(ARGV[1]) then return -1 end
for i = 2, #ARGV, 2 do anew[ARGV[i]] = ARGV[i + 1] end
local entries, left = redis.call('XRANGE', KEYS[1], '-', '+'), redis.call('PTTL', KEYS[1])
redis.call('UNLINK', KEYS[1])
for _, entry in ipairs(entries) do
  local id, fields = entry[1], entry[2]
  if anew[id] then
    redis.call('HINCRBY', KEYS[2], 'bytes', #anew[id] - #fields[2])
    fields[2] = anew[id]
  end
  redis.call('XADD', KEYS[1], id, unpack(fields))
end
redis.call(
  'XSETID', KEYS[1], told['last-generated-id'], 'ENTRIESADDED', told['entries-added'], 'MAXDELETEDID', told['max-deleted-entry-id']
)
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end
return 1
