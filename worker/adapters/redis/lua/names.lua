#!lua flags=allow-oom
-- Numbers names. What was given once is never given to another name.
--
-- KEYS[1] names  [2] numbered: the last number that was given, and by which process of Redis
-- ARGV: the names
--
-- A failover can lose the last numbers that were given, while ledgers and workers hold them. The process of Redis is another
-- one then, and goes on far beyond.
-- Returns their numbers, from 1, in the same order.

local MOST_VALUES = 4000
local SKIPPED = 1000
local last
local function begin()
  local known = redis.call('HMGET', KEYS[2], 'last', 'process')
  last = tonumber(known[1] or 0)
  for _, number in ipairs(redis.call('HVALS', KEYS[1])) do last = math.max(last, tonumber(number)) end
  local info = redis.pcall('INFO', 'server')
  local process = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
  if last > 0 and known[2] ~= process then last = last + SKIPPED end
  redis.call('HSET', KEYS[2], 'process', process)
end

local numbers, given, fresh = {}, {}, {}
for first = 1, #ARGV, MOST_VALUES do
  local known = redis.call('HMGET', KEYS[1], unpack(ARGV, first, math.min(first + MOST_VALUES - 1, #ARGV)))
  for i, number in ipairs(known) do
    local name = ARGV[first + i - 1]
    number = number or given[name]
    if not number then
      if not last then begin() end
      last = last + 1
      number, given[name] = last, last
      fresh[#fresh + 1], fresh[#fresh + 2] = name, last
    end
    numbers[first + i - 1] = tonumber(number)
  end
end
for i = 1, #fresh, 2 do redis.call('HSET', KEYS[1], fresh[i], fresh[i + 1]) end
if last then redis.call('HSET', KEYS[2], 'last', last) end
return numbers
