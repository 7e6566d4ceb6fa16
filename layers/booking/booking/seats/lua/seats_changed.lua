-- Seats of one schedule have changed: raise its marker to their versions, so that no replica which has not replayed the
-- change answers for the schedule, and take the cached map away. To be called when the change is committed, before it is
-- answered; after marker.lua.
--
-- KEYS  1 the cached map
--       2 the schedule's marker
--       3 the map as it was before the last changes                       (all share the schedule's hash tag)
-- ARGV  1 how long to keep the marker, in milliseconds
--       2 1: this was said before, most likely: nothing is done where the marker has all of it; 0: it is news
--       3.. number, version of each seat; none: something may have changed and nobody knows what, so the primary must
--           answer next, and who is reading cannot say what a whole marker has
-- Returns 1: the map is taken away; 0: there was no need.
-- News is news even where the marker has higher versions: a failover may have lost the commits that it has them from.
-- Safe to run twice: a map that was stored in between is read once more.
make_marker()
if #ARGV == 2 then
    renew_marker()
end
local risen = raise_marker(3)
redis.call('PEXPIRE', MARKER, ARGV[1])
if ARGV[2] == '1' and not risen then
    return 0
end
move_marker()
overtake_map()
return 1
