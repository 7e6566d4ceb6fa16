-- Store the map that a reader has read, unless seats have changed since, and let the next reader in.
--
-- KEYS  1 the cached map
--       2 the schedule's marker
--       3 the lock of who reads the map                                    (all share the schedule's hash tag)
-- ARGV  1 the reader's name
--       2 the marker from before the reading (see claim_refill)
--       3 the map
--       4 until when to keep it by this server's clock (Unix time, milliseconds); 0: there is nothing to store
-- Returns 1: stored; 0: not stored.
-- Without the check of the marker, who read before a change and stores after it would hide the change from everybody.
-- Safe to run twice: the second run stores the same map until the same moment, or finds that the marker has moved.
if redis.call('GET', KEYS[3]) == ARGV[1] then
    redis.call('DEL', KEYS[3])
end
if ARGV[4] == '0' then
    return 0
end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PXAT', ARGV[4])
return 1
