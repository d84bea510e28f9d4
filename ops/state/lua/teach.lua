#!lua flags=allow-oom
-- Writes into the ledger what was delivered outside of a drain, by the holder of the lease.
--
-- KEYS[1] lease  [2] the profile's ledger
-- ARGV[1] token  [2] its text  [3] retention of a ledger, ms
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
