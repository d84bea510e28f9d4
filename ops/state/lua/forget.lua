#!lua flags=allow-oom
-- Forgets a person in one partition: ledger, what `verify` chooses from, and the members that syncs know.
--
-- KEYS[1] lease  [2] ledger  [3] reached  [4] who  [5..] per sync its members
-- ARGV[1] token  [2] digest (hex)  [3..] fields of members
--
-- Returns {ledgers, of `verify`, members} that were there; {-1} if somebody else holds the lease: a drain would write the ledger anew.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return {-1} end
local members = 0
for i = 5, #KEYS do members = members + redis.call('HDEL', KEYS[i], unpack(ARGV, 3)) end
redis.call('ZREM', KEYS[3], ARGV[2])
return {redis.call('DEL', KEYS[2]), redis.call('HDEL', KEYS[4], ARGV[2]), members}
