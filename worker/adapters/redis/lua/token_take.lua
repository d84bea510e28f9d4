#!lua flags=allow-oom
-- Says which token is in force, and gives one process the turn to ask for another one.
--
-- KEYS[1] token
-- ARGV[1] number of a token that was refused, or 0  [2] token of who asks  [3] how long a turn lasts, ms
--
-- Fields: sealed, number, good_until and renew (ms), unproven, refresh; the turn is the lock.
--
-- Returns {word, sealed, number, ms until it ends, ms until it should be renewed, unproven, epoch of the turn, the
-- sealed refresh token that came last}. The
-- word is `use`; `ask`: whoever asked has the turn, and may use the token meanwhile, if there is
-- one; `wait`: there is none, and another process has the turn; or `refused`: the token that came
-- in the place of a refused one was refused as well.
--@include _lock

local names = {'sealed', 'number', 'good_until', 'renew', 'unproven', 'refresh'}
local found = redis.call('HMGET', KEYS[1], unpack(names))
local sealed, number, ends, renew = found[1], found[2] or '0', tonumber(found[3] or 0), tonumber(found[4] or 0)
local unproven, is_taken = found[5] and 1 or 0, lock_left(KEYS[1]) > 0

if sealed and ARGV[1] ~= '0' and ARGV[1] == number then
  redis.call('HDEL', KEYS[1], 'sealed')
  redis.call('HSET', KEYS[1], 'unproven', '1')
  sealed = false
  if unproven == 1 then return {'refused', '', number, 0, 0, 1, '', ''} end
  unproven = 1
end
if sealed and ends <= now then sealed = false end

local function answer(word, turn)
  local refresh = found[6] or ''
  if not sealed then return {word, '', number, 0, 0, unproven, turn, refresh} end
  return {word, sealed, number, ends - now, renew - now, unproven, turn, refresh}
end

if sealed and (renew > now or is_taken) then return answer('use', '') end
if is_taken then return answer('wait', '') end
return answer('ask', lock_take(KEYS[1], ARGV[2], ARGV[3]))
