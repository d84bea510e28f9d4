#!lua flags=allow-oom
-- Says what became of a message: it is sent or given up, or is to be tried again.
-- KEYS[1] the outbox: number → JSON  [2] what is known; `failing`: since when and why none is taken; and the lock
-- ARGV[1] number  [2] epoch of the lock  [3] in how long it is tried again (ms); -1 = it is done
--   [4] 1 = nobody knows whether it was taken  [5] why it was not taken; '' = it was
-- Returns 1, or 0 if somebody else has it now.
--@include _lock

if not lock_holds(KEYS[2], ARGV[2]) then return 0 end
local text = redis.call('HGET', KEYS[1], ARGV[1])
local entry = text and cjson.decode(text)
if not entry or entry.epoch ~= ARGV[2] then return 0 end
lock_renew(KEYS[2], 0)
if ARGV[5] == '' then redis.call('HDEL', KEYS[2], 'failing')
else
  local known = redis.call('HGET', KEYS[2], 'failing')
  local failing = known and cjson.decode(known) or {since_ms = now, tries = 0}
  failing.tries, failing.reason = failing.tries + 1, ARGV[5]
  redis.call('HSET', KEYS[2], 'failing', cjson.encode(failing))
end
if ARGV[3] == '-1' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 1
end
if ARGV[4] ~= '1' then entry.epoch = nil end
entry.due = now + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(entry))
return 1
