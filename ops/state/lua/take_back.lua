#!lua flags=allow-oom
-- Takes back entries that wait in one stream. XDEL decides: what a drain has settled is not counted.
--
-- ARGV: the stream's name `lane|trigger`; the entries' ids; their rows for the outcome log, and the most bytes that are kept of it
--@keys lease counts streams aside holds waiting outcomes recorded
--@args name ids... ends...
--
-- Returns how many were taken back.
--@include _clock
--@include _outcomes
--@include _record

local name, count_taken, taken = arg_name, 0, {}
for i = 1, n_ids do
  local id = ARGV[at_ids + i]
  local gone = redis.call('XDEL', key_waiting, id)
  taken[i] = tostring(gone)
  if gone == 1 then
    count_taken = count_taken + 1
    redis.call('HDEL', key_aside, name .. '|' .. id)
  end
end
if redis.call('XLEN', key_waiting) == 0 then
  redis.call('SREM', key_streams, name)
  redis.call('HDEL', key_holds, name)
end
if count_taken > 0 then
  count_outcome(key_counts, 'discarded', '', name, count_taken)
  redis.call('HSET', key_lease, 'taken_back', string.format('%.0f', now)) -- tells `settle.lua` that entries of a group may be gone
end
record(ARGV[at_ends + 1], taken, ARGV[at_ends + 2])
return count_taken
