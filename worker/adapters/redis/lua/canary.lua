#!lua flags=allow-oom
-- Which version of its template a trigger has, and how many deliveries of a canary are left.
--
-- KEYS[1]  segrelay:versions: trigger -> JSON, trigger|left -> number, trigger|out -> JSON of the
--          shares that drains have: owner -> {how many, until (ms)}
-- ARGV[1]  trigger
-- ARGV[2]  adopt: [3] version  [4] its JSON  [5] deliveries of the canary, 0 = none
--              -> {1 if it was not known before}
--          take: [3] how many are wanted  [4] owner  [5] for how long (ms)
--              -> {how many it gets, -1 = there is no canary; 1 if the canary is over}
--          give: [3] owner  [4] how many were used     -> {left; 1 if the canary is over}
--          finish: -> {1 if it was not finished before}
local key, trigger, what = KEYS[1], ARGV[1], ARGV[2]
local left_field, out_field = trigger .. '|left', trigger .. '|out'
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

if what == 'adopt' then
  local stored = redis.call('HGET', key, trigger)
  if stored and cjson.decode(stored).version == ARGV[3] then return {0} end
  redis.call('HSET', key, trigger, ARGV[4])
  redis.call('HDEL', key, left_field, out_field)
  if tonumber(ARGV[5]) > 0 then redis.call('HSET', key, left_field, ARGV[5]) end
  return {1}
end
if what == 'finish' then
  return {redis.call('HDEL', key, left_field, out_field) > 0 and 1 or 0}
end

local left = tonumber(redis.call('HGET', key, left_field) or -1)
if left < 0 then return {-1, 0} end
local out = {}
for owner, share in pairs(cjson.decode(redis.call('HGET', key, out_field) or '{}')) do
  if share[2] > now_ms then out[owner] = share end
end
local answer
if what == 'take' then
  answer = math.min(left, tonumber(ARGV[3]))
  left = left - answer
  if answer > 0 then out[ARGV[4]] = {answer, now_ms + tonumber(ARGV[5])} end
else
  local share = out[ARGV[3]]
  if share then left = left + math.max(0, share[1] - tonumber(ARGV[4])) end
  out[ARGV[3]] = nil
  answer = left
end
redis.call('HSET', key, left_field, left, out_field, cjson.encode(out))
return {answer, (left == 0 and next(out) == nil) and 1 or 0}
