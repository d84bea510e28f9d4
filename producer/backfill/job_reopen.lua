#!lua flags=allow-oom
-- Forgets that a partition is closed to a job that was forgotten.
--
-- KEYS[1] jobs   ARGV: job and epoch, of each   (a later epoch stays: it is of another job of that name)

for i = 1, #ARGV, 2 do
  local field = ARGV[i] .. '|epoch'
  if redis.call('HGET', KEYS[1], field) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], field) end
end
return 1
