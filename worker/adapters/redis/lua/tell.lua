#!lua flags=allow-oom
-- Makes fingerprints of triggers the newest: what waits because of another one is due.
-- KEYS[1] fingerprints   ARGV: trigger, fingerprint, trigger, fingerprint, ...
for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
