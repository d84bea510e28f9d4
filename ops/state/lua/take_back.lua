#!lua flags=allow-oom
-- Takes back what waits in one stream: these entries, or all of it at once. XDEL decides: what a drain has settled is not counted.
-- Of all, only what a person has counted: nothing that was added behind the last of it.
--
-- ARGV: the stream's name `lane|trigger`; the last id to take, "" = none is too late; the entries' ids, none = all; and where outcomes
-- are recorded, the rows of these entries, which have to be named then, and the most bytes that are kept
--@keys counts streams aside holds waiting orphans lease outcomes? recorded?
--@args name last ids... ends...
--
-- Returns how many were taken back; -1 if the number of partitions has changed.
--@include _orphans
--@include _outcomes
--@include _record
--@include _renumbered

if is_renumbered(key_lease) then return -1 end
local name, last, count_taken, ids, taken = arg_name, arg_last, 0, {}, {}
if n_ids == 0 then
  local newer = last ~= '' and redis.call('XRANGE', key_waiting, '(' .. last, '+', 'COUNT', 1)[1]
  if newer then
    count_taken = redis.call('XTRIM', key_waiting, 'MINID', '=', newer[1])
  else
    count_taken = redis.call('XLEN', key_waiting)
    redis.call('UNLINK', key_waiting)
  end
  -- A worker looks anew at what stays: how many of those that went it had found unwanted is not known.
  count_down(key_orphans, name)
  for _, entry in ipairs(redis.call('HKEYS', key_aside)) do
    local is_its = string.sub(entry, 1, #name + 1) == name .. '|'
    if is_its and not (newer and is_behind(string.sub(entry, #name + 2), last)) then
      redis.call('HDEL', key_aside, entry)
    end
  end
else
  for i = 1, n_ids do
    local id = ARGV[at_ids + i]
    local gone = redis.call('XDEL', key_waiting, id)
    taken[i] = tostring(gone)
    if gone == 1 then
      count_taken = count_taken + 1
      ids[count_taken] = id
      redis.call('HDEL', key_aside, name .. '|' .. id)
    end
  end
  count_down(key_orphans, name, ids)
end
if redis.call('XLEN', key_waiting) == 0 then
  redis.call('SREM', key_streams, name)
  redis.call('HDEL', key_holds, name)
end
if count_taken > 0 then count_outcome(key_counts, 'discarded', '', name, count_taken) end
if key_outcomes then record(ARGV[at_ends + 1], taken, ARGV[at_ends + 2]) end
return count_taken
