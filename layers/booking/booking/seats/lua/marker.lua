-- What the scripts of the seat maps share (see redis_keys): the schedule's marker, a hash that says which version of each
-- seat a map must show at least.
--
-- made   this server's clock in microseconds when the marker was made: another one means that Redis has lost the first, or
--        that something has changed and nobody knows what
-- moved  rises with every change: who has read the seats before it can no longer store their map
-- whole  is there once the marker has every change that was ever told; only then may a replica be asked
-- uncached  is there while operators send the readers to the database (see switch_map): the map is not kept
-- The rest are seat numbers with their versions.
--
-- A map begins with made and moved as they were before it was read: it has every change that was told until then. So a map
-- that changes have overtaken is still good for who looked before its reader began, and is kept for those a moment longer
-- than they wait: where seats change faster than their map is read, all readers share one reading after the other.
local MAP, MARKER, OVERTAKEN = KEYS[1], KEYS[2], KEYS[3]
local OVERTAKEN_KEPT_MS = 2000

local function clock_us()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

-- A marker that is missing is made: nothing never equals nothing, so neither a wiped Redis nor a marker that expired lets
-- an old map in. Answers whether it was.
local function make_marker()
    if redis.call('EXISTS', MARKER) == 1 then
        return false
    end
    local now = string.format('%.0f', clock_us())
    redis.call('HSET', MARKER, 'made', now, 'moved', now)
    return true
end

-- Who has read the seats before can store nothing any more, nor call the marker whole.
local function renew_marker()
    redis.call('HDEL', MARKER, 'whole')
    redis.call('HSET', MARKER, 'made', string.format('%.0f', clock_us()))
end

-- The clock, or one more than the last: it rises, and never comes again after a wiped Redis has forgotten it.
local function move_marker()
    local last = tonumber(redis.call('HGET', MARKER, 'moved'))
    redis.call('HSET', MARKER, 'moved', string.format('%.0f', math.max(clock_us(), last + 1)))
end

-- The map is no longer what a new reader may see.
local function overtake_map()
    local ends_ms = redis.call('PTTL', MAP)
    if ends_ms > 0 then
        redis.call('RENAME', MAP, OVERTAKEN)
        redis.call('PEXPIRE', OVERTAKEN, math.min(ends_ms, OVERTAKEN_KEPT_MS))
    end
end

-- Whether the overtaken map was read by somebody who began when the marker stood there or later.
local function overtaken_has(made, moved)
    local of_made, of_moved = string.match(redis.call('GETRANGE', OVERTAKEN, 0, 63), '^(%d+) (%d+) ')
    return of_made == made and tonumber(of_moved) >= tonumber(moved)
end

-- Raise the marker to the seats and versions that stand in ARGV from there on. Answers whether a seat has risen.
local function raise_marker(first)
    local risen = false
    for i = first, #ARGV, 2 do
        local marked = redis.call('HGET', MARKER, ARGV[i])
        if not marked or tonumber(marked) < tonumber(ARGV[i + 1]) then
            redis.call('HSET', MARKER, ARGV[i], ARGV[i + 1])
            risen = true
        end
    end
    return risen
end
