--@include _ids

-- told_from(first): the names that stand in ARGV from there on, and the scopes of triggers, which stand there as `trigger|SCOPE`.
local function told_from(first)
  local paused, scopes = {}, {}
  for i = first, #ARGV do
    local trigger, scope = string.match(ARGV[i], '^(.*)|(.*)$')
    if trigger then scopes[trigger] = scope else paused[ARGV[i]] = true end
  end
  return paused, scopes
end

-- due(streams, retry, holds, orphans, tag, paused, scopes, now, longest): 1 if a stream of the live lane has work that may be done now, 3 if only others have,
-- 0 if none has: what the wake-up says.
-- A stream is due if it is not empty, its trigger neither waits nor is paused, nor is its lane (a job's), and not all of it is on hold
-- or unwanted by a trigger of this scope.
-- A wait or a hold that ends later than in `longest` (ms) was set before Redis' clock was set back: it has ended.
local function due(streams, retry, holds, orphans, tag, paused, scopes, now, longest)
  local function is_ahead(till) return till > now and till <= now + longest end
  local found, any_orphans = 0, redis.call('EXISTS', orphans) == 1
  for _, name in ipairs(redis.call('SMEMBERS', streams)) do
    local lane, trigger = string.match(name, '^([^|]*)|(.*)$')
    local live = lane == 'live'
    if not paused[trigger] and not paused[lane] and (live or found == 0) then
      local wait = redis.call('HGET', retry, trigger)
      if not wait or not is_ahead(cjson.decode(wait)[2]) then
        local hold = redis.call('HGET', holds, name)
        local after = any_orphans and scopes[trigger] and redis.call('HGET', orphans, name .. '|' .. scopes[trigger])
        if hold then
          local id, till = string.match(hold, '^(%S+) (%d+)$')
          if is_ahead(tonumber(till)) and not (after and is_behind(after, id)) then after = id end
        end
        if #redis.call('XRANGE', tag .. 's:' .. name, after and '(' .. after or '-', '+', 'COUNT', 1) > 0 then
          if live then return 1 end
          found = 3
        end
      end
    end
  end
  return found
end
