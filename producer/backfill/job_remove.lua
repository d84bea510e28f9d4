#!lua flags=allow-oom
-- Removes the record of a job of which its partitions know nothing any more.
--
-- KEYS[1] job   KEYS[2] it was forgotten lately
-- ARGV[1] its specification as the caller knows it   ARGV[2] for how long nobody makes another one of that name, ms
-- Returns 1, also if it is gone already; 0 if it is another job by now.

if (redis.call('HGET', KEYS[1], 'spec') or ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
return 1
