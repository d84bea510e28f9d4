#!lua flags=allow-oom
-- Shuts a partition of a destination that has the address of another one, so that nobody drains it, or ends that.
--
-- KEYS[1] lease
-- ARGV[1] the token, `renamed-from:OLD`; "" = it may be drained  [2] for how long, ms  [3] owner, for people
--
-- Returns 1, or 0 if somebody drains it.
--@include _clock
--@include _lock

local is_shut = string.find(redis.call('HGET', KEYS[1], 'token') or '', '^renamed%-from:')
if ARGV[1] == '' then
  if is_shut then lock_free(KEYS[1]) end
  return 1
end
if lock_left(KEYS[1]) > 0 and not is_shut then return 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])), 'length', ARGV[2],
  'owner', ARGV[3])
return 1
