#!lua flags=allow-oom
-- Takes back what waits in one stream: these entries, or all of it at once. XDEL decides: what a drain has settled is not counted.
--
-- KEYS[1] counts  [2] streams  [3] aside  [4] holds  [5] the stream  [6] orphans  [7] lease
-- ARGV[1] the stream's name `lane|trigger`  then the entries' ids; none = all
--
-- Returns how many were taken back; -1 if the number of partitions has changed.
--@include _orphans
--@include _outcomes
--@include _renumbered

if is_renumbered(KEYS[7]) then return -1 end
local name = ARGV[1]
local taken, ids = 0, {}
if #ARGV == 1 then
  taken = redis.call('XLEN', KEYS[5])
  redis.call('UNLINK', KEYS[5])
  count_down(KEYS[6], name)
  for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
    if string.sub(field, 1, #name + 1) == name .. '|' then redis.call('HDEL', KEYS[3], field) end
  end
else
  for i = 2, #ARGV do
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
