#!lua flags=allow-oom
-- Removes letters that have come to another destination, with their counts; or lets them leave for another partition.
--
-- KEYS[1] lease  [2] counts  [3] letters  [4] dead_letter_times  [5] causes  [6] letters on their way; without it, they are gone
-- ARGV[1] token  then per letter: id, cause, stream in which it died, reason
--
-- Returns 1, or 0 if somebody else holds the lease.
--@include _outcomes

local PER_LETTER = 4
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, PER_LETTER do
  local id, cause, name, reason = unpack(ARGV, i, i + PER_LETTER - 1)
  local text = KEYS[6] and redis.call('HGET', KEYS[3], id)
  if redis.call('HDEL', KEYS[3], id) == 1 then
    if text then redis.call('HSET', KEYS[6], id, text) end
    redis.call('ZREM', KEYS[4], id)
    if redis.call('HINCRBY', KEYS[5], cause .. '|n', -1) <= 0 then redis.call('HDEL', KEYS[5], cause, cause .. '|n') end
    count_outcome(KEYS[2], 'accepted', '', name, -1)
    count_outcome(KEYS[2], 'dead', reason, name, -1)
  end
end
return 1
