#!lua flags=allow-oom
-- Keeps a token that was issued, if the turn to ask for it is still held; or gives the turn back.
--
-- KEYS[1] token
-- ARGV[1] epoch of the turn  [2] the sealed token, "" = none came  [3] how long it is good, ms
--     [4] after which time it should be renewed, ms  [5] how long the key is kept afterwards, ms
--     [6] the sealed refresh token that came with it, "" = none  [7] the one that was given for it, "" = that of the configuration
--
-- Returns 1 if the turn was still held.
--@include _lock

-- The endpoint may take a refresh token once only: the next one is kept also by who stood still, unless there is another.
if ARGV[6] ~= '' and (redis.call('HGET', KEYS[1], 'refresh') or '') == ARGV[7] then
  redis.call('HSET', KEYS[1], 'refresh', ARGV[6])
  redis.call('PERSIST', KEYS[1])
end
if not lock_holds(KEYS[1], ARGV[1]) then return 0 end
lock_renew(KEYS[1], 0)
if ARGV[2] == '' then return 1 end
redis.call('HINCRBY', KEYS[1], 'number', 1)
redis.call('HSET', KEYS[1], 'sealed', ARGV[2], 'good_until', string.format('%d', now + ARGV[3]),
  'renew', string.format('%d', now + ARGV[4]))
if redis.call('HEXISTS', KEYS[1], 'refresh') == 1 then
  -- Without it nobody could ask for a token any more.
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], string.format('%d', ARGV[3] + ARGV[5]))
end
return 1
