#!lua flags=allow-oom
-- Lets letters leave for another identity, with their counts.
--
-- KEYS[1] lease  [2] counts  [3] letters  [4] dead_letter_times  [5] causes  [6] letters on their way
-- ARGV[1] token  then per letter: id, cause, stream in which it died, reason, digest of its person (hex)
--
-- A letter that belongs to somebody else by now stays: within a partition it keeps its id when its person is renamed.
-- Returns 1, or 0 if somebody else holds the lease.
--@include _outcomes

local PER_LETTER = 5
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, PER_LETTER do
  local id, cause, name, reason, digest = unpack(ARGV, i, i + PER_LETTER - 1)
  local text = redis.call('HGET', KEYS[3], id)
  if text and string.find(text, digest, 1, true) then
    redis.call('HDEL', KEYS[3], id)
    redis.call('HSET', KEYS[6], id, text)
    redis.call('ZREM', KEYS[4], id)
    if redis.call('HINCRBY', KEYS[5], cause .. '|n', -1) <= 0 then redis.call('HDEL', KEYS[5], cause, cause .. '|n') end
    count_outcome(KEYS[2], 'accepted', '', name, -1)
    count_outcome(KEYS[2], 'dead', reason, name, -1)
  end
end
return 1
