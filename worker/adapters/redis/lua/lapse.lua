#!lua flags=allow-oom
-- Removes the ledgers whose time is past, if nothing waits in their partition that may be older than what they tell.
--
-- An event is accepted if it is not older than the retention (or somebody insists). So what was accepted after a ledger has outlived
-- its retention is newer than everything in it; until no entry is left that was accepted before, the ledger stays. All streams count:
-- of paused triggers and jobs, of triggers that the configuration does not name, and what nobody wants.
--
-- KEYS[1] lease  [2] streams  [3..] ledgers
-- ARGV[1] the keys' tag
--
-- Returns how many were removed.
--@include _clock
--@include _lapsing

local past, ends = {}, {}
for i = 3, #KEYS do
  local at = lapses_at(KEYS[i])
  if at and at < now then past[#past + 1], ends[#ends + 1] = KEYS[i], at end
end
if #past == 0 then return 0 end

-- When the oldest entry that waits was accepted. An id tells it, unless the lease says that older ones have come since: see `_add`.
local oldest
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local entry = redis.call('XRANGE', ARGV[1] .. 's:' .. name, '-', '+', 'COUNT', 1)[1]
  local id = entry and tonumber(string.match(entry[1], '^%d+'))
  if id and (not oldest or id < oldest) then oldest = id end
end
local aged, till = unpack(redis.call('HMGET', KEYS[1], 'aged', 'aged_until'))
if aged and (not oldest or oldest > tonumber(till)) then
  redis.call('HDEL', KEYS[1], 'aged', 'aged_until')
elseif aged then
  oldest = math.min(oldest, tonumber(aged))
end
if not oldest or oldest > now then oldest = now end

local removed = 0
for i, key in ipairs(past) do
  if ends[i] < oldest then removed = removed + redis.call('UNLINK', key) end
end
return removed
