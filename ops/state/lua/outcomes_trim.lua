#!lua flags=allow-oom
-- Removes the rows of the outcome log that are old enough.
--
-- ARGV: the time before which rows go, ms; the most entries to remove
--@keys outcomes recorded
--@args before most
--
-- Returns how many entries were removed.
--@include _record

local removed = 0
while removed < tonumber(arg_most) and drop_oldest(tonumber(arg_before)) do removed = removed + 1 end
return removed
