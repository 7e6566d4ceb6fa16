-- Look for a concert's cached schedules and seats left, and where one is missing ask for leave to read it: one reader at
-- a time has it.
--
-- KEYS  1 the schedules
--       2 their seats left
--       3 the lock of who reads                                            (all share the concert's hash tag)
-- ARGV  1 the reader's name, nobody else's
--       2 expiry of the lock, in milliseconds: somebody else reads when the reader has died
--       3 1: the reader has waited long enough and will read whoever else does; 0: will wait
-- Returns {1, schedules, seats left}: here they are; {1, '-'}: the database is to be read (see switch_schedules)
--         {2, name, schedules}: read what is missing, and store it under that name: the reader's, or that of one who has been
--             reading for so long that it may have died; the schedules where they are there
--         {3}: somebody else is reading
-- Safe to run twice: a reader that has leave gets it again.
local kept = redis.call('MGET', KEYS[1], KEYS[2])
if kept[1] == '-' then
    return {1, '-'}
end
if kept[1] and kept[2] then
    return {1, kept[1], kept[2]}
end
local reader = redis.call('GET', KEYS[3])
if reader and reader ~= ARGV[1] then
    return ARGV[3] == '0' and {3} or {2, reader, kept[1]}
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
return {2, ARGV[1], kept[1]}
