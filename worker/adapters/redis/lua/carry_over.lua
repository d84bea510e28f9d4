#!lua flags=allow-oom
-- Puts other entries in the place of entries that wait. XDEL decides: what is not there any more
-- is replaced by nothing.
--
-- KEYS[1] lease  [2] counts  [3] streams  [4] aside  [5] orphans  then s streams
-- ARGV[1] token  [2] s; s names `lane|trigger`  then per entry: index of its stream, id, n; then n times: index of the stream, header, profile
--
-- Returns {replaced}; {-1} if somebody else holds the lease.
--@include _add
--@include _counts
--@include _orphans
--@include _outcomes

local token, floor = unpack(redis.call('HMGET', KEYS[1], 'token', 'floor'))
if token ~= ARGV[1] then return {-1} end
local FIXED = 5
local s = tonumber(ARGV[2])
local function stream_of(index) return KEYS[FIXED + tonumber(index)], ARGV[2 + tonumber(index)] end
local function count_one(name, amount)
  local job = job_of(name)
  count(outcome_field('accepted', name), amount)
  if job then count('job|' .. job .. '|accepted', amount) end
end

local at, replaced, left = 3 + s, 0, {}
while at <= #ARGV do
  local stream, name = stream_of(ARGV[at])
  local id, n = ARGV[at + 1], tonumber(ARGV[at + 2])
  if redis.call('XDEL', stream, id) == 1 then
    replaced = replaced + 1
    left[name] = stream
    count_one(name, -1)
    redis.call('HDEL', KEYS[4], name .. '|' .. id)
    count_down(KEYS[5], name, {id})
    for i = at + 3, at + 3 * n, 3 do
      local to, to_name = stream_of(ARGV[i])
      note_id(add(to, floor, 'h', ARGV[i + 1], 'p', ARGV[i + 2]))
      note_header(ARGV[i + 1])
      redis.call('SADD', KEYS[3], to_name)
      count_one(to_name, 1)
    end
  end
  at = at + 3 + 3 * n
end
for name, stream in pairs(left) do
  if redis.call('XLEN', stream) == 0 then redis.call('SREM', KEYS[3], name) end
end
write_counts(KEYS[2])
write_age(KEYS[1])
return {replaced}
