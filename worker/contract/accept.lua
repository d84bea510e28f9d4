#!lua
-- Adds deliveries to one partition: entries, their count, the job's position. All or nothing.
--
-- KEYS[1] counts   KEYS[2] streams   KEYS[3] bell   KEYS[4] jobs   KEYS[5..] one stream each
-- ARGV[1] job ("" = none)   ARGV[2] position in the job's source (a decimal string of 20 digits, "" = none)
-- ARGV[3] n, the number of streams; then n times: the stream's name `lane|trigger`
-- then per entry: index of its stream (1-based), header, profile
--
-- The bell is 1 if it was rung for live work, 3 for backfill: live work does not wait for the turn of the other.
-- Returns {added, ring}: ring is 1 if the bell was silent. added is -1 if the job is already beyond that position.

local job, position, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
if position ~= '' then
  local seen = redis.call('HGET', KEYS[4], job)
  if seen and seen >= position then return {-1, 0} end
end

local added, total, live = {}, 0, false
for i = 4 + n, #ARGV, 3 do
  local s = tonumber(ARGV[i])
  redis.call('XADD', KEYS[4 + s], '*', 'h', ARGV[i + 1], 'p', ARGV[i + 2])
  added[s] = (added[s] or 0) + 1
  total = total + 1
end
for s, count in pairs(added) do
  local name = ARGV[3 + s]
  local trigger = string.match(name, '|(.*)$')
  redis.call('SADD', KEYS[2], name)
  if string.sub(name, 1, 5) == 'live|' then live = true end
  redis.call('HINCRBY', KEYS[1], 'accepted|' .. trigger, count)
end
if job ~= '' then
  redis.call('HINCRBY', KEYS[1], 'job|' .. job .. '|accepted', total)
  if position ~= '' then redis.call('HSET', KEYS[4], job, position) end
end
local ring = 0
if total > 0 then
  local bell = redis.call('GET', KEYS[3])
  if not bell or (live and bell == '3') then
    redis.call('SET', KEYS[3], live and '1' or '3')
    ring = 1
  end
end
return {total, ring}
