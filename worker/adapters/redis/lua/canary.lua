#!lua flags=allow-oom
-- Which version of its template a trigger has, and what is left of a canary.
--
-- KEYS[1]  {segrelay}:versions, by field:
--            trigger           JSON of the version (worker/contract/triggers.py)
--            trigger|left      how many deliveries of its canary nobody has a share of; none = no canary goes
--            trigger|out       JSON of the shares that drains have: owner -> {how many, until (ms)}
--            trigger|outcomes  JSON of how the canary's deliveries ended
--            trigger|proven    the version that was last let go without a limit
--            trigger|dropped   a version whose canary was not approved when another version came
--            trigger|approved  the version that a person has let go after its canary
--            trigger|edition   the edition of whoever adopted last: templates and configuration, see `LoadedTrigger.edition`
--            trigger|loads     the last ids of loads that adopted, each with a space behind it, the newest last
-- KEYS[2]  acts
-- ARGV[1]  trigger  [2] version of the process that asks
-- ARGV[3]  adopt: [4] JSON of the version  [5] deliveries of its canary, 0 = none  [6] the act as JSON
--              [7] acts that are kept  [8] the edition  [9] id of the load
--              -> {1 if it was not known before}; nothing is done if a later load has adopted meanwhile
--          load: [4] id of a load that has what is adopted already -> {0}
--          take: [4] owner  [5] for how long (ms)  [6] the least share  [7] of how many parts a share is one
--              -> {how many it gets, -1 = there is no limit, 0 = none now, -2 = none, its canary was
--                  dropped: adopt it again; 1 if the canary is over}
--          give: [4] owner  [5] JSON of outcomes  [6] how many these are
--              -> {1 if the canary is over}
--          finish: -> {1 if it was not finished before}
--
-- A version that is proven needs no canary: whoever puts the older template back wants it to go at once.
local MOST_LOADS = 500
local key, trigger, version, what = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local function get(name) return redis.call('HGET', key, trigger .. name) end
local function set(name, value) redis.call('HSET', key, trigger .. name, value) end
local function forget(...)
  local fields = {}
  for i, name in ipairs({...}) do fields[i] = trigger .. name end
  redis.call('HDEL', key, unpack(fields))
end
local stored = get('')
local is_current = stored and cjson.decode(stored).version == version

-- Remembers a load the first time; returns whether none has come since.
local function is_newest(id)
  local loads, load = get('|loads') or '', id .. ' '
  if string.sub(loads, -#load) == load then return true end
  if string.find(loads, load, 1, true) then return false end
  set('|loads', string.sub(loads .. load, -MOST_LOADS * #load))
  return true
end

if what == 'load' then
  is_newest(ARGV[4])
  return {0}
end
if what == 'adopt' then
  -- A process that is forked anew, or stood still, has what its node loaded once. It replaces nothing that was loaded since.
  if not is_newest(ARGV[9]) and get('|dropped') ~= version then return {0} end
  set('|edition', ARGV[8])
  if is_current then return {0} end
  local old = stored and cjson.decode(stored)
  if old and old.canary > 0 and get('|proven') ~= old.version and get('|approved') ~= old.version then
    set('|dropped', old.version)
  end
  if get('|dropped') == version then forget('|dropped') end
  forget('|left', '|out', '|outcomes', '|approved')
  set('', ARGV[4])
  if old then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[7], '*', 'a', ARGV[6]) end
  if ARGV[5] == '0' or get('|proven') == version then
    set('|proven', version)
  else
    set('|left', ARGV[5])
    set('|outcomes', '{}')
  end
  return {1}
end
if what == 'finish' then
  local was = is_current and get('|left')
  if was then forget('|left', '|out') end
  return {was and 1 or 0}
end

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local left = tonumber(get('|left') or -1)
if left < 0 then
  if what == 'take' and not is_current and get('|dropped') == version then return {-2, 0} end
  if is_current and get('|approved') == version then
    set('|proven', version)
    forget('|approved')
  end
  return what == 'take' and {-1, 0} or {0}
end
if not is_current then return what == 'take' and {0, 0} or {0} end
local out = {}
for owner, share in pairs(cjson.decode(get('|out') or '{}')) do
  if share[2] > now_ms then out[owner] = share end
end
local taken = 0
if what == 'take' then
  taken = math.min(left, math.max(tonumber(ARGV[6]), math.ceil(left / tonumber(ARGV[7]))))
  left = left - taken
  if taken > 0 then out[ARGV[4]] = {taken, now_ms + tonumber(ARGV[5])} end
elseif out[ARGV[4]] then
  left = left + math.max(0, out[ARGV[4]][1] - tonumber(ARGV[6]))
  out[ARGV[4]] = nil
  local outcomes = cjson.decode(get('|outcomes') or '{}')
  for name, count in pairs(cjson.decode(ARGV[5])) do outcomes[name] = (outcomes[name] or 0) + count end
  set('|outcomes', cjson.encode(outcomes))
end
set('|left', left)
set('|out', cjson.encode(out))
local is_over = (left == 0 and next(out) == nil) and 1 or 0
return what == 'take' and {taken, is_over} or {is_over}
