-- What all functions of the waiting line share: the head of their library (scripts.py), which runs once, when it is loaded.
--
-- KEYS  1 gate  2 waiting  3 seen  4 inside  5 passes  6 over  7 returned  8 admissions  9 away  10 restoring
--       (platform/redis_keys.py says what each holds)
-- ARGV  1 concert id  2 claim window, s  3 life of a claimed pass, s  4 polls a second that the whole line may make
--       The scripts number their own arguments from 5.
--
-- Every answer is a list that begins with one of these words:
--   REBUILD                 no gate, and the caller is the one to restore it from Postgres
--   RESTORING               no gate, and another handler is restoring it; or a gate that a failover has thrown back to
--                           before the epoch of the caller's paper: the background loop will tell it, within a second
--   ADMITTED  epoch place number pass_id expires_us created
--   WAITING   'epoch place ahead interval_ms eta_s created' message    (eta_s -1: unknown while nobody is let in)
--             the six numbers in one text: the client reads one element in a fraction of the time of six
--   OVER      reason        left | paid | lapsed | epoch
--   SOLD_OUT  epoch place   the place that the person has or would get
--   COLLECTED 'epoch place interval_ms opens_us created' message    before a draw: no position yet
--   CLOSED    message interval_ms
--   NOT_OPEN  opens_us
--   DONE      ...
--
-- Places, numbers and times are whole microseconds: exact in a Lua number (until the year 2255), exact in an integer
-- reply, but '..' and tostring print 14 digits of them. So text() prints them; never concatenate one as it is.

local SECOND = 1000000

-- Of the call that is being answered; each sets them anew.
local GATE, WAITING, SEEN, INSIDE, PASSES, OVER, RETURNED, ADMISSIONS, AWAY, RESTORING
local CLAIM_WINDOW_US, PASS_LIFE_S, POLLS_PER_S_MAX

local function take_arguments()
  GATE, WAITING, SEEN, INSIDE, PASSES, OVER, RETURNED, ADMISSIONS, AWAY, RESTORING = unpack(KEYS)
  CLAIM_WINDOW_US = tonumber(ARGV[2]) * SECOND
  PASS_LIFE_S = tonumber(ARGV[3])
  POLLS_PER_S_MAX = tonumber(ARGV[4])
end

-- Limits on what one call does, so that no script holds Redis for more than a few milliseconds.
local ADMISSIONS_MAX = 500
local ENDINGS_MAX = 500
local ABSENT_MAX = 200
-- If Postgres is away the copy waits here. 500,000 entries are a quarter of an hour at the default rate, about 60 MB.
local STREAM_LENGTH_MAX = 500000
local RESTORING_MS = 5000
-- Of more concerts than these at once some are read anew.
local KEPT_MAX = 1000
-- A token's life: the default of settings.token_ttl_s.
local LINE_KEPT_S = 7 * 24 * 3600
local HOUR_S = 3600
-- Memory of the measured pace: what was let in this long ago weighs 1/e of what was let in now.
local SPEED_MEMORY_S = 30
-- How long people are taken to stay inside until that has been measured: this part of a pass's life.
local STAY_GUESSED = 1 / 3
-- The longest that people are told to wait until their next poll, before the budget stretches it: what is told now
-- should not outlive the gate's settings by much.
local INTERVAL_MAX_S = 300
-- At least so long when the line is closed.
local CLOSED_INTERVAL_S = 30
-- People collected for a draw poll within this time after the opening, and no more often before it.
local OPENING_SPREAD_S = 5
-- Before it they poll so rarely that all of them make this part of the polls that the line may make, or each comes once
-- in INTERVAL_MAX_S: few people hear soon of an opening before its time, and many cost no more.
local COLLECTED_PART = 1 / 60
-- How late people may come to the poll that they were told to make.
local GRACE_US = 10 * SECOND
-- Nobody has asked for so long, the background loop neither, which asks each second: Redis was away.
local SILENCE_US = 5 * SECOND
-- After a silence nobody is let in for so long: people were told to ask again after 2 s (RedisAway).
local RETURN_HOLD_US = 5 * SECOND
-- Every place that a draw gives is below, every place from a clock above (since 2005).
local DRAWN_BELOW = 2 ^ 50

local function text(number)
  return string.format('%.0f', number)
end

-- The gate -------------------------------------------------------------------------------------------------------

