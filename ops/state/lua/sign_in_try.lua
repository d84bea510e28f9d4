#!lua flags=allow-oom
-- Counts a try to sign in at the console before it is judged, unless there were too many: so many at once count as many.
--
-- KEYS[1] the tries of a name from an address  [2] all tries from that address
-- ARGV[1] the most of the first  [2] the most of the second  [3] how long they count, ms
--
-- Returns 0, or the milliseconds until the next try is allowed.

for i = 1, 2 do
  if tonumber(redis.call('GET', KEYS[i]) or 0) >= tonumber(ARGV[i]) then
    return math.max(1, redis.call('PTTL', KEYS[i]))
  end
end
for i = 1, 2 do
  if redis.call('INCR', KEYS[i]) == 1 then redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
end
return 0
