#!lua flags=allow-oom
-- Registers a watch, or renews it, and returns what has come for it. Watches that have lapsed go, and the hash lapses with the last.
--
-- KEYS: the hash of `_tap.lua`, and the stream of the watch.
-- ARGV: the id of the watch; its filter, JSON; for how long it lasts unless it is renewed, ms; how many watches there may be; the last
-- entry that it has read, or '' for the newest ones; how many entries it takes.
--@keys taps stream
--@args id watch lapse most after count
--
-- Returns 2 if the watch went on, 1 if it is new, 0 if there are too many others; then how much was left out for it, how many records
-- it was sent, and its entries.
--@answer taken left sent entries
--@include _tap
local lapse, others = tonumber(arg_lapse), 0
for _, field in ipairs(redis.call('HKEYS', key_taps)) do
  local id = string.match(field, '^(.*)|until$')
  if id and not tap_lasts(key_taps, id, lapse) then
    redis.call('HDEL', key_taps, id, id .. '|until', id .. '|left', id .. '|sent')
  elseif id and id ~= arg_id then
    others = others + 1
  end
end
local went_on = redis.call('HEXISTS', key_taps, arg_id)
if went_on == 0 then
  if others >= tonumber(arg_most) then return answer{taken = 0, left = 0, sent = 0, entries = {}} end
  redis.call('UNLINK', key_stream)
end
redis.call('HSET', key_taps, arg_id, arg_watch, arg_id .. '|until', string.format('%.0f', now + lapse))
redis.call('PEXPIRE', key_taps, arg_lapse)
redis.call('PEXPIRE', key_stream, arg_lapse)
local entries
if arg_after == '' then
  entries = redis.call('XREVRANGE', key_stream, '+', '-', 'COUNT', arg_count)
else
  entries = redis.call('XRANGE', key_stream, '(' .. arg_after, '+', 'COUNT', arg_count)
end
local left, sent = unpack(redis.call('HMGET', key_taps, arg_id .. '|left', arg_id .. '|sent'))
return answer{taken = went_on + 1, left = tonumber(left or 0), sent = tonumber(sent or 0), entries = entries}