-- Gates as the last call has left them, with the version that each has in Redis. To read the fields of one anew costs as much
-- as all else that a poll asks for. Who writes a gate gives it a version that no gate has had, so that one which another
-- server, or another library, has written is never taken for the one kept here.
local kept, reads, writes = {}, 0, 0

local function new_version(now)
  writes = writes + 1
  return text(now) .. '.' .. writes
end

-- Spelled out: a loop over names costs a join a tenth of its time.
local function read_fields()
  local v = redis.call('HMGET', GATE, 'state', 'message', 'epoch', 'capacity', 'rate', 'paused', 'opens_us', 'hold_us',
    'sold_out', 'last_place', 'number', 'tokens', 'tokens_us', 'speed_sum', 'speed_weight', 'speed_us', 'measured',
    'lapse_us', 'change_id', 'seed', 'heard_us')
  if not v[1] then return nil end
  return {
    state = v[1], message = v[2] or '', epoch = tonumber(v[3]), capacity = tonumber(v[4]), rate = tonumber(v[5]),
    paused = tonumber(v[6] or 0), opens_us = tonumber(v[7] or 0), hold_us = tonumber(v[8] or 0),
    sold_out = tonumber(v[9] or 0), last_place = tonumber(v[10] or 0), number = tonumber(v[11] or 0),
    tokens = tonumber(v[12] or 0), tokens_us = tonumber(v[13] or 0), speed_sum = tonumber(v[14] or 0),
    speed_weight = tonumber(v[15] or 0), speed_us = tonumber(v[16] or 0), measured = tonumber(v[17] or 0),
    lapse_us = tonumber(v[18] or 0), change_id = tonumber(v[19] or 0), seed = v[20] or '',
    heard_us = tonumber(v[21] or 0), changed = {},
  }
end

-- The gate as a table, nil when there is none. It is kept again only when it has been written: not by a call that breaks off.
local function read_gate()
  local version, gate = redis.call('HGET', GATE, 'version'), kept[GATE]
  kept[GATE] = nil
  if version and gate and gate.version == version then return gate end
  gate = read_fields()
  if not gate then return nil end
  gate.version = version
  -- No more are kept than have been read.
  reads = reads + 1
  if reads > KEPT_MAX then kept, reads = {}, 0 end
  return gate
end

local function change(gate, field, number)
  gate[field] = number
  gate.changed[field] = true
end

