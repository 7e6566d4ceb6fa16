-- Lock seats of one schedule for one attempt to hold them: all of them or none.
--
-- KEYS  1..n  the lock of each seat
--       n+1   the schedule's lock counter
--       n+2   exists when this very attempt has held its seats already     (all keys share the schedule's hash tag)
-- ARGV  1 owner, the name of the attempt: the same for its retries, nobody else's
--       2 expiry of the locks, in milliseconds
-- Returns {number}: locked; the number rises with every lock taken on the schedule
--         {-1}: nothing was locked and nothing need be: the attempt has its answer, Postgres keeps it
--         {0, i, j, ...}: nothing was locked; the positions in KEYS of the seats that others are busy with
-- Safe to run twice: an owner that has the locks gets them again, with a later expiry and a new number.
local seats = #KEYS - 2
if redis.call('EXISTS', KEYS[seats + 2]) == 1 then
    return {-1}
end
local busy = {0}
for i = 1, seats do
    local owner = redis.call('GET', KEYS[i])
    if owner and owner ~= ARGV[1] then
        busy[#busy + 1] = i
    end
end
if #busy > 1 then
    return busy
end
for i = 1, seats do
    redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
end
return {redis.call('INCR', KEYS[seats + 1])}
