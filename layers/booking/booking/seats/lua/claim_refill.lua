-- Look for a schedule's cached map, and where there is none ask for leave to read it: one reader at a time has it.
--
-- KEYS  1 the cached map
--       2 the schedule's marker
--       3 the lock of who reads the map                                    (all share the schedule's hash tag)
-- ARGV  1 the reader's name, nobody else's
--       2 expiry of the lock, in milliseconds: somebody else reads when the reader has died
--       3 how long to keep a marker that is made here, in milliseconds
-- Returns {1, map}: here it is
--         {2, marker, now}: read it; the marker and this server's clock (Unix time, milliseconds) before the reading
--         {3, marker, now}: somebody else is reading it; the same for who will not wait
-- A marker that is missing is made: nothing never equals nothing, so neither a wiped Redis nor a marker that expired
-- lets an old map in.
-- Safe to run twice: a reader that has leave gets it again.
local map = redis.call('GET', KEYS[1])
if map then
    return {1, map}
end
local time = redis.call('TIME')
local marker = redis.call('GET', KEYS[2])
if not marker then
    marker = string.format('%.0f', time[1] * 1000000 + time[2])
    redis.call('SET', KEYS[2], marker, 'PX', ARGV[3])
end
local leave = 3
local reader = redis.call('GET', KEYS[3])
if not reader or reader == ARGV[1] then
    redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
    leave = 2
end
return {leave, marker, time[1] * 1000 + math.floor(time[2] / 1000)}