-- Writes what changed. The last act of every script that may have changed the gate.
local function write_gate(gate, now)
  local pairs_of_gate = {}
  for field in pairs(gate.changed) do
    pairs_of_gate[#pairs_of_gate + 1] = field
    pairs_of_gate[#pairs_of_gate + 1] = string.format('%.6f', gate[field]):gsub('%.?0+$', '', 1)
  end
  if #pairs_of_gate > 0 then
    gate.version, gate.changed = new_version(now), {}
    redis.call('HSET', GATE, 'version', gate.version, unpack(pairs_of_gate))
  end
  kept[GATE] = gate
end

-- A line that nobody tells its settings any more goes when no token of it can be left: its sale is long over.
local function keep_line()
  if redis.call('TTL', GATE) > LINE_KEPT_S - HOUR_S then return end
  for _, key in ipairs({ GATE, WAITING, SEEN, INSIDE, PASSES, OVER, RETURNED, ADMISSIONS, AWAY }) do
    redis.call('EXPIRE', key, LINE_KEPT_S)
  end
end

-- Without a gate the line is in Postgres and in the tokens of its people. One handler restores it; the others wait,
-- so that a wiped Redis is not followed by a rush on Postgres.
local function rebuild()
  if redis.call('SET', RESTORING, '1', 'NX', 'PX', RESTORING_MS) then return { 'REBUILD' } end
  return { 'RESTORING' }
end

-- change_id: who is let in is recorded with the settings under which that happened.
local function lets_people_in(gate, now)
  return gate.change_id > 0 and gate.state == 'open' and gate.paused == 0 and gate.sold_out == 0 and gate.rate > 0
    and gate.capacity > 0 and now >= gate.hold_us and now >= gate.opens_us
end

-- Pace ------------------------------------------------------------------------------------------------------------
-- While there is room inside, people come in as fast as the gate's rate. Once the shop is full they come in as fast as
-- others go out, and that is measured: people let in a second, exponentially forgetting, over the time in which somebody
-- waited at an open gate and a full shop. sum and weight decay alike and the pace is their quotient, so a short
-- measurement is not taken for a slow one. measured is 0 while it does not run, 1 when the shop has become full (nobody
-- has had the time to shop yet: that says nothing), 2 from the first slot that is filled again.

-- Sum and weight as they are by now.
local function speed_by(gate, now)
  if gate.measured ~= 2 then return gate.speed_sum, gate.speed_weight end
  local decay = math.exp(-math.max(0, now - gate.speed_us) / SECOND / SPEED_MEMORY_S)
  return gate.speed_sum * decay, gate.speed_weight * decay + SPEED_MEMORY_S * (1 - decay)
end

local function record_speed(gate, now, admitted, full)
  local before, after = gate.measured, 0
  if full then after = (before == 2 or before == 1 and admitted > 0) and 2 or 1 end
  if before == after and (admitted == 0 or after ~= 2) then return end
  local sum, weight = speed_by(gate, now)
  if before == 2 then sum = sum + admitted end
  for field, number in pairs({ speed_sum = sum, speed_weight = weight, speed_us = now, measured = after }) do
    change(gate, field, number)
  end
end

-- People a second that a full shop lets in. What was guessed weighs as much as one second of measuring; as leases lapse,
-- there is a least.
local function full_pace(gate, now)
  local sum, weight = speed_by(gate, now)
  local guessed = gate.capacity / (PASS_LIFE_S * STAY_GUESSED)
  return math.max((sum + guessed) / (weight + 1), gate.capacity / PASS_LIFE_S)
end

-- Seconds, with their parts, until somebody with so many people ahead is let in at an open gate with so much room.
local function expected_s(gate, now, ahead, room)
  local at_the_gate = (ahead + 1) / gate.rate
  if ahead < room then return at_the_gate end
  return math.max(at_the_gate, (ahead + 1 - room) / full_pace(gate, now))
end

local function closed_s(gate, now)
  return math.max(0, gate.hold_us - now, gate.opens_us - now) / SECOND
end

-- When to poll again: at 0.7 of the shortest time in which the turn can come, from 1 s to INTERVAL_MAX_S, all stretched by
-- the same factor when the whole line would exceed its polls a second; but in a line that moves, before the turn comes.
-- Jitter (0..1) only lengthens, so it keeps the budget; but those who are so far back that all are told the same spread
-- over the whole of that time, both ways: whoever joined in one second would else poll in one second.
local function poll_interval_ms(gate, ahead, total, expected, jitter)
  local rate = math.max(gate.rate, 1)
  local near, far = rate / 0.7, INTERVAL_MAX_S * rate / 0.7
  local polls_per_s = math.min(total, near)
  if total > near then polls_per_s = near * (1 + math.log(math.min(total, far) / near)) end
  if total > far then polls_per_s = polls_per_s + (total - far) / INTERVAL_MAX_S end
  local stretch = math.max(1, polls_per_s / POLLS_PER_S_MAX)
  local longer, distance_s = 1 + 0.2 * jitter, math.max(1, 0.7 * (ahead + 1) / rate)
  local interval_s = distance_s * stretch * longer
  if distance_s > INTERVAL_MAX_S then interval_s = INTERVAL_MAX_S * stretch * (0.5 + jitter) end
  if expected then interval_s = math.min(interval_s, math.max(1, 0.8 * expected) * longer) end
  return math.floor(interval_s * 1000 + 0.5)
end

-- When so many people need not poll for their own sake: as often as that, or as rarely as the budget asks for.
local function spread_ms(total, interval_s, jitter)
  return math.floor(math.max(interval_s, total / POLLS_PER_S_MAX) * (1 + 0.2 * jitter) * 1000 + 0.5)
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

-- Nobody is let in until then.
local function hold(gate, until_us)
  change(gate, 'hold_us', math.max(gate.hold_us, until_us))
  change(gate, 'tokens', 0)
  change(gate, 'tokens_us', gate.hold_us)
end

-- Nobody loses anything by a Redis that was away. Who had just been let in could not fetch the pass: the claim window
-- begins anew. Who waited could not poll: nobody is let in until they have had the time to, or the first to come back
-- would pass over everybody in front. But when nobody else has come back after the last silence until this one, that is
-- how often people ask here (the background loop is dead, a tab asleep), and another pause would be one for ever.
local function make_up_for_silence(gate, now)
  local is_usual = gate.hold_us == gate.heard_us + RETURN_HOLD_US
  local let_in_last = redis.call('ZRANGEBYSCORE', INSIDE, '-inf', text(now + CLAIM_WINDOW_US))
  for _, person in ipairs(let_in_last) do
    local pass = read_pass(person)
    if pass and not pass.claimed then redis.call('ZADD', INSIDE, text(now + CLAIM_WINDOW_US), person) end
  end
  if not is_usual and redis.call('ZCARD', WAITING) > 0 then
    hold(gate, now + RETURN_HOLD_US)
  end
end

-- The clock went back: the server in place of a lost one is behind, or its clock was set. What the gate waits for comes
-- after as long a time as before; when people were told to poll is in another time, as if nobody could have come.
local function set_back(gate, now, back_us)
  for _, field in ipairs({ 'hold_us', 'tokens_us', 'speed_us' }) do change(gate, field, gate[field] - back_us) end
  change(gate, 'heard_us', now)
  make_up_for_silence(gate, now)
end

-- Notes, to the second, that the line was asked.
local function hear(gate, now)
  local silence_us = now - gate.heard_us
  if silence_us < SECOND and silence_us > -SECOND then return end
  if silence_us < 0 then return set_back(gate, now, -silence_us) end
  if gate.heard_us > 0 and silence_us > SILENCE_US then make_up_for_silence(gate, now) end
  change(gate, 'heard_us', now)
end

-- Ends the turns whose lease has run out: that of the calling person surely, of the others up to the limit.
-- Nothing is looked for before gate.lapse_us: no lease inside ends earlier. A lease that was made longer leaves it as it
-- is, and the next look moves it on; only admit() can make it earlier.
local function expire_leases(gate, now, caller)
  hear(gate, now)
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

-- Where a paper's place stands in the line. Who joined a draw before its opening stands, instead of at that moment, at 50
-- bits of a hash of the draw's seed and the person.
local function place_in_line(gate, person, place)
  if gate.seed == '' or place >= gate.opens_us then return place end
  return math.floor(tonumber(string.sub(redis.sha1hex(gate.seed .. ':' .. person), 1, 13), 16) / 4)
end

-- What stands for a place in a paper: for a drawn one, which no paper tells, a moment before the opening.
local function place_on_paper(gate, place)
  if place >= DRAWN_BELOW then return place end
  local before = gate.opens_us - 1
  if before > gate.last_place then change(gate, 'last_place', before) end
  return before
end

-- Back to an earlier place, after being passed over or forgotten. Who was let in meanwhile stays in front: the
-- admission number of now is kept, so that the record shows why.
local function return_to_line(gate, person, place)
  redis.call('ZREM', AWAY, person)
  redis.call('ZADD', WAITING, text(place), person)
  redis.call('HSET', RETURNED, person, text(gate.number))
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

-- Whether somebody at the head is taken to be here: the poll that they were told to make is due about now. Who is not here
-- loses nothing but a moment: they return to the head with their next poll, while the slot does not wait for nobody. It
-- waits as long as a pass is kept to be claimed for a drawn place, as all who were collected poll soon after the opening,
-- and when the line has just begun to move, or to move faster: what people were told was for a slower one.
local function is_here(gate, person, place, now, caller)
  if person == caller then return true end
  local due = tonumber(redis.call('ZSCORE', SEEN, person) or 0)
  local waits_longer = place < DRAWN_BELOW or now < gate.hold_us + CLAIM_WINDOW_US
  local wait_us = waits_longer and CLAIM_WINDOW_US - GRACE_US or GRACE_US
  return now <= due + GRACE_US and due <= now + wait_us
end

-- Lets people in by place while there is room and rate; who is not here is passed over.
-- Answers how many were let in, how many wait now, how many more may be inside, and the caller's pass when the caller was
-- let in.
local function let_in(gate, now, caller)
  local admitted, waiting, callers_pass = 0, redis.call('ZCARD', WAITING), nil
  local open, room = lets_people_in(gate, now), 0
  if waiting > 0 then room = math.max(0, gate.capacity - redis.call('ZCARD', INSIDE)) end
  if open and waiting > 0 and room > 0 then
    -- Unused rate is kept for one second: the backstop, which ticks once a second, then reaches the whole rate.
    local refill = gate.rate * math.max(0, now - gate.tokens_us) / SECOND
    local tokens = math.min(math.max(1, gate.rate), gate.tokens + refill)
    local limit, passed_over = math.min(math.floor(tokens), ADMISSIONS_MAX, room), 0
    while admitted < limit and waiting > 0 and passed_over < ABSENT_MAX do
      local head = redis.call('ZRANGE', WAITING, 0, math.min(limit - admitted, ABSENT_MAX) - 1, 'WITHSCORES')
      for i = 1, #head, 2 do
        local person, place = head[i], tonumber(head[i + 1])
        if is_here(gate, person, place, now, caller) then
          local pass = admit(gate, person, place, now)
          if person == caller then callers_pass = pass end
          admitted = admitted + 1
        else
          pass_over(person, head[i + 1])
          passed_over = passed_over + 1
        end
        waiting = waiting - 1
      end
    end
    if admitted > 0 then
      change(gate, 'tokens', tokens - admitted)
      change(gate, 'tokens_us', now)
    end
    room = room - admitted
  end
  record_speed(gate, now, admitted, open and waiting > 0 and room == 0)
  return admitted, waiting, room, callers_pass
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
  return { 'ADMITTED', gate.epoch, place_on_paper(gate, pass.place), pass.number, pass.id, expires_us, created }
end

-- Notes when somebody is to poll again.
local function await_poll(person, now, interval_ms)
  redis.call('ZADD', SEEN, text(now + 1000 * interval_ms), person)
end

-- For somebody in the line.
local function answer_waiting(gate, person, place, total, room, now, created, jitter)
  -- A new place is the highest there is.
  local ahead = created == 1 and total - 1 or redis.call('ZRANK', WAITING, person)
  local expected, eta_s = nil, -1
  if gate.rate > 0 and gate.capacity > 0 and gate.paused == 0 then
    expected = expected_s(gate, now, ahead, room)
    eta_s = math.ceil(expected + closed_s(gate, now))
  end
  local interval_ms = poll_interval_ms(gate, ahead, total, expected, jitter)
  await_poll(person, now, interval_ms)
  local numbers = string.format(
    '%d %.0f %d %d %d %d', gate.epoch, place_on_paper(gate, place), ahead, interval_ms, eta_s, created)
  return { 'WAITING', numbers, gate.message }
end

-- By then they have polled, those in front like those behind; also whom a lost Redis has forgotten in between.
local function all_collected_back_us(gate)
  return gate.opens_us + CLAIM_WINDOW_US
end

-- For somebody in a draw whose sale has not opened. All of them poll next within as short a time after the opening as the
-- budget allows, or once before it.
local function answer_collected(gate, person, place, now, created, jitter)
  local total, to_opening_ms = redis.call('ZCARD', WAITING), (gate.opens_us - now) / 1000
  local least_s = math.min(INTERVAL_MAX_S, math.max(OPENING_SPREAD_S, total / (COLLECTED_PART * POLLS_PER_S_MAX)))
  local interval_ms = spread_ms(total, least_s, jitter)
  if to_opening_ms <= spread_ms(total, least_s, 1) then
    interval_ms = math.max(1000, math.ceil(to_opening_ms + jitter * spread_ms(total, OPENING_SPREAD_S, 0)))
  end
  await_poll(person, now, interval_ms)
  write_gate(gate, now)
  local numbers = string.format('%d %.0f %d %.0f %d', gate.epoch, place, interval_ms, gate.opens_us, created)
  return { 'COLLECTED', numbers, gate.message }
end

-- A draw whose sale opens before its time: nobody is let in until all who were collected can have heard of it by the poll
-- that they were told to make, or the first to poll would pass over everybody in front.
local function await_collected(gate)
  local last = redis.call('ZREVRANGE', SEEN, 0, 0, 'WITHSCORES')
  hold(gate, math.max(gate.opens_us, tonumber(last[2] or 0) + SECOND))
end

-- For somebody at a closed line, whether they stand in it or not.
local function answer_closed(gate, person, now, jitter)
  local interval_ms = spread_ms(redis.call('ZCARD', WAITING), CLOSED_INTERVAL_S, jitter)
  if redis.call('ZSCORE', WAITING, person) then await_poll(person, now, interval_ms) end
  return { 'CLOSED', gate.message, interval_ms }
end

-- The last part of join and position: let people in, then say where the caller is, who waits at place or has a pass.
local function admit_and_answer(gate, person, place, pass, now, created, jitter)
  local _, total, room, new_pass = let_in(gate, now, person)
  pass = pass or new_pass
  local reply
  if pass then
    reply = answer_admitted(gate, person, pass, now, created)
  else
    reply = answer_waiting(gate, person, place, total, room, now, created, jitter)
  end
  write_gate(gate, now)
  return reply
end
