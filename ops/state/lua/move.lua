#!lua flags=allow-oom
-- Moves waiting entries, which no worker delivers where they are, to the stream of another trigger of the same partition.
-- A worker with another configuration may be sending just these entries: nothing moves while it holds the lease.
--
-- KEYS[1] counts  [2] streams  [3] holds  [4] the stream  [5] aside  [6] lease  [7] orphans  [8] wakeup  [9] the other stream
-- ARGV[1] old name `lane|trigger`  [2] new name  [3] fingerprint of our configuration  then the entries' ids
--
-- Returns {moved, wake}: wake is 1 if nobody was woken yet; {-1, owner} if such a worker holds the lease.
-- The wakeup is 1 if it was woken live work, 3 for backfill.
--@include _add
--@include _orphans
--@include _outcomes

local clock = redis.call('TIME')
local lease = redis.call('HMGET', KEYS[6], 'until', 'owner', 'floor')
local owner = lease[2] or ''
if lease[1] and tonumber(lease[1]) > tonumber(clock[1]) * 1000 and string.match(owner, ' (.*)$') ~= ARGV[3] then return {-1, owner} end
local moved, ids = 0, {}
for i = 4, #ARGV do
  local entry = redis.call('XRANGE', KEYS[4], ARGV[i], ARGV[i])[1]
  if entry and redis.call('XDEL', KEYS[4], ARGV[i]) == 1 then
    note_id(add(KEYS[9], lease[3], unpack(entry[2])))
    note_header(entry[2][2])
    redis.call('HDEL', KEYS[5], ARGV[1] .. '|' .. ARGV[i])
    moved = moved + 1
    ids[moved] = ARGV[i]
  end
end
if moved == 0 then return {0, 0} end
write_age(KEYS[6])
count_down(KEYS[7], ARGV[1], ids)
if redis.call('XLEN', KEYS[4]) == 0 then
  redis.call('SREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
end
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('HINCRBY', KEYS[1], outcome_field('accepted', ARGV[1]), -moved)
redis.call('HINCRBY', KEYS[1], outcome_field('accepted', ARGV[2]), moved)
local wake, wakeup, live = 0, redis.call('GET', KEYS[8]), string.sub(ARGV[2], 1, 5) == 'live|'
if not wakeup or (live and wakeup == '3') then
  redis.call('SET', KEYS[8], live and '1' or '3')
  wake = 1
end
return {moved, wake}
