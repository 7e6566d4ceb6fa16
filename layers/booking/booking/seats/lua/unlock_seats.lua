-- Unlock the seats of one attempt, leaving alone what is not (or no longer) its own: a lock that expired while its
-- owner was slow may be somebody else's by now, or belong to a later try of the same attempt, and a plain DEL would take
-- it from them.
--
-- KEYS  1     the mark of this attempt (see lock_seats)
--       2..   the lock of each seat
--       for who has had the locks for longer than their expiry, two more: waits, contended
-- ARGV  1 the lock, as all of the seats have it
--       2 how long to remember that the attempt has held its seats, ms; 0: it has not; -1: nobody knows
--       3 for who has had the locks for longer than their expiry: how long to keep the history, ms
-- Returns how many locks were released. Safe to run twice: the second finds nothing of its own.
local seats = #KEYS - 1
local history
if ARGV[3] then
  seats = seats - 2
  history = {waits = KEYS[#KEYS - 1], contended = KEYS[#KEYS], kept_ms = ARGV[3]}
end

local released = 0
for i = 1, seats do
  local key = KEYS[i + 1]
  local lock = redis.call('GET', key)
  if lock == ARGV[1] then
    released = released + redis.call('DEL', key)
  elseif history and not (lock and owner_of(lock) == owner_of(ARGV[1])) then
    note_expired(history, key, ARGV[1])
  end
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
elseif ARGV[2] ~= '-1' then
  redis.call('SET', KEYS[1], 'held', 'PX', ARGV[2])
end
return released
