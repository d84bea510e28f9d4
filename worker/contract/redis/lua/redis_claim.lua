#!lua flags=allow-oom
-- Writes to a new Redis what stays as it is from then on. Its protection is decided with its identity: whoever comes second finds both.
--
-- KEYS[1] protection  [2] identity  [3] format  [4] partitions
-- ARGV[1] the secret, sealed, of a process with a key; "" = it has none  [2] identity  [3] format  [4] partitions; only the secret of
-- whoever does no more than to look
--
-- Returns 1, or 0 if one of two processes has a key and the other has none; then nothing was written.
local known = redis.call('EXISTS', KEYS[1]) == 1
local is_used = redis.call('EXISTS', KEYS[2]) == 1
if (known or is_used) and known ~= (ARGV[1] ~= '') then return 0 end
if not known and ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1]) end
for i = 2, #ARGV do redis.call('SET', KEYS[i], ARGV[i], 'NX') end
return 1
