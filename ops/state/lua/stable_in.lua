#!lua flags=allow-oom
-- Adds what is known of stable ids, which comes from another partition, once.
--
-- KEYS[1] lease  [2] changes  [3] carried  [4..] records, see stable_seen.lua
-- ARGV[1] token  then per record: its mark in `carried`, the digest (hex) of the stable id, the text, for how long it is kept (ms; 0 = without
--   an end), the digest (hex) of its identity, and 1 = its change waits there and follows, so that this record holds
--
-- If there is a record with another identity, because events came here before, the earlier identity changes to the later one, as if both
-- had come here. What has a change that waits here does not come, and gets no mark: it comes once that is done.
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end

local function write(record, text, kept)
  if kept == '0' then redis.call('SET', record, text) else redis.call('SET', record, text, 'PX', kept) end
end

local function arrive(record, stable, text, kept, identity, follows)
  local known = redis.call('GET', record)
  if not known or follows == '1' then return write(record, text, kept) end
  local time, _, _, _, key = string.match(text, '^(%d+) (%d+) (%d+) (%S+) (.*)$')
  local known_time, _, _, refused, known_key = string.match(known, '^(%d+) (%d+) (%d+) (%S+) (.*)$')
  if key == known_key then
    if time > known_time then write(record, text, kept) end
  elseif refused ~= identity then
    local is_newer = time > known_time
    local change = is_newer and {'', time, known_key, key} or {'', known_time, key, known_key}
    redis.call('HSET', KEYS[2], stable, table.concat(change, '\n'))
  end
end

for i = 4, #KEYS do
  local at = 6 * (i - 4) + 2
  local mark, stable = ARGV[at], ARGV[at + 1]
  local is_there = redis.call('HEXISTS', KEYS[3], mark) == 1
  if not is_there and redis.call('HEXISTS', KEYS[2], stable) == 0 then
    arrive(KEYS[i], stable, unpack(ARGV, at + 2, at + 5))
    redis.call('HSET', KEYS[3], mark, '1')
  end
end
return 1
