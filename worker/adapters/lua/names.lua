#!lua flags=allow-oom
-- Numbers names, once and for ever.
-- KEYS[1] names   ARGV: the names
-- Returns their numbers, from 1, in the same order.

local numbers = {}
for i, name in ipairs(ARGV) do
  local number = redis.call('HGET', KEYS[1], name)
  if not number then
    number = redis.call('HLEN', KEYS[1]) + 1
    redis.call('HSET', KEYS[1], name, number)
  end
  numbers[i] = tonumber(number)
end
return numbers
