-- Lock seats of one schedule for one attempt to hold them: all of them or none.
--
-- KEYS  1     the schedule's lock counter
--       2     the mark of this very attempt: 'held', it has its seats already; 'asked', it has had the locks before, and
--             nobody has said what became of it
--       3..   the lock of each seat
--       for a try that is not the attempt's first, two more: waits, contended    (all keys share the schedule's hash tag)
-- ARGV  1 owner
--       2 expiry of the locks, ms
--       for a try that is not the first:
--       3 1: it is the last, whoever is still kept out will be refused; 0: it is not
--       4 how long to keep the history, ms
--       and for each seat that was found busy: its position among the seats; how long it was waited for, ms; its lock
--       when it was last seen; 1: that has run out since, 0: not that anybody knew
-- Returns a number above 0: locked; the number of the locks
--         -1: nothing was locked and nothing need be: the attempt has its answer, or may have, and Postgres knows
--         {i, lock, left, ...}: nothing was locked; the positions of the seats that others are busy with, each with its
--         lock and what is left of it, ms
-- Safe to run twice: an owner that has the locks gets them again, with a later expiry and a new number.
local seats = #KEYS - 2
local history
if ARGV[3] then
  seats = seats - 2
  history = {waits = KEYS[#KEYS - 1], contended = KEYS[#KEYS], kept_ms = ARGV[4]}
end

local has_them = false
if redis.call('EXISTS', unpack(KEYS, 2, seats + 2)) > 0 then
  local mark = redis.call('GET', KEYS[2])
  if mark and mark ~= 'asked' then
    return -1
  end
  local busy, locks = {}, {}
  for i = 1, seats do
    local lock = redis.call('GET', KEYS[i + 2])
    if lock and owner_of(lock) == ARGV[1] then
      has_them = true
    elseif lock then
      locks[i] = lock
      busy[#busy + 1] = i
      busy[#busy + 1] = lock
      busy[#busy + 1] = redis.call('PTTL', KEYS[i + 2])
    end
  end
  if #busy > 0 and mark then
    return -1
  end
  if #busy > 0 then
    if ARGV[3] == '1' then
      for at = 5, #ARGV, 4 do
        local i = tonumber(ARGV[at])
        note_wait(history, KEYS[i + 2], ARGV[1], 'refused', tonumber(ARGV[at + 1]), locks[i] or ARGV[at + 2])
        locks[i] = nil
      end
      for i, lock in pairs(locks) do
        note_wait(history, KEYS[i + 2], ARGV[1], 'refused', 0, lock)
      end
    end
    return busy
  end
end

local number = redis.call('INCR', KEYS[1])
if number == 1 then
  -- A counter that is new, or that Redis has forgotten, begins at the clock, in milliseconds: that goes faster than
  -- locks are taken, so the numbers rise all the same.
  local time = redis.call('TIME')
  number = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('SET', KEYS[1], number, 'PX', COUNTER_KEPT_MS)
end
local lock = number .. ' ' .. ARGV[1]
for i = 1, seats do
  redis.call('SET', KEYS[i + 2], lock, 'PX', ARGV[2])
end
redis.call('SET', KEYS[2], 'asked', 'PX', MARK_KEPT_MS)
if history and not has_them then
  for at = 5, #ARGV, 4 do
    local key = KEYS[tonumber(ARGV[at]) + 2]
    note_wait(history, key, ARGV[1], 'got', tonumber(ARGV[at + 1]), ARGV[at + 2])
    if ARGV[at + 3] == '1' then
      note_expired(history, key, ARGV[at + 2])
    end
  end
end
return number
