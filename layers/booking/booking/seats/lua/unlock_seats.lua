-- Unlock the seats of one attempt, leaving alone what is not (or no longer) its own: a lock that expired while its
-- owner was slow may be somebody else's by now, and a plain DEL would take it from them.
--
-- KEYS  1..n  the lock of each seat
--       n+1   the mark of this attempt (see lock_seats)
-- ARGV  1 owner
--       2 how long to remember that the attempt has held its seats, in milliseconds; 0: it has not
-- Returns how many locks were released. Safe to run twice: the second finds nothing of its own.
local seats = #KEYS - 1
local released = 0
for i = 1, seats do
    if redis.call('GET', KEYS[i]) == ARGV[1] then
        released = released + redis.call('DEL', KEYS[i])
    end
end
if tonumber(ARGV[2]) > 0 then
    redis.call('SET', KEYS[seats + 1], '1', 'PX', ARGV[2])
end
return released
