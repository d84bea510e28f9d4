#!lua flags=allow-oom
-- Forgets what a partition knows of a job that is over, and closes the partition to what its readers may still write.
--
-- KEYS: of the partition; its streams of the job, of which those that are empty go.
-- ARGV: the job; the epoch from which on writing is allowed, see `job_end.lua` ("" = this only looks, and changes nothing);
--   only until this time (ms, "" = whenever this is).
-- Returns 1; 0 if some of its deliveries wait or are dead: then nothing changes.
--@keys counts jobs lease stream...
--@args job epoch until_ms
--@include _clock

if arg_until_ms ~= '' and now > tonumber(arg_until_ms) then return 0 end
local prefix = 'job|' .. arg_job .. '|'
local open = 0
local function counted(kind) return tonumber(redis.call('HGET', key_counts, prefix .. kind) or 0) end
for _, kind in ipairs({'delivered', 'skipped', 'discarded'}) do open = open - counted(kind) end
if counted('dead') ~= 0 or open + counted('accepted') ~= 0 then return 0 end
if arg_epoch == '' then return 1 end

for _, field in ipairs(redis.call('HKEYS', key_counts)) do
  if string.sub(field, 1, #prefix) == prefix then redis.call('HDEL', key_counts, field) end
end
-- No id is given again that was in one of them: a late settlement would meet a new entry.
local floor
for i = 1, n_stream do
  local stream = KEYS[at_stream + i]
  if redis.call('EXISTS', stream) == 1 and redis.call('XLEN', stream) == 0 then
    local told = redis.call('XINFO', 'STREAM', stream)
    for at = 1, #told, 2 do
      if told[at] == 'last-generated-id' then floor = math.max(floor or now, tonumber(string.match(told[at + 1], '^%d+'))) end
    end
    redis.call('UNLINK', stream)
  end
end
if floor then
  floor = math.max(floor, tonumber(redis.call('HGET', key_lease, 'floor') or 0))
  redis.call('HSET', key_lease, 'floor', string.format('%.0f', floor))
end
redis.call('HDEL', key_jobs, arg_job, arg_job .. '|chunk')
local closed = arg_job .. '|epoch'
if tonumber(redis.call('HGET', key_jobs, closed) or 0) < tonumber(arg_epoch) then redis.call('HSET', key_jobs, closed, arg_epoch) end
return 1
