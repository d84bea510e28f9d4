#!lua flags=allow-oom
-- Closes a partition to what earlier readers of jobs still write, which `accept.lua` refuses then; or forgets that it is closed.
--
-- KEYS[1] jobs
-- ARGV[1] 1 = close it, 0 = forget it   then job and epoch, of each: the one from which on writing is allowed
-- A later epoch stays: it is of a later reader, or of another job of that name.

for i = 2, #ARGV, 2 do
  local field, epoch = ARGV[i] .. '|epoch', ARGV[i + 1]
  local known = redis.call('HGET', KEYS[1], field)
  if ARGV[1] == '0' then
    if known == epoch then redis.call('HDEL', KEYS[1], field) end
  elseif tonumber(known or 0) < tonumber(epoch) then
    redis.call('HSET', KEYS[1], field, epoch)
  end
end
return 1
