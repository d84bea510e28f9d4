#!lua flags=allow-oom
-- Adds what a receiver has answered. KEYS[1] receiver
-- ARGV[1] host and process  [2] lag (ms); -1 = it ends  [3] 1 = events came  [4] bucket (ms)
--   [5] buckets kept  [6] how long a receiver that reports nothing counts as running (ms)
--   [7] the clock of its machine (ms)  [8] its configuration  [9] for how long it has run (ms);
--   status, count, and the part of it since a request was last taken …
--@include _clock
local bucket = math.floor(now / tonumber(ARGV[4]))
local before = tonumber(redis.call('HGET', KEYS[1], 'seen') or '0')
if now - before > tonumber(ARGV[6]) then
  redis.call('HSET', KEYS[1], 'back', string.format('%.0f', now))
end
redis.call('HSET', KEYS[1], 'seen', string.format('%.0f', now))
local up = 'up|' .. ARGV[1]
if ARGV[2] == '-1' then redis.call('HDEL', KEYS[1], up)
else
  local ahead, begun = tonumber(ARGV[7]) - now, now - tonumber(ARGV[9])
  local report = string.format('%.0f|%s|%.0f|%.0f|%s', now, ARGV[2], ahead, begun, ARGV[8])
  redis.call('HSET', KEYS[1], up, report)
end
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'event', string.format('%.0f', now)) end
local is_taken = false
for at = 10, #ARGV, 3 do
  is_taken = is_taken or ARGV[at] == '200'
  redis.call('HSET', KEYS[1], 'last|' .. ARGV[at], string.format('%.0f', now))
  redis.call('HINCRBY', KEYS[1], string.format('%.0f', bucket) .. '|' .. ARGV[at], ARGV[at + 1])
  redis.call('HINCRBY', KEYS[1], 'all|' .. ARGV[at], ARGV[at + 1])
end
if is_taken then redis.call('HSET', KEYS[1], 'taken', string.format('%.0f', now)) end
local oldest = bucket - tonumber(ARGV[5])
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local of = tonumber(fields[at]:match('^(%d+)|'))
  local seen = fields[at]:match('^up|') and tonumber(fields[at + 1]:match('^%d+'))
  if (is_taken and fields[at]:match('^since|')) or (of and of < oldest)
    or (seen and seen < now - 3600000) then
    redis.call('HDEL', KEYS[1], fields[at])
  end
end
for at = 10, #ARGV, 3 do
  if ARGV[at + 2] ~= '0' then
    redis.call('HINCRBY', KEYS[1], 'since|' .. ARGV[at], ARGV[at + 2])
  end
end
