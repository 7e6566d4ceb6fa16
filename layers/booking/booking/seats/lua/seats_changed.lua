-- Seats of one schedule have changed: forget its cached map and move its marker, so that nobody who has read the seats
-- before the change can store their map after it. To be called when the change is committed, before it is answered.
--
-- KEYS  1 the cached map
--       2 the schedule's marker                                           (both share the schedule's hash tag)
-- ARGV  1 how long to keep the marker, in milliseconds
-- Returns the new marker.
-- The marker is this server's clock in microseconds, or one more than the last: it rises, and it never comes again
-- after a wiped Redis has forgotten it.
-- Safe to run twice: the marker moves once more, and a map that was stored in between is read once more.
local time = redis.call('TIME')
local last = tonumber(redis.call('GET', KEYS[2]) or 0)
local marker = string.format('%.0f', math.max(time[1] * 1000000 + time[2], last + 1))
redis.call('SET', KEYS[2], marker, 'PX', ARGV[1])
redis.call('DEL', KEYS[1])
return marker
