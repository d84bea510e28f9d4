#!lua flags=no-writes
-- Adds up what is settled in one partition and what waits there.
--
-- KEYS[1] counts  [2] streams  [3] retry
-- ARGV[1] the keys' tag
--
-- Returns a flat list of names and numbers: `settled`; `job|NAME`: settled of a job; `delivered|TRIGGER` and
-- `dead|TRIGGER|REASON`; `skipped|TRIGGER|asserted`; `waits`: live; `waits|NAME`: of a job; `requests` that were answered or failed, and the
-- times that this took, `asked|n` and `asked|ms`, see `contract.outcomes`; `delayed|TRIGGER`: it waits after failures.

local found = {settled = 0, waits = 0, requests = 0}
local ends = {}
for _, kind in ipairs({'delivered', 'skipped', 'dead', 'discarded'}) do
  ends[kind], ends['backfill.' .. kind] = kind, kind
end
local counts = redis.call('HGETALL', KEYS[1])
for at = 1, #counts, 2 do
  local field, count = counts[at], tonumber(counts[at + 1])
  local kind, rest = field:match('^([^|]*)|(.*)$')
  if kind == 'job' then
    local name, what = rest:match('^([^|]*)|([^|]*)$') -- not those of a single reason
    if ends[what] then found['job|' .. name] = (found['job|' .. name] or 0) + count end
  elseif kind == 'answered' then
    found.requests = found.requests + count
  elseif kind == 'asked' then
    found[field] = count
  elseif ends[kind] then
    found.settled = found.settled + count
    local name = ends[kind] .. '|' .. rest
    local is_asserted = ends[kind] == 'skipped' and rest:match('|asserted$')
    if ends[kind] == 'delivered' or ends[kind] == 'dead' or is_asserted then found[name] = (found[name] or 0) + count end
  end
end
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local lane = name:match('^[^|]*')
  local job = lane:match('^job%.(.*)$')
  local field = job and ('waits|' .. job) or (lane == 'live' and 'waits')
  if field then found[field] = (found[field] or 0) + redis.call('XLEN', ARGV[1] .. 's:' .. name) end
end
for _, name in ipairs(redis.call('HKEYS', KEYS[3])) do found['delayed|' .. name] = 1 end
local answer = {}
for name, count in pairs(found) do
  answer[#answer + 1] = name
  answer[#answer + 1] = string.format('%.0f', count)
end
return answer
