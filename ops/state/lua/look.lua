#!lua flags=no-writes
-- Reads what is counted in one partition, and what waits in it, at one moment.
--
-- KEYS[1] counts  [2] streams  [3] open  [4] letters  [5] orphans
-- ARGV[1] the keys' tag
--
-- Returns {now (ms), counts as a flat list, number of open notes, number of letters, orphans as a flat list, name, length and first id of each stream …}.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local open = 0
for _, till in ipairs(redis.call('HVALS', KEYS[3])) do
  if tonumber(till) > now then open = open + 1 end
end
local answer = {now, redis.call('HGETALL', KEYS[1]), open, redis.call('HLEN', KEYS[4]), redis.call('HGETALL', KEYS[5])}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local stream = ARGV[1] .. 's:' .. name
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  answer[#answer + 1] = name
  answer[#answer + 1] = redis.call('XLEN', stream)
  answer[#answer + 1] = first and first[1] or ''
end
return answer
