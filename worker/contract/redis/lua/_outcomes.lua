-- The fields of `counts` that say what became of the deliveries of a stream `lane|trigger`; `keys.outcome_field` builds the same.

local function job_of(name) return string.match(name, '^job%.([^|]+)|') end

local function outcome_field(kind, name)
  local lane, trigger = string.match(name, '^([^|]*)|(.*)$')
  return (lane == 'live' and '' or 'backfill.') .. kind .. '|' .. trigger
end

-- Adds to the count of a stream and to that of its job. Without a reason, pass ''.
local function count_outcome(counts, kind, reason, name, amount)
  local suffix, job = reason ~= '' and '|' .. reason or '', job_of(name)
  redis.call('HINCRBY', counts, outcome_field(kind, name) .. suffix, amount)
  if not job then return end
  redis.call('HINCRBY', counts, 'job|' .. job .. '|' .. kind, amount)
  if reason ~= '' then redis.call('HINCRBY', counts, 'job|' .. job .. '|' .. kind .. suffix, amount) end
end
