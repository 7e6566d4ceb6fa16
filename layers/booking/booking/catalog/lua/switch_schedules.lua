-- Send who reads a concert's schedules to the database, or back to the cache.
--
-- KEYS  1 the schedules
--       2 their seats left
--       3 the lock of who reads                                            (all share the concert's hash tag)
-- ARGV  1 1: to the database; 0: to the cache
--       2 how long to keep that, in milliseconds, unless it is said again
-- Returns 1: switched, and what was cached is forgotten (also by who is reading it); 0: it was so already.
-- Safe to run twice.
local switched = redis.call('GETRANGE', KEYS[1], 0, 0) == '-'
if ARGV[1] == '1' then
    redis.call('SET', KEYS[1], '-', 'PX', ARGV[2])
    if switched then
        return 0
    end
    redis.call('DEL', KEYS[2], KEYS[3])
    return 1
end
if not switched then
    return 0
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 1
