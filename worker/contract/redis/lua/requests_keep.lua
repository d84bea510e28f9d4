#!lua flags=allow-oom
-- Keeps what the receiver has answered. KEYS[1] requests
-- ARGV[1] how many are kept; id, status, accepted, quarantined, digests …
for at = 2, #ARGV, 5 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'id', ARGV[at], 'status', ARGV[at + 1],
    'accepted', ARGV[at + 2], 'quarantined', ARGV[at + 3], 'people', ARGV[at + 4])
end
