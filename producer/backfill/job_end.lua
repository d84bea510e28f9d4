#!lua flags=allow-oom
-- Lets a job that is over be forgotten: from now on nothing that its readers may still write is accepted, see `job_forget.lua`.
--
-- KEYS[1] job
-- ARGV[1] its specification as the caller knows it   ARGV[2] only if it ended before this time (ms, "" = whenever that was)
-- ARGV[3] only until this time (ms, "" = whenever this is)
-- Returns the epoch to which its partitions are closed; 0 = it is not over, or is another job by now.
--@include _lock

local spec, phase, moved = unpack(redis.call('HMGET', KEYS[1], 'spec', 'phase', 'moved'))
if spec ~= ARGV[1] or (phase ~= 'read' and phase ~= 'aborted') or lock_left(KEYS[1]) > 0 then return 0 end
if ARGV[3] ~= '' and now > tonumber(ARGV[3]) then return 0 end
if ARGV[2] ~= '' and tonumber(moved) >= tonumber(ARGV[2]) then return 0 end
return tonumber(lock_new_epoch(KEYS[1]))
