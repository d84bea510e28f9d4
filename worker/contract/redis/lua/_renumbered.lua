-- is_renumbered(lease): whether the number of partitions has changed, or is being changed, so that nobody reads this partition any more.
-- is_left(lease): whether that is so, or the destination has another name.
local function is_renumbered(lease) return string.find(redis.call('HGET', lease, 'token') or '', '^renumbered:') end
local function is_left(lease) return is_renumbered(lease) or string.find(redis.call('HGET', lease, 'token') or '', '^renamed:') end
