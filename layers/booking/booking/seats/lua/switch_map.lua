-- Send who reads a schedule's map to the database, or back to the cache. After marker.lua.
--
-- KEYS  1 the cached map
--       2 the schedule's marker
--       3 the map as it was before the last changes                       (all share the schedule's hash tag)
-- ARGV  1 1: to the database; 0: to the cache
--       2 how long to keep the marker, in milliseconds
-- Returns 1: switched, and the map is forgotten (also by who is reading it); 0: it was so already.
-- Safe to run twice.
local switched = redis.call('HEXISTS', MARKER, 'uncached') == 1
if ARGV[1] == '1' then
    make_marker()
    redis.call('PEXPIRE', MARKER, ARGV[2])
end
if switched == (ARGV[1] == '1') then
    return 0
end
if switched then
    redis.call('HDEL', MARKER, 'uncached')
else
    redis.call('HSET', MARKER, 'uncached', '1')
end
move_marker()
redis.call('DEL', MAP, OVERTAKEN)
return 1
