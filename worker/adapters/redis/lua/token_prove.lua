#!lua flags=allow-oom
-- Remembers that a request with a token was taken.
--
-- KEYS[1] token
-- ARGV[1] its number

if redis.call('HGET', KEYS[1], 'number') == ARGV[1] then redis.call('HDEL', KEYS[1], 'unproven') end
return redis.status_reply('OK')
