#!lua flags=allow-oom
-- Keeps that a certificate is gone.
-- KEYS[1] lost
-- ARGV[1] the certificate, with @NODE if it was that of one node  [2] last seen (ms)  [3] now (ms)
return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2] .. '|' .. ARGV[3])
