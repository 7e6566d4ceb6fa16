-- Look for a schedule's cached map, and where there is none ask for leave to read it: one reader at a time has it.
-- After marker.lua.
--
-- KEYS  1 the cached map
--       2 the schedule's marker
--       3 the map as it was before the last changes
--       4 the lock of who reads the map                                    (all share the schedule's hash tag)
-- ARGV  1 the reader's name, nobody else's
--       2 expiry of the lock, in milliseconds: somebody else reads when the reader has died
--       3 how long to keep a marker that is made here, in milliseconds
--       4 1: the reader has waited long enough and will read whoever else does; 0: will wait
--       5 made, 6 moved: the marker at this reader's first look, which said {3}; empty: this is the first
-- Returns {1, map}: here it is
--         {2, made, moved, now, numbers, versions, uncached}: read it; the marker and this server's clock (Unix time, milliseconds)
--             before the reading, and which versions of which seats a replica must have (arrays as Postgres writes
--             them; empty text: no replica may be asked); 1: everybody reads it and nobody keeps it, 0: keep it
--         {3, made, moved}: somebody else is reading it; the marker now (empty: there is none)
-- An overtaken map has every change that was told before the reader came. It is not kept from who comes later by a clock,
-- but by what its own reader knew: who is told of a change and then looks finds the marker moved further than that.
-- Safe to run twice: a reader that has leave gets it again.
local map = redis.call('GET', MAP)
if map then
    return {1, map}
end
local uncached = redis.call('HEXISTS', MARKER, 'uncached')
if uncached == 0 then
    if ARGV[5] ~= '' and overtaken_has(ARGV[5], ARGV[6]) then
        return {1, redis.call('GET', OVERTAKEN)}
    end
    local reader = redis.call('GET', KEYS[4])
    if not reader or reader == ARGV[1] then
        redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[2])
    elseif ARGV[4] == '0' then
        local now = redis.call('HMGET', MARKER, 'made', 'moved')
        return {3, now[1] or '', now[2] or ''}
    end
end
if make_marker() then
    redis.call('PEXPIRE', MARKER, ARGV[3])
end
local marked, numbers, versions = {}, {}, {}
local fields = redis.call('HGETALL', MARKER)
for i = 1, #fields, 2 do
    if tonumber(fields[i]) then
        numbers[#numbers + 1] = fields[i]
        versions[#versions + 1] = fields[i + 1]
    else
        marked[fields[i]] = fields[i + 1]
    end
end
local answer = {2, marked.made, marked.moved, math.floor(clock_us() / 1000), '', '', uncached}
if marked.whole then
    answer[5] = '{' .. table.concat(numbers, ',') .. '}'
    answer[6] = '{' .. table.concat(versions, ',') .. '}'
end
return answer
