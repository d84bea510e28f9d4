#!lua flags=allow-oom
-- Forgets an identity in the record of a stable id.
--
-- KEYS[1] the record, see stable_seen.lua  [2] lease
-- ARGV[1] digest of the identity (hex)  [2..] keys of the profile
--
-- Returns 1 if the record is gone, 2 if the identity was only refused in it, else 0.

local time, changes, since, refused, key = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+) (%d+) (%S+) (.*)$')
if not time then return 0 end
for i = 2, #ARGV do
  if key == ARGV[i] then return redis.call('DEL', KEYS[1]) end
end
if refused ~= ARGV[1] and refused ~= '<' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], table.concat({time, changes, since, '-', key}, ' '), 'KEEPTTL')
return 2
