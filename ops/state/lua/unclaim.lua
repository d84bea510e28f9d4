#!lua flags=allow-oom
-- Takes a stable id out of the list of those that came with an identity.
--
-- KEYS[1] the list  [2] lease
-- ARGV[1] digest of the stable id (hex)
--
-- Returns 1.

local left = {}
for stable in string.gmatch(redis.call('GET', KEYS[1]) or '', '%S+') do
  if stable ~= ARGV[1] then left[#left + 1] = stable end
end
if #left == 0 then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], table.concat(left, ' '), 'KEEPTTL') end
return 1
