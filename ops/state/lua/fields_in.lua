#!lua flags=allow-oom
-- Adds fields of a hash, or members of a sorted set, that come from another destination; what is there stays.
--
-- KEYS[1] lease  [2] the hash or the sorted set
-- ARGV[1] token  [2] `hash`, `set` (sorted), or `positions`: of jobs, of which the later one holds; at the same one, the numbers of both
--     are known  [3] for how long it is kept (ms, "" = for ever)
--     then field and value, or member and score, of each; of positions: job, position, numbers of the events that were added there
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local kind, keep = ARGV[2], ARGV[3]
local function joined(...)
  local seen, all = {}, {}
  for _, numbers in ipairs({...}) do
    for number in string.gmatch(numbers, '[^,]+') do
      if not seen[number] then all[#all + 1] = tonumber(number) end
      seen[number] = true
    end
  end
  table.sort(all)
  return table.concat(all, ',')
end
if kind == 'positions' then
  for i = 4, #ARGV, 3 do
    local field, position, numbers = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local known = redis.call('HGET', KEYS[2], field)
    if string.find(field, '|epoch$') then
      if tonumber(known or 0) < tonumber(position) then redis.call('HSET', KEYS[2], field, position) end
    elseif not known or known < position then
      redis.call('HSET', KEYS[2], field, position, field .. '|chunk', numbers)
    elseif known == position then
      redis.call('HSET', KEYS[2], field .. '|chunk', joined(redis.call('HGET', KEYS[2], field .. '|chunk') or '', numbers))
    end
  end
else
  for i = 4, #ARGV, 2 do
    if kind == 'hash' then redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1])
    else redis.call('ZADD', KEYS[2], 'NX', ARGV[i + 1], ARGV[i]) end
  end
end
if keep ~= '' and redis.call('PTTL', KEYS[2]) < tonumber(keep) then redis.call('PEXPIRE', KEYS[2], keep) end
return 1
