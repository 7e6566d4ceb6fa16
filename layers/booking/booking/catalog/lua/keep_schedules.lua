-- Store what a reader has read of a concert's schedules, and let the next reader in.
--
-- KEYS  1 the schedules
--       2 their seats left
--       3 the lock of who reads                                            (all share the concert's hash tag)
-- ARGV  1 the name under which it reads (see claim_schedules)
--       2, 3 the schedules and for how many milliseconds to keep them; 4, 5 the same of their seats left.
--          0 milliseconds: there is nothing to store
-- Returns 1: stored; 0: not stored, the lock is no longer of that name. Somebody may have forgotten the schedules since they
-- were read, and an older list would then stay until midnight.
-- Safe to run twice.
if redis.call('GET', KEYS[3]) ~= ARGV[1] then
    return 0
end
redis.call('DEL', KEYS[3])
for key = 1, 2 do
    local value, kept_ms = ARGV[key * 2], ARGV[key * 2 + 1]
    if kept_ms ~= '0' then
        redis.call('SET', KEYS[key], value, 'PX', kept_ms)
    end
end
return 1
