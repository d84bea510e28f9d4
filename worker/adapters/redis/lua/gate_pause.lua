#!lua flags=allow-oom
-- Pauses a gate until it is resumed.
--
--@keys gate
--@args reason by
--@include _gate
--@include _gate_changes

put_pause(arg_reason, arg_by, '')
save({})
return redis.status_reply('OK')
