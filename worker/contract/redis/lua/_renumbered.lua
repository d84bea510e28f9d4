-- is_renumbered(lease): whether the number of partitions has changed, or is being changed, so that nobody reads this partition any more.
local function is_renumbered(lease) return string.find(redis.call('HGET', lease, 'token') or '', '^renumbered:') end
