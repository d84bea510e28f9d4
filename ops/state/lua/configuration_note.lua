#!lua flags=allow-oom
-- Remembers the configuration of a process that starts, and keeps a change of it as an act.
-- KEYS[1] configuration  [2] acts
-- ARGV[1] its digests, as JSON  [2] as they were when somebody looked; '' = there were none
--   [3] acts that are kept  [4] the act as JSON; '' = keep none
-- Returns 1, or 0 if another process was quicker.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
if ARGV[4] ~= '' then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'a', ARGV[4]) end
return 1
