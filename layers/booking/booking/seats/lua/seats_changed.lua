-- Seats of one schedule have changed: raise its marker to their versions, so that no replica which has not replayed the
-- change answers for the schedule, and forget the cached map. To be called when the change is committed, before it is
-- answered; after marker.lua.
--
-- KEYS  1 the cached map
--       2 the schedule's marker                                           (both share the schedule's hash tag)
-- ARGV  1 how long to keep the marker, in milliseconds
--       2.. number, version of each seat; none: something may have changed and nobody knows what, so the primary must
--           answer next
-- Returns 1, or 0 where the marker has all this: what was said once need not be said again.
-- Safe to run twice.
make_marker()
local risen
if #ARGV == 1 then
    redis.call('HDEL', MARKER, 'whole')
    risen = true
else
    risen = raise_marker(2)
end
redis.call('PEXPIRE', MARKER, ARGV[1])
if not risen then
    return 0
end
move_marker()
redis.call('DEL', KEYS[1])
return 1
