#!lua flags=allow-oom
-- Gives an id to each destination that has none, unless it seems to be a known one under another name: then only a person can say
-- whether it is. So two processes that start with an old and a new configuration at the same moment are decided here.
--
-- KEYS[1] destinations
-- ARGV[1] `give`: these are all that the configuration names; `look`: the same, and nothing
--     is written; `new`: a person says that they are others than all that are known
--     then per destination: its name; its address: host, `|`, fingerprint of the credentials ("" = not known); the id that the caller
--     was given before ("" = none), which it keeps, whatever the destination is called by now
--
-- Returns per destination its id, "" = none, and then the known name.

local ids, addresses, taken, named = {}, {}, {}, {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local id, address = string.match(stored[i + 1], '^(%S+) (.*)$')
  ids[stored[i]], addresses[stored[i]], taken[id] = id, address, true
end
for i = 2, #ARGV, 3 do named[ARGV[i]] = true end

local function split(address) return string.match(address, '^(.*)|(.*)$') end

local function is_same(one, other)
  local host, credentials = split(one)
  local other_host, other_credentials = split(other)
  if not host or host ~= other_host then return false end
  return credentials == other_credentials or credentials == '' or other_credentials == ''
end

local function known_as(address)
  if ARGV[1] == 'new' then return false end
  local found = false
  for name in pairs(ids) do
    if not named[name] and is_same(address, addresses[name]) and (not found or name < found) then found = name end
  end
  return found
end

-- A Redis that came back empty gets the ids that processes work with.
local function new_id(name, given)
  local id, number = given ~= '' and not taken[given] and given or name, 1
  while taken[id] do
    number = number + 1
    id = name .. '~' .. number
  end
  taken[id] = true
  return id
end

local answer = {}
for i = 2, #ARGV, 3 do
  local name, address, given = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local goes_on = given ~= '' and taken[given] and ids[name] ~= given
  local known = not goes_on and not ids[name] and known_as(address)
  if not known and not goes_on then
    ids[name] = ids[name] or new_id(name, given)
    local before = addresses[name]
    -- A process without the secrets knows the host only, and takes nothing away.
    local is_less = address == '' or (string.sub(address, -1) == '|' and is_same(address, before or ''))
    if ARGV[1] ~= 'look' and (not before or (before ~= address and not is_less)) then
      redis.call('HSET', KEYS[1], name, ids[name] .. ' ' .. address)
    end
  end
  answer[#answer + 1] = known and '' or goes_on and given or ids[name]
  answer[#answer + 1] = known or ''
end
return answer
