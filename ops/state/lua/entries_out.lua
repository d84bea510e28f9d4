#!lua flags=allow-oom
-- Removes entries that have come to another destination. XDEL decides what is counted.
--
-- KEYS[1] lease  [2] counts  [3] streams  [4] holds  [5] aside  [6] orphans  [7] the stream
-- ARGV[1] token  [2] the stream's name: `lane|trigger`  then the entries' ids
--
-- Returns how many were removed, or -1 if somebody else holds the lease.
--@include _orphans
--@include _outcomes

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end
local name, ids = ARGV[2], {}
for i = 3, #ARGV do
  if redis.call('XDEL', KEYS[7], ARGV[i]) == 1 then
    ids[#ids + 1] = ARGV[i]
    redis.call('HDEL', KEYS[5], name .. '|' .. ARGV[i])
  end
end
if #ids == 0 then return 0 end
count_down(KEYS[6], name, ids)
count_outcome(KEYS[2], 'accepted', '', name, -#ids)
if redis.call('XLEN', KEYS[7]) == 0 then
  redis.call('SREM', KEYS[3], name)
  redis.call('HDEL', KEYS[4], name)
end
return #ids
