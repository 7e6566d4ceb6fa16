-- Store the map that a reader has read, as an overtaken one if seats have changed since, and let the next reader in. Where the primary has
-- answered, write the marker whole. After marker.lua.
--
-- KEYS  1 the cached map
--       2 the schedule's marker
--       3 the map as it was before the last changes
--       4 the lock of who reads the map                                    (all share the schedule's hash tag)
-- ARGV  1 the reader's name
--       2 made, 3 moved: the marker before the reading (see claim_refill)
--       4 the map, which begins with these two
--       5 until when to keep it by this server's clock (Unix time, milliseconds); 0: there is nothing to store
--       6 how long to keep a whole marker, in milliseconds
--       7 1: the primary has answered; 0: a replica has, or nobody
--       8 1: the primary says that readers are to go to the database (see switch_map)
--       9.. number, version of each seat that was ever changed, as the primary has them
-- Returns 1: stored; 0: not stored, or for those only who have looked before the reading.
-- Without the check of the marker, who read before a change and stores after it would hide the change from everybody.
-- Safe to run twice: the second run stores nothing that the first has not.
if redis.call('GET', KEYS[4]) == ARGV[1] then
    redis.call('DEL', KEYS[4])
end
local before = redis.call('HMGET', MARKER, 'made', 'moved')
if before[1] ~= ARGV[2] then
    return 0
end
local unmoved = before[2] == ARGV[3]
if ARGV[7] == '1' then
    if unmoved then
        -- Exactly what the primary has, also where that is less: a failover may have lost commits, and no replica will
        -- ever have those.
        redis.call('DEL', MARKER)
        redis.call('HSET', MARKER, 'made', before[1], 'moved', before[2])
        if ARGV[8] == '1' then
            redis.call('HSET', MARKER, 'uncached', '1')
        end
    end
    if raise_marker(9) then
        -- Others may have read a replica that lacks this.
        move_marker()
        redis.call('DEL', MAP, OVERTAKEN)
    end
    redis.call('HSET', MARKER, 'whole', '1')
end
if redis.call('HEXISTS', MARKER, 'whole') == 1 then
    redis.call('PEXPIRE', MARKER, ARGV[6])
end
if ARGV[5] == '0' then
    return 0
end
if unmoved then
    redis.call('SET', MAP, ARGV[4], 'PXAT', ARGV[5])
    return 1
end
if redis.call('HEXISTS', MARKER, 'uncached') == 0 and not overtaken_has(ARGV[2], ARGV[3]) then
    local ends_ms = math.floor(clock_us() / 1000) + OVERTAKEN_KEPT_MS
    redis.call('SET', OVERTAKEN, ARGV[4], 'PXAT', string.format('%.0f', math.min(tonumber(ARGV[5]), ends_ms)))
end
return 0
