#!lua flags=allow-oom
-- Opens the notes of a holder that vanished: their requests may still take effect until the end written here, once.
--
-- KEYS[1] lease  [2] notes  [3] open  [4..] ledgers of the profiles in the notes
-- ARGV[1] token  [2] for how long, ms  [3] retention of a ledger, ms  [4] n, the number of notes; n note ids; then a ledger per key
--
-- Returns the end (ms), or 0 if somebody else holds the lease.
--@include _clock

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local till = string.format('%.0f', now + tonumber(ARGV[2]))
local n, fresh = tonumber(ARGV[4]), 0
for i = 5, 4 + n do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then fresh = fresh + redis.call('HSETNX', KEYS[3], ARGV[i], till) end
end
if fresh > 0 then
  for i = 4, #KEYS do redis.call('SET', KEYS[i], ARGV[n + 1 + i], 'PX', ARGV[3]) end
end
return tonumber(till)
