#!lua flags=allow-oom
-- Registers the destinations of a configuration, or says why one is refused: a name is the id of its destination for good. So two
-- processes that start with an old and a new configuration at the same moment are decided here.
--
-- KEYS[1] destinations
-- ARGV[1] `register`: these are all that the configuration names; `look`: the same, and nothing is written; `confirm`: a person says
--     that these are what the configuration says, whatever is known
--     then per destination: its name; its address, "" = not known; its authorization's name; the fingerprint of its credentials, "" = not
--     known
--
-- Returns per destination "", or the known name that it would take over: its own, if that has another address or authorization. Another
-- fingerprint alone is a credential that was renewed.

local how, urls, authorizations, fingerprints, stays = ARGV[1], {}, {}, {}, {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local name = stored[i]
  urls[name], authorizations[name], fingerprints[name] = string.match(stored[i + 1], '^(%S*) (%S*) (%S*)$')
end

local function is_known_with(name, url, authorization)
  return urls[name] == '' or (urls[name] == url and authorizations[name] == authorization)
end

for i = 2, #ARGV, 4 do stays[ARGV[i]] = is_known_with(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end

-- The name of a destination that left its address and authorization, which this one has.
local function former_name(url, authorization, fingerprint)
  local found = ''
  for name in pairs(urls) do
    local other = fingerprints[name]
    local has_its = authorizations[name] == authorization or other == fingerprint or other == '' or fingerprint == ''
    if not stays[name] and urls[name] == url and has_its and (found == '' or name < found) then found = name end
  end
  return found
end

local answer = {}
for i = 2, #ARGV, 4 do
  local name, url, authorization, fingerprint = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local known_as = ''
  if how ~= 'confirm' and not stays[name] then
    known_as = urls[name] and name or former_name(url, authorization, fingerprint)
  end
  if how ~= 'look' and known_as == '' and not (stays[name] and fingerprint == '') then
    redis.call('HSET', KEYS[1], name, url .. ' ' .. authorization .. ' ' .. fingerprint)
  end
  answer[#answer + 1] = known_as
end
return answer
