#!lua flags=allow-oom
-- Ends the change of a stable id: from now on it is known under the new identity, or the other one is remembered as refused.
--
-- KEYS[1] changes  [2] changed  [3] record, see stable_seen.lua  [4] lease
-- ARGV[1] digest of the stable id (hex)  [2] the change as it was found  [3] `renamed`, `refused`, or `left`: others have the former one  [4] digests (hex) of the former
--   identity  [5] and of the new one  [6] for how long a record is kept, ms, where there is none any more
--
-- Returns 1, or 0 if it is another change by now, or none: somebody else has ended it.
--@include _clock

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
local _, time, _, new = string.match(ARGV[2], '^([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
local known, changes, since, refused, key = string.match(redis.call('GET', KEYS[3]) or '', '^(%d+) (%d+) (%d+) (%S+) (.*)$')
local at = string.format('%.0f', now)
local is_late = ARGV[3] == 'left' and key == new
local outcome = ARGV[3] == 'renamed' and 'renamed' or 'refused'
if not is_late then redis.call('HINCRBY', KEYS[2], outcome, 1) end
if not is_late and outcome == 'refused' then redis.call('HSET', KEYS[2], 'refused_ms', at) end
local function keep(...)
  local text = table.concat({...}, ' ')
  if known then redis.call('SET', KEYS[3], text, 'KEEPTTL') else redis.call('SET', KEYS[3], text, 'PX', ARGV[6]) end
end
if outcome == 'renamed' then
  keep(known and known > time and known or time, changes or '1', since or at, '-', new)
elseif known then
  local other = key == new and ARGV[4] or ARGV[5]
  keep(known, changes, since, is_late and '<' .. other or other, key)
end
return 1
