-- What all scripts of the waiting line share. Sent in front of each of them (scripts.py).
--
-- KEYS  1 gate  2 waiting  3 seen  4 inside  5 passes  6 over  7 returned  8 admissions  9 away  10 restoring
--       (keys.py says what each holds)
-- ARGV  1 concert id  2 claim window, s  3 life of a claimed pass, s  4 polls a second that the whole line may make
--       The scripts number their own arguments from 5.
--
-- Every answer is a list that begins with one of these words:
--   REBUILD                 no gate, and the caller is the one to restore it from Postgres
--   RESTORING               no gate, and another handler is restoring it
--   ADMITTED  epoch place number pass_id expires_us created
--   WAITING   'epoch place ahead interval_ms eta_s created' message    (eta_s -1: unknown while nobody is let in)
--             the six numbers in one text: the client reads one element in a fraction of the time of six
--   OVER      reason        left | paid | lapsed | epoch
--   SOLD_OUT  epoch place   the place that the person has or would get
--   CLOSED    message
--   NOT_OPEN  opens_us
--   DONE      ...
--
-- Places, numbers and times are whole microseconds: exact in a Lua number (until the year 2255), exact in an integer
-- reply, but '..' and tostring print 14 digits of them. So text() prints them; never concatenate one as it is.

local GATE, WAITING, SEEN, INSIDE, PASSES, OVER, RETURNED, ADMISSIONS, AWAY, RESTORING = unpack(KEYS)

local SECOND = 1000000
local CLAIM_WINDOW_US = tonumber(ARGV[2]) * SECOND
local PASS_LIFE_S = tonumber(ARGV[3])
local POLLS_PER_S_MAX = tonumber(ARGV[4])

-- Limits on what one call does, so that no script holds Redis for more than a few milliseconds.
local ADMISSIONS_MAX = 500
local ENDINGS_MAX = 500
local ABSENT_MAX = 200
-- If Postgres is away the copy waits here. 500,000 entries are a quarter of an hour at the default rate, about 60 MB.
local STREAM_LENGTH_MAX = 500000
local RESTORING_MS = 5000
-- Memory of the measured speed: what was let in this long ago weighs 1/e of what was let in now.
local SPEED_MEMORY_S = 30
-- What a person is told to wait when the line is closed.
local CLOSED_RETRY_S = 30

local function text(number)
  return string.format('%.0f', number)
end

-- The gate -------------------------------------------------------------------------------------------------------

-- The gate as a table, nil when there is none. Spelled out: a loop over names costs a join a tenth of its time.
local function read_gate()
  local v = redis.call('HMGET', GATE, 'state', 'message', 'epoch', 'capacity', 'rate', 'paused', 'opens_us', 'hold_us',
    'sold_out', 'last_place', 'number', 'tokens', 'tokens_us', 'speed_sum', 'speed_weight', 'speed_us', 'busy',
    'lapse_us', 'change_id')
  if not v[1] then return nil end
  return {
    state = v[1], message = v[2] or '', epoch = tonumber(v[3]), capacity = tonumber(v[4]), rate = tonumber(v[5]),
    paused = tonumber(v[6] or 0), opens_us = tonumber(v[7] or 0), hold_us = tonumber(v[8] or 0),
    sold_out = tonumber(v[9] or 0), last_place = tonumber(v[10] or 0), number = tonumber(v[11] or 0),
    tokens = tonumber(v[12] or 0), tokens_us = tonumber(v[13] or 0), speed_sum = tonumber(v[14] or 0),
    speed_weight = tonumber(v[15] or 0), speed_us = tonumber(v[16] or 0), busy = tonumber(v[17] or 0),
    lapse_us = tonumber(v[18] or 0), change_id = tonumber(v[19] or 0), changed = {},
  }
end

local function change(gate, field, number)
  gate[field] = number
  gate.changed[field] = true
end

