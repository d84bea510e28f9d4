#!lua flags=allow-oom
-- Writes the outcome log of a partition anew, some entries with other rows: those without a person who is erased.
--
-- ARGV: the longest stream that is written anew, since Redis does nothing else meanwhile; the entries' ids and new rows
--@keys outcomes recorded
--@args longest entries[id rows]
--
-- Returns 1, or -1 if the stream is too long. The ids stay, and so does the last one.

if redis.call('EXISTS', key_outcomes) == 0 or redis.call('XLEN', key_outcomes) == 0 then return 1 end
local rows, told = redis.call('XINFO', 'STREAM', key_outcomes), {}
for i = 1, #rows, 2 do told[rows[i]] = rows[i + 1] end
if told.length > tonumber(arg_longest) then return -1 end
local anew = {}
for i = 1, n_entries do anew[ARGV[at_entries_id + i]] = ARGV[at_entries_rows + i] end
local entries = redis.call('XRANGE', key_outcomes, '-', '+')
redis.call('UNLINK', key_outcomes)
for _, entry in ipairs(entries) do
  local id, fields = entry[1], entry[2]
  local rows_then = fields[2]
  fields[2] = anew[id] or rows_then
  redis.call('HINCRBY', key_recorded, 'bytes', #fields[2] - #rows_then)
  redis.call('XADD', key_outcomes, id, unpack(fields))
end
redis.call(
  'XSETID', key_outcomes, told['last-generated-id'], 'ENTRIESADDED', told['entries-added'], 'MAXDELETEDID', told['max-deleted-entry-id']
)
return 1
