-- Who watches by `segrelay tap`, in one hash: by id the filter (JSON), and by `id|until` when the watch lapses (ms), `id|left` how much
-- was left out of what it wanted, and `id|sent` how many records stand, or stood, in its stream.
--@include _clock

-- tap_lasts(key, id, lapse): the watch is there and has not lapsed. One that ends later than it can have been renewed has lapsed: the
-- clock was set back since.
local function tap_lasts(key, id, lapse)
  local till = tonumber(redis.call('HGET', key, id .. '|until'))
  return till and till > now and till <= now + lapse
end
