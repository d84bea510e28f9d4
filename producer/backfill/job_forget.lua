#!lua flags=allow-oom
-- Forgets what a partition knows of a job that is over.
--
-- KEYS: of the partition. ARGV: the job.
-- Returns 1; 0 if some of its deliveries wait or are dead: then nothing changes.
--@keys counts jobs jobtimes
--@args job

local prefix = 'job|' .. arg_job .. '|'
local open = 0
local function counted(kind) return tonumber(redis.call('HGET', key_counts, prefix .. kind) or 0) end
for _, kind in ipairs({'delivered', 'skipped', 'discarded'}) do open = open - counted(kind) end
if counted('dead') ~= 0 or open + counted('accepted') ~= 0 then return 0 end

local function remove(key, start)
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, #start) == start then redis.call('HDEL', key, field) end
  end
end
remove(key_counts, prefix)
remove(key_jobtimes, arg_job .. '|')
redis.call('HDEL', key_jobs, arg_job, arg_job .. '|chunk', arg_job .. '|epoch')
return 1
