-- How fast requests may go; after `_gate`.

-- The lowest rate that a worker was given lately; `text` is this one's, which is remembered if the record is saved.
local function lowest_rate(text)
  local rate, kept, fresh = text + 0, {}, false
  local lowest = rate
  for mark, known, seen in string.gmatch(g.rates, '(([^@;]+)@(%d+))') do
    local other, age = known + 0, now - seen
    local keep = age >= 0 and age < (other == rate and policy.rates_fresh or policy.rates)
    if other == rate then fresh = keep end
    if keep then
      kept[#kept + 1] = mark
      lowest = math.min(lowest, other)
    end
  end
  if not fresh then
    kept[#kept + 1] = text .. '@' .. whole(now)
    g.rates = table.concat(kept, ';')
  end
  return lowest
end

-- The lowered limit; not below one a minute.
local function in_force_of(limit) return math.max(limit * factor_now() / WHOLE, math.min(limit, 1)) end

-- The microseconds between two send times of a limit, and how far behind its regular time a send time may lie.
-- They are 60 s / (limit - burst - 1) apart, where the burst may go at once, beyond the first; and so far that a minute holds no more
-- than the limit even if each send time is used up to `late` after its time.
local function spacing(limit)
  if limit < 1 then return math.ceil((policy.minute + policy.late) / limit), 0 end
  local burst = 0
  if limit >= policy.burst_from then burst = math.min(policy.burst_most, math.floor(limit * policy.burst_percent / 100)) end
  local regular = math.floor(limit) - burst
  local apart = math.ceil((policy.minute + policy.late) / regular)
  if regular > 1 then apart = math.max(apart, math.ceil(policy.minute / (regular - 1))) end
  return apart, burst * apart
end

-- The same of a limit as it is lowered now. Its send times may lie no further behind than those of the full one: a burst on top of what went
-- before would break the limit.
local function lowered_spacing(limit)
  local in_force = in_force_of(limit)
  local apart, behind = spacing(in_force)
  if in_force == limit then return apart, behind end
  local _, most = spacing(limit)
  return apart, math.min(behind, most)
end