-- Writes what changed. The last act of every script that may have changed the gate.
local function write_gate(gate)
  local pairs_of_gate = {}
  for field in pairs(gate.changed) do
    pairs_of_gate[#pairs_of_gate + 1] = field
    pairs_of_gate[#pairs_of_gate + 1] = string.format('%.6f', gate[field]):gsub('%.?0+$', '', 1)
  end
  if #pairs_of_gate > 0 then redis.call('HSET', GATE, unpack(pairs_of_gate)) end
end

-- Without a gate the line is in Postgres and in the tokens of its people. One handler restores it; the others wait,
-- so that a wiped Redis is not followed by a rush on Postgres.
local function rebuild()
  if redis.call('SET', RESTORING, '1', 'NX', 'PX', RESTORING_MS) then return { 'REBUILD' } end
  return { 'RESTORING' }
end

-- change_id: who is let in is recorded with the settings under which that happened.
local function lets_people_in(gate, now)
  return gate.change_id > 0 and gate.state == 'open' and gate.paused == 0 and gate.sold_out == 0 and gate.rate > 0 and gate.capacity > 0
    and now >= gate.hold_us and now >= gate.opens_us
end

-- Measured speed ---------------------------------------------------------------------------------------------------
-- People let in a second, exponentially forgetting, over the time in which somebody waited at an open gate: an hour in
-- which nobody came says nothing about how fast the line moves. sum and weight decay alike and the speed is their
-- quotient, so a short measurement is not taken for a slow one.

local function settle_speed(gate, now)
  if gate.busy == 1 then
    local elapsed_s = math.max(0, now - gate.speed_us) / SECOND
    local decay = math.exp(-elapsed_s / SPEED_MEMORY_S)
    gate.speed_sum = gate.speed_sum * decay
    gate.speed_weight = gate.speed_weight * decay + SPEED_MEMORY_S * (1 - decay)
  end
  gate.speed_us = now
end

local function record_speed(gate, now, admitted, busy)
  if admitted == 0 and busy == gate.busy then return end
  settle_speed(gate, now)
  if gate.busy == 1 then gate.speed_sum = gate.speed_sum + admitted end
  gate.busy = busy
  for _, field in ipairs({ 'speed_sum', 'speed_weight', 'speed_us', 'busy' }) do gate.changed[field] = true end
end

-- Seconds until somebody with so many people ahead is let in, -1 when the gate lets nobody in.
local function eta_s(gate, now, ahead)
  -- Leases lapse, so in the long run a full shop still lets this many in.
  local speed_min = math.min(gate.rate, gate.capacity / PASS_LIFE_S)
  if speed_min <= 0 then return -1 end
  settle_speed(gate, now)
  local speed = gate.rate
  if gate.speed_weight >= 1 then speed = gate.speed_sum / gate.speed_weight end
  local closed_s = math.max(0, gate.hold_us - now, gate.opens_us - now) / SECOND
  return math.ceil((ahead + 1) / math.max(speed, speed_min) + closed_s)
end

-- When to poll again: at 0.7 of the shortest time in which the turn can come, at least 1 s, all stretched by the same
-- factor when the whole line would exceed its polls a second. Jitter (0..1) only lengthens, so it keeps the budget.
local function poll_interval_ms(gate, ahead, total, jitter)
  local rate = math.max(gate.rate, 1)
  local near = rate / 0.7
  local polls_per_s = total
  if total > near then polls_per_s = near * (1 + math.log(total / near)) end
  local stretch = math.max(1, polls_per_s / POLLS_PER_S_MAX)
  local interval_s = math.max(1, 0.7 * (ahead + 1) / rate) * stretch * (1 + 0.2 * jitter)
  return math.floor(interval_s * 1000 + 0.5)
end

-- Turns -----------------------------------------------------------------------------------------------------------

local function record(...)
  redis.call('XADD', ADMISSIONS, 'MAXLEN', '~', STREAM_LENGTH_MAX, '*', ...)
end

local function read_pass(person)
  local detail = redis.call('HGET', PASSES, person)
  if not detail then return nil end
  local pass_id, number, place, claimed = string.match(detail, '^(%S+) (%d+) (%d+) (%d)$')
  return { id = pass_id, number = tonumber(number), place = tonumber(place), claimed = claimed == '1' }
end

local function write_pass(person, pass)
  local claimed = pass.claimed and ' 1' or ' 0'
  redis.call('HSET', PASSES, person, pass.id .. ' ' .. text(pass.number) .. ' ' .. text(pass.place) .. claimed)
end

-- All papers that the person holds now are used up: no place given so far is above last_place.
local function remember_over(gate, person, place, reason)
  redis.call('HSET', OVER, person, text(math.max(gate.last_place, place)) .. ' ' .. reason)
end

-- The person's place up to which turns are over and why the last one ended; nil when none has.
local function read_over(person)
  local over = redis.call('HGET', OVER, person)
  if not over then return nil end
  local place, reason = string.match(over, '^(%d+) (%a+)$')
  return tonumber(place), reason
end

-- Ends the turn of somebody inside and frees the slot. A phantom has no pass, no papers and no record.
local function end_turn_inside(gate, person, reason, ended_us)
  redis.call('ZREM', INSIDE, person)
  local pass = read_pass(person)
  if not pass then return end
  redis.call('HDEL', PASSES, person)
  remember_over(gate, person, pass.place, reason)
  record('type', 'end', 'pass_id', pass.id, 'person', person, 'at_us', text(ended_us), 'reason', reason,
    'ended_after', text(gate.number))
end

-- Ends the turns whose lease has run out: that of the calling person surely, of the others up to the limit.
-- Nothing is looked for before gate.lapse_us: no lease inside ends earlier. A lease that was made longer leaves it as it
-- is, and the next look moves it on; only admit() can make it earlier.
local function expire_leases(gate, now, caller)
  if now < gate.lapse_us then return end
  local lapsed = redis.call('ZRANGEBYSCORE', INSIDE, '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, ENDINGS_MAX)
  for i = 1, #lapsed, 2 do end_turn_inside(gate, lapsed[i], 'lapsed', tonumber(lapsed[i + 1])) end
  local first = redis.call('ZRANGE', INSIDE, 0, 0, 'WITHSCORES')
  change(gate, 'lapse_us', tonumber(first[2] or now + CLAIM_WINDOW_US))
  if #lapsed < 2 * ENDINGS_MAX or not caller then return end
  local expires_us = tonumber(redis.call('ZSCORE', INSIDE, caller) or false)
  if expires_us and expires_us <= now then end_turn_inside(gate, caller, 'lapsed', expires_us) end
end

local function fresh_place(gate, now)
  return math.max(now, gate.last_place + 1)
end

local function next_place(gate, now)
  local place = fresh_place(gate, now)
  change(gate, 'last_place', place)
  return place
end

-- Back to an earlier place, after being passed over or forgotten. Who was let in meanwhile stays in front: the
-- admission number of now is kept, so that the record shows why.
local function return_to_line(gate, person, place)
  redis.call('ZREM', AWAY, person)
  redis.call('ZADD', WAITING, text(place), person)
  redis.call('HSET', RETURNED, person, text(gate.number))
  if place > gate.last_place then change(gate, 'last_place', place) end
end

-- The place is kept for the person's return, and nobody behind waits for them.
local function pass_over(person, place)
  redis.call('ZREM', WAITING, person)
  redis.call('ZREM', SEEN, person)
  redis.call('ZADD', AWAY, place, person)
end

local function admit(gate, person, place, now)
  -- By the clock like a place: a failover that loses the last admissions must not give their numbers out again.
  local number = math.max(now, gate.number + 1)
  change(gate, 'number', number)
  local pass = {
    id = string.format('%s-%d-%x', ARGV[1], gate.epoch, number), number = number, place = place, claimed = false,
  }
  local entered_after = redis.call('HGET', RETURNED, person) or '0'
  if entered_after ~= '0' then redis.call('HDEL', RETURNED, person) end
  redis.call('ZREM', WAITING, person)
  redis.call('ZREM', SEEN, person)
  redis.call('ZADD', INSIDE, text(now + CLAIM_WINDOW_US), person)
  if now + CLAIM_WINDOW_US < gate.lapse_us then change(gate, 'lapse_us', now + CLAIM_WINDOW_US) end
  write_pass(person, pass)
  record('type', 'admit', 'pass_id', pass.id, 'person', person, 'at_us', text(now),
    'expires_us', text(now + CLAIM_WINDOW_US), 'epoch', gate.epoch, 'number', text(number), 'place', text(place),
    'entered_after', entered_after, 'gate_change_id', text(gate.change_id))
  return pass
end

local function is_absent(person, now, caller)
  return person ~= caller and tonumber(redis.call('ZSCORE', SEEN, person) or 0) < now
end

-- Lets people in by place while there is room and rate. The caller, present by calling, is never taken for absent.
-- Answers how many were let in, how many wait now, and the caller's pass when the caller was one of them.
local function let_in(gate, now, caller)
  local admitted, waiting, callers_pass = 0, redis.call('ZCARD', WAITING), nil
  local open = lets_people_in(gate, now)
  if open and waiting > 0 then
    -- Unused rate is kept for one second: the backstop, which ticks once a second, then reaches the whole rate.
    local refill = gate.rate * math.max(0, now - gate.tokens_us) / SECOND
    local tokens = math.min(math.max(1, gate.rate), gate.tokens + refill)
    local room = math.min(math.floor(tokens), ADMISSIONS_MAX)
    if room > 0 then room = math.min(room, gate.capacity - redis.call('ZCARD', INSIDE)) end
    local passed_over = 0
    while admitted < room and waiting > 0 and passed_over < ABSENT_MAX do
      local head = redis.call('ZRANGE', WAITING, 0, math.min(room - admitted, ABSENT_MAX) - 1, 'WITHSCORES')
      for i = 1, #head, 2 do
        local person = head[i]
        if is_absent(person, now, caller) then
          pass_over(person, head[i + 1])
          passed_over = passed_over + 1
        else
          local pass = admit(gate, person, tonumber(head[i + 1]), now)
          if person == caller then callers_pass = pass end
          admitted = admitted + 1
        end
        waiting = waiting - 1
      end
    end
    if admitted > 0 then
      change(gate, 'tokens', tokens - admitted)
      change(gate, 'tokens_us', now)
    end
  end
  record_speed(gate, now, admitted, open and waiting > 0 and 1 or 0)
  return admitted, waiting, callers_pass
end

-- Answers ---------------------------------------------------------------------------------------------------------

-- For somebody inside. The first answer that carries the pass is its claim: from then on it lives its whole life.
local function answer_admitted(gate, person, pass, now, created)
  local expires_us = tonumber(redis.call('ZSCORE', INSIDE, person))
  if not pass.claimed then
    expires_us = now + PASS_LIFE_S * SECOND
    pass.claimed = true
    write_pass(person, pass)
    redis.call('ZADD', INSIDE, text(expires_us), person)
    record('type', 'claim', 'pass_id', pass.id, 'person', person, 'at_us', text(now), 'expires_us', text(expires_us))
  end
  return { 'ADMITTED', gate.epoch, pass.place, pass.number, pass.id, expires_us, created }
end

-- For somebody in the line; notes when they will count as absent: after two told intervals and 10 s.
local function answer_waiting(gate, person, place, total, now, created, jitter)
  -- A new place is the highest there is.
  local ahead = created == 1 and total - 1 or redis.call('ZRANK', WAITING, person)
  local interval_ms = poll_interval_ms(gate, ahead, total, jitter)
  redis.call('ZADD', SEEN, text(now + 2000 * interval_ms + 10 * SECOND), person)
  local numbers = string.format(
    '%d %.0f %d %d %d %d', gate.epoch, place, ahead, interval_ms, eta_s(gate, now, ahead), created)
  return { 'WAITING', numbers, gate.message }
end

-- The last part of join and position: let people in, then say where the caller is, who waits at place or has a pass.
local function admit_and_answer(gate, person, place, pass, now, created, jitter)
  local _, total, new_pass = let_in(gate, now, person)
  pass = pass or new_pass
  local reply
  if pass then
    reply = answer_admitted(gate, person, pass, now, created)
  else
    reply = answer_waiting(gate, person, place, total, now, created, jitter)
  end
  write_gate(gate)
  return reply
end

