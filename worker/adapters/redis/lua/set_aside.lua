#!lua flags=allow-oom
-- Writes down up to which entry a trigger wants nothing of its stream, and counts these entries, a part of them at a time.
--
-- KEYS[1] lease  [2] orphans  [3] the stream
-- ARGV[1] token  [2] `lane|trigger|SCOPE`  [3] id of the last entry that is not wanted; nor is any before it  [4] how many are counted at most
--
-- Returns 0 if somebody else holds the lease, 1 if all are counted, 2 if there may be more.
--@include _ids

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local known, last, most = redis.call('HGET', KEYS[2], ARGV[2]), ARGV[3], tonumber(ARGV[4])
if known and not is_behind(last, known) then return 1 end
local rows = redis.call('XRANGE', KEYS[3], known and '(' .. known or '-', last, 'COUNT', most)
if #rows > 0 then
  redis.call('HSET', KEYS[2], ARGV[2], rows[#rows][1])
  redis.call('HINCRBY', KEYS[2], ARGV[2] .. '|n', #rows)
end
return #rows == most and 2 or 1
