#!lua flags=no-writes
-- Reads what waits in one partition, at one moment.
--
-- KEYS[1] streams  [2] open  [3] letters
-- ARGV[1] the keys' tag
--
-- Returns {now (ms), number of intents in doubt, number of letters, name, length and first id of each stream …}.
--@include _clock

local open = 0
for _, till in ipairs(redis.call('HVALS', KEYS[2])) do
  if tonumber(till) > now then open = open + 1 end
end
local answer = {now, open, redis.call('HLEN', KEYS[3])}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local stream = ARGV[1] .. 's:' .. name
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  answer[#answer + 1] = name
  answer[#answer + 1] = redis.call('XLEN', stream)
  answer[#answer + 1] = first and first[1] or ''
end
return answer
