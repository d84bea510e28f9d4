#!lua flags=allow-oom
-- Writes down which counts go to another destination: all but those of what waits, or lies dead, here. What was written down stays so.
--
-- KEYS[1] lease  [2] counts  [3] streams  [4] leaving  [5] jobtimes  [6] responseslost
-- ARGV[1] token  [2] the keys' tag  [3] an id
--
-- Returns the hash as a flat list, empty if nothing goes; 0 if somebody else holds the lease.
-- A field is `c|` and a count's, `t|` and one of the times of jobs, `l` for lost responses, `id`.
--@include _outcomes

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[4]) == 1 then return redis.call('HGETALL', KEYS[4]) end
local leaving = {}
local counts = redis.call('HGETALL', KEYS[2])
for i = 1, #counts, 2 do leaving['c|' .. counts[i]] = tonumber(counts[i + 1]) end
for _, name in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local waiting = redis.call('XLEN', ARGV[2] .. 's:' .. name)
  local field = 'c|' .. outcome_field('accepted', name)
  leaving[field] = (leaving[field] or 0) - waiting
  local job = job_of(name)
  if job then
    field = 'c|job|' .. job .. '|accepted'
    leaving[field] = (leaving[field] or 0) - waiting
  end
end
local times = redis.call('HGETALL', KEYS[5])
for i = 1, #times, 2 do leaving['t|' .. times[i]] = tonumber(times[i + 1]) end
leaving['l'] = tonumber(redis.call('GET', KEYS[6]) or 0)
local any = false
for field, count in pairs(leaving) do
  if count ~= 0 then
    redis.call('HSET', KEYS[4], field, string.format('%.0f', count))
    any = true
  end
end
if any then redis.call('HSET', KEYS[4], 'id', ARGV[3]) end
return redis.call('HGETALL', KEYS[4])
