#!lua flags=allow-oom
-- Opens the intents of a holder that vanished: their requests may still take effect until the end written here, once.
--
-- KEYS[1] lease  [2] intents  [3] open  [4..] ledgers of the profiles in the intents
-- ARGV[1] token  [2] for how long, ms  [3] retention of a ledger that may lapse, ms  [4] n, the number of intents; n intent ids; then per key
--     a ledger, and 1 if it never lapses, else 0
--
-- Returns the end (ms), or 0 if somebody else holds the lease.
--@include _clock
--@include _lapsing

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local till = string.format('%.0f', now + tonumber(ARGV[2]))
local n, fresh = tonumber(ARGV[4]), 0
for i = 5, 4 + n do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then fresh = fresh + redis.call('HSETNX', KEYS[3], ARGV[i], till) end
end
if fresh > 0 then
  for i = 4, #KEYS do
    local text, lasting = ARGV[n + 2 * i - 3], ARGV[n + 2 * i - 2] == '1'
    redis.call('SET', KEYS[i], lasting and text or lapsing(ARGV[3]) .. text)
  end
end
return tonumber(till)
