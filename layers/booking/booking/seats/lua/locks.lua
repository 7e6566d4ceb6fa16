-- What the functions of the seat locks share: the head of their library, which runs once, when it is loaded.
--
-- A lock is '<number> <owner>'. The number is a whole number that rises with every lock of the schedule; the owner is
-- '<person>.<attempt>', the same for the retries of an attempt, nobody else's.
--
-- The history is two keys of a schedule, which nobody touches who gets the locks at once:
--   waits      STREAM, the newest that ended: what somebody waited for a seat, or a lock that ran out under its owner
--   contended  HASH, seat → '<waits> <refused> <all waits, ms> <longest wait, ms> <locks that ran out> <the last of them>'
-- Numbers and milliseconds have at most 13 digits: '..' prints 14.

local COUNTER_KEPT_MS = 24 * 3600 * 1000
local MARK_KEPT_MS = 24 * 3600 * 1000 -- as long as the idempotency key
local WAITS_KEPT_MAX = 100
local SEATS_COUNTED_MAX = 1000 -- seats that do not exist may be asked for as well

local function take_arguments()
end

local function owner_of(lock)
  return string.match(lock, ' (.*)')
end

-- The six counts of a seat in the history; nil: there are too many others.
local function counts_of(contended, seat)
  local packed = redis.call('HGET', contended, seat)
  if not packed then
    return redis.call('HLEN', contended) < SEATS_COUNTED_MAX and {0, 0, 0, 0, 0, 0} or nil
  end
  local counts = {}
  for count in string.gmatch(packed, '%d+') do
    counts[#counts + 1] = tonumber(count)
  end
  return counts
end

local function add_to_history(history, seat, counts, ended, waited_ms, waiter, lock)
  if counts then
    redis.call('HSET', history.contended, seat, table.concat(counts, ' '))
    redis.call('PEXPIRE', history.contended, history.kept_ms)
  end
  redis.call('XADD', history.waits, 'MAXLEN', '=', WAITS_KEPT_MAX, '*',
    'seat', seat, 'ended', ended, 'waited_ms', waited_ms, 'waiter', waiter, 'lock', lock)
  redis.call('PEXPIRE', history.waits, history.kept_ms)
end

local function seat_of(key)
  return string.match(key, '[^:]+$')
end

-- The owner's wait for a seat, behind that lock, is over: it has 'got' its seats, or was 'refused'.
local function note_wait(history, key, owner, ended, waited_ms, lock)
  local seat = seat_of(key)
  local counts = counts_of(history.contended, seat)
  if counts then
    counts[1] = counts[1] + 1
    counts[2] = counts[2] + (ended == 'refused' and 1 or 0)
    counts[3] = counts[3] + waited_ms
    counts[4] = math.max(counts[4], waited_ms)
  end
  add_to_history(history, seat, counts, ended, waited_ms, owner, lock)
end

-- A lock has run out: its owner was slower than its expiry, or has died. Said by each who notices, noted once.
local function note_expired(history, key, lock)
  local seat = seat_of(key)
  local number = tonumber(string.match(lock, '^%d+'))
  local counts = counts_of(history.contended, seat)
  if counts and number > counts[6] then
    counts[5], counts[6] = counts[5] + 1, number
    add_to_history(history, seat, counts, 'expired', 0, '', lock)
  end
end
