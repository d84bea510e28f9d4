#!lua flags=allow-oom
-- Remembers which stable ids came with identities.
--
-- KEYS[1] lease  [2..] lists, one per sighting
-- ARGV[1] for how long a list is kept, ms  [2] per sighting: digest of the stable id (20 hex digits), and 1 = kept without an end, else 0
--
-- Of an identity that many have in common, the first ones are enough to show it.
-- Returns 1.

local MOST, DIGITS = 8, 20
for i = 2, #KEYS do
  local at = (DIGITS + 1) * (i - 2) + 1
  local stable, lasts = string.sub(ARGV[2], at, at + DIGITS - 1), string.sub(ARGV[2], at + DIGITS, at + DIGITS) == '1'
  local text = redis.call('GET', KEYS[i]) or ''
  local is_known = string.find(text, stable, 1, true)
  if not is_known and #text < MOST * (#stable + 1) then
    text = text == '' and stable or text .. ' ' .. stable
    redis.call('SET', KEYS[i], text)
  end
  if lasts then redis.call('PERSIST', KEYS[i])
  elseif text == stable then redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
end
return 1
