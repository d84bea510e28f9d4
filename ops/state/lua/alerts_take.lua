#!lua flags=allow-oom
-- Hands out the oldest message, if it is due and nobody else is sending it. A message whose fate nobody knows, because the process
-- that took it was killed or got no answer, is handed out once more, and then dropped: nobody gets it a third time.
-- KEYS[1] the outbox: number → JSON  [2] what is known, with the lock of whoever sends
-- ARGV[1] token, another one each time  [2] for how long it is handed out (ms)
-- Returns {number, message as JSON, which try it is, epoch of the lock}, or nothing.
--@include _lock

local epoch = lock_take(KEYS[2], ARGV[1], ARGV[2])
if not epoch then return false end
local MOST_DOUBTS = 1
local numbers = redis.call('HKEYS', KEYS[1])
table.sort(numbers, function(a, b) return tonumber(a) < tonumber(b) end)
for _, number in ipairs(numbers) do
  local entry = cjson.decode(redis.call('HGET', KEYS[1], number))
  if entry.due > now then break end
  if entry.epoch then entry.doubts = (entry.doubts or 0) + 1 end
  if (entry.doubts or 0) <= MOST_DOUBTS then
    entry.epoch, entry.tries = epoch, entry.tries + 1
    redis.call('HSET', KEYS[1], number, cjson.encode(entry))
    return {number, cjson.encode(entry.message), entry.tries, epoch}
  end
  redis.call('HDEL', KEYS[1], number)
end
lock_renew(KEYS[2], 0)
return false
