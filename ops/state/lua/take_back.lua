#!lua flags=allow-oom
-- Takes back what waits in one stream: these entries, or all of it at once. XDEL decides: what a drain has settled is not counted.
-- Of all, only what a person has counted: nothing that was added behind the last of it.
--
-- KEYS[1] counts  [2] streams  [3] aside  [4] holds  [5] the stream  [6] orphans  [7] lease
-- ARGV[1] the stream's name `lane|trigger`  [2] the last id to take; "" = none is too late  then the entries' ids; none = all
--
-- Returns how many were taken back; -1 if the number of partitions has changed.
--@include _orphans
--@include _outcomes
--@include _renumbered

if is_renumbered(KEYS[7]) then return -1 end
local name = ARGV[1]
local taken, ids = 0, {}
if #ARGV == 2 then
  local last = ARGV[2]
  local newer = last ~= '' and redis.call('XRANGE', KEYS[5], '(' .. last, '+', 'COUNT', 1)[1]
  if newer then
    taken = redis.call('XTRIM', KEYS[5], 'MINID', '=', newer[1])
  else
    taken = redis.call('XLEN', KEYS[5])
    redis.call('UNLINK', KEYS[5])
  end
  -- A worker looks anew at what stays: how many of those that went it had found unwanted is not known.
  count_down(KEYS[6], name)
  for _, entry in ipairs(redis.call('HKEYS', KEYS[3])) do
    local is_its = string.sub(entry, 1, #name + 1) == name .. '|'
    if is_its and not (newer and is_behind(string.sub(entry, #name + 2), last)) then
      redis.call('HDEL', KEYS[3], entry)
    end
  end
else
  for i = 3, #ARGV do
    if redis.call('XDEL', KEYS[5], ARGV[i]) == 1 then
      taken = taken + 1
      ids[taken] = ARGV[i]
      redis.call('HDEL', KEYS[3], name .. '|' .. ARGV[i])
    end
  end
  count_down(KEYS[6], name, ids)
end
if redis.call('XLEN', KEYS[5]) == 0 then
  redis.call('SREM', KEYS[2], name)
  redis.call('HDEL', KEYS[4], name)
end
if taken > 0 then count_outcome(KEYS[1], 'discarded', '', name, taken) end
return taken
