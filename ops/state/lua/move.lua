#!lua
-- Moves waiting entries from a stream that nobody reads to that of another trigger.
-- The two may be of different destinations: a Redis cluster is refused at start, so slots don't matter.
--
-- KEYS[1] counts  [2] streams  [3] holds  [4] the stream  of the old place; [5] counts  [6] streams  [7] bell  [8] the stream  of the new one
-- ARGV[1] old name `lane|trigger`  [2] new name  then the entries' ids
--
-- Returns {moved, ring}: ring is 1 if the bell was silent. The job's counts stay, if both are of one destination and partition.

local job = string.match(ARGV[1], '^job%.([^|]+)|')
local moved = 0
for i = 3, #ARGV do
  local entry = redis.call('XRANGE', KEYS[4], ARGV[i], ARGV[i])[1]
  if entry and redis.call('XDEL', KEYS[4], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[8], '*', unpack(entry[2]))
    moved = moved + 1
  end
end
if moved == 0 then return {0, 0} end
if redis.call('XLEN', KEYS[4]) == 0 then
  redis.call('SREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
end
redis.call('SADD', KEYS[6], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'accepted|' .. string.match(ARGV[1], '|(.*)$'), -moved)
redis.call('HINCRBY', KEYS[5], 'accepted|' .. string.match(ARGV[2], '|(.*)$'), moved)
if job and KEYS[1] ~= KEYS[5] then
  redis.call('HINCRBY', KEYS[1], 'job|' .. job .. '|accepted', -moved)
  redis.call('HINCRBY', KEYS[5], 'job|' .. job .. '|accepted', moved)
end
local ring = 0
if redis.call('SET', KEYS[7], '1', 'NX') then ring = 1 end
return {moved, ring}
