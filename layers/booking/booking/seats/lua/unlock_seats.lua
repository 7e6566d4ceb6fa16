-- Unlock the seats of one attempt, leaving alone what is not (or no longer) its own: a lock that expired while its
-- owner was slow may be somebody else's by now, and a plain DEL would take it from them.
--
-- KEYS  the lock of each seat
-- ARGV  1 owner
-- Returns how many locks were released. Safe to run twice: the second finds nothing of its own.
local released = 0
for i = 1, #KEYS do
    if redis.call('GET', KEYS[i]) == ARGV[1] then
        released = released + redis.call('DEL', KEYS[i])
    end
end
return released
