#!lua flags=allow-oom
-- Lets the events of one slug count for another from now on, and with them those of the slugs that counted for it.
--
-- KEYS[1] renamed
-- ARGV[1] the former slug  [2] the new one, which is nobody's former slug any more
--
-- Returns 1.

redis.call('HDEL', KEYS[1], ARGV[2])
local known = redis.call('HGETALL', KEYS[1])
for i = 1, #known, 2 do
  if known[i + 1] == ARGV[1] then redis.call('HSET', KEYS[1], known[i], ARGV[2]) end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
