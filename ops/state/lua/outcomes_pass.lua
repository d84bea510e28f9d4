#!lua flags=allow-oom
-- Notes up to which row the outcomes of a partition are in files, and removes rows that are in files and old enough.
--
-- ARGV: the entry up to which they are written ("" = nothing is written to files, so age alone counts), the rows and bytes up to there; the
-- time before which rows may go, ms; the most entries to remove; 1 = nothing comes any more, since the number of partitions has changed:
-- then the empty stream goes. `recorded` stays, since it says what was dropped and from when on nothing is missing.
--@keys outcomes recorded
--@args written rows bytes before most former
--
-- Returns how many entries were removed.
--@include _ids

if redis.call('EXISTS', key_recorded) == 0 then return 0 end
local writes = arg_written ~= ''
if writes and tonumber(redis.call('HGET', key_recorded, 'written_rows') or 0) < tonumber(arg_rows) then
  redis.call('HSET', key_recorded, 'written', arg_written, 'written_rows', arg_rows, 'written_bytes', arg_bytes)
end
local removed = 0
for _, entry in ipairs(redis.call('XRANGE', key_outcomes, '-', '+', 'COUNT', arg_most)) do
  local ms = tonumber(string.match(entry[1], '^%d+'))
  if ms >= tonumber(arg_before) or (writes and is_behind(entry[1], arg_written)) then break end
  local found = {}
  for i = 1, #entry[2], 2 do found[entry[2][i]] = entry[2][i + 1] end
  redis.call('XDEL', key_outcomes, entry[1])
  redis.call('HSET', key_recorded, 'gone_rows', found.t, 'gone_bytes', found.b, 'since', string.format('%.0f', ms + 1))
  removed = removed + 1
end
if arg_former == '1' and redis.call('XLEN', key_outcomes) == 0 then redis.call('UNLINK', key_outcomes) end
return removed
